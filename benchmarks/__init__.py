"""Figures of speed and latency: `make bench`. What is true of them is printed and written, never asserted in a test."""
