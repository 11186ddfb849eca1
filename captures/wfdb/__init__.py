"""Reads WFDB records: a text header `.hea`, binary signal files, and records of several segments."""

from captures.wfdb.locate import find_header
from captures.wfdb.reader import read_wfdb

__all__ = ["find_header", "read_wfdb"]
