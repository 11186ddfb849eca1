"""Recognises the texts of devices and programs by their first lines, never by the file's name."""

from collections.abc import Callable, Sequence
from typing import Final

from captures.table.laboratory import (
    recognise_acqknowledge,
    recognise_biosppy,
    recognise_labchart,
    recognise_openbci,
    recognise_opensignals,
    recognise_wfdb_text,
)
from captures.table.layout import Layout
from captures.table.wearables import recognise_empatica, recognise_polar_logger, recognise_watch

Recogniser = Callable[[Sequence[str]], Layout | None]

_RECOGNISERS: Final[tuple[Recogniser, ...]] = (
    recognise_opensignals,
    recognise_biosppy,
    recognise_openbci,
    recognise_labchart,
    recognise_acqknowledge,
    recognise_wfdb_text,
    recognise_empatica,
    recognise_polar_logger,
    recognise_watch,
)


def recognise_program(head: Sequence[str]) -> Layout | None:
    """The layout of a text that a known program wrote; None for all others. `head` are its first lines, without line ends."""
    return next((layout for layout in (recognise(head) for recognise in _RECOGNISERS) if layout), None)
