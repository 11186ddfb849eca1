"""Reads numbers, sampling rates and rows for the modules that recognise the texts of programs."""

import math
import re
from collections.abc import Sequence
from typing import Final

from captures.table.layout import Column

LONGEST: Final = 200
"""Characters of a line of a preamble that are parsed."""
RATES_HZ: Final = (1.0, 100_000.0)
_NUMBER: Final = re.compile(r"[-+]?\d{1,20}(?:[.,]\d{1,20})?(?:[eE][-+]?\d{1,3})?")
_RATE: Final = re.compile(
    r"(?:sampl\w{0,10}[ _-]{0,2}(?:rate|freq\w{0,8})|\bfs\b|\bsfreq\b)[^\d\n]{0,20}?(\d{1,6}(?:\.\d{1,9})?)\s*(k?hz)?",
    re.IGNORECASE,
)


def to_number(cell: str) -> float:
    """The number in a cell, with a decimal point or comma; NaN for anything else."""
    text = cell.strip().strip("\"'")[:LONGEST]
    return float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else math.nan


def is_number(cell: str) -> bool:
    """Whether a cell holds a number."""
    return not math.isnan(to_number(cell))


def find_rate(lines: Sequence[str]) -> float | None:
    """The sampling rate in Hz that one of some comment lines states, such as `# Sampling Rate (Hz):= 250.00`."""
    for line in lines:
        found = _RATE.search(line[:LONGEST])
        if found:
            rate_hz = float(found[1]) * (1000 if (found[2] or "").casefold() == "khz" else 1)
            if RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
                return rate_hz
    return None


def has_decimal_comma(rows: Sequence[str], delimiter: str | None = None) -> bool:
    """Whether some lines of columns, or of one column, hold numbers with a decimal comma."""
    if delimiter == ",":
        return False
    return any("," in cell and is_number(cell) for row in rows for cell in row[:LONGEST].split(delimiter))


def first_row(head: Sequence[str], after: int = 0) -> int | None:
    """The number of the first line, from `after`, that is not blank; None if there is none."""
    return next((number for number in range(after, len(head)) if head[number].strip()), None)


def add_trailing(columns: Sequence[Column], row: str, delimiter: str) -> tuple[Column, ...]:
    """The columns, and an unnamed one for each empty cell that a trailing separator adds to a row."""
    cells = row.split(delimiter)
    more = len(cells) - len(columns)
    extra = range(len(columns) + 1, len(cells) + 1) if more > 0 and not any(cells[len(columns) :]) else ()
    return (*columns, *(Column(number, "") for number in extra))
