"""Pure decoders of what sensors send: bytes in, readings out."""
