"""Pure decoders of sensor payloads: bytes in, readings out."""
