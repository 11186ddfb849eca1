"""The layout of a text of columns, which is found in its first lines before any sample is read."""

from dataclasses import dataclass
from typing import Final

HEAD_LINES: Final = 200
"""Number of first lines that are searched for the layout: the longest header of a public export has 60."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title without the unit, and the unit; both may be empty. `number` counts from 1."""

    number: int
    name: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the samples of a text stand, and what its header says about them.

    `program` names the program or device that writes such texts; empty for a table of unknown origin. `first_line` is the
    number of the line with the first sample, from 0. `delimiter` separates the cells; None where blanks do. `time` is the
    column of the times; None if the table has none, and then the samples are evenly spaced at `rate_hz`. `date` is the column
    of the dates where they are separate from the times of day. `rate_hz` is None where the header does not state it, `start_us`
    likewise (microseconds since 1970; local times count as UTC). `signal` is the column of the ECG where the
    program determines it. `columns` has a column for each cell of a row, also for an empty one after a trailing separator.
    """

    program: str
    first_line: int
    delimiter: str | None
    columns: tuple[Column, ...]
    decimal_comma: bool = False
    time: Column | None = None
    date: Column | None = None
    signal: Column | None = None
    rate_hz: float | None = None
    start_us: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Cells of a row."""
        return len(self.columns)
