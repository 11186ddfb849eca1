"""Reads the exports of vendors that are not tables: JSON objects, JSON lines, and texts of a device's own shape."""
