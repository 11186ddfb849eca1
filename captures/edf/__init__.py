"""Reads EDF, EDF+, BDF and BDF+ files."""

from captures.edf.header import is_edf
from captures.edf.reader import read_edf

__all__ = ["is_edf", "read_edf"]
