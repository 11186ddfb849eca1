"""Streaming signal processing in numpy: any chunking gives the same result, bit for bit."""
