"""Recognises the texts of devices and programs by their first lines."""

from collections.abc import Sequence
from pathlib import Path

from captures.table.layout import Layout


def recognise_program(path: Path, head: Sequence[str]) -> Layout | None:
    """The layout of a text that a known program wrote; None for all others. `head` are its first lines, without line ends."""
    return None
