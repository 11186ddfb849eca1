"""Emulated sensors, one module a family, on Bumble's virtual link.

They are written from the specifications and from what real devices do. They import none of our drivers: an error in one must
not be mirrored in the other.
"""
