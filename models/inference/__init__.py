"""The released models at run time: verified bytes in, probabilities out. Only numpy and onnxruntime are needed."""
