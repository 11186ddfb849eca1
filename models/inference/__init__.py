"""The released models at run time: verified bytes in, probabilities out. Needs numpy and onnxruntime only."""
