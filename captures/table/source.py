"""Reads the times and samples of the chosen columns from a table, batch by batch, in the order of the file."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from captures.recording import RecordingError, Samples
from captures.table.cells import CellError, parse_numbers
from captures.table.layout import Column, Layout
from captures.table.order import Batch, sort_rows
from captures.table.rows import SHOWN, Rows, read_rows
from captures.table.text import Text
from captures.table.times import TimeFormat, parse_times
from captures.table.wraps import Unwrapper

_THOUSANDS: Final = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+")
_GROUPED: Final = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")


@dataclass(frozen=True, slots=True)
class Table:
    """A text with its layout; `header` is the line with the titles, `rows` are the cells of its first rows."""

    text: Text
    layout: Layout
    header: str
    rows: tuple[tuple[str, ...], ...]

    def has_comma(self, column: Column) -> bool:
        """Whether the numbers of a column have decimal commas."""
        if not self.layout.decimal_comma:
            return False
        cells = self.cells(column)
        marked = [cell for cell in cells if "," in cell]
        whole = [cell for cell in cells if cell.lstrip("+-").isdecimal()]
        if whole and marked and all(map(_GROUPED.fullmatch, marked)) and any(len(cell.lstrip("+-")) == 3 for cell in whole):
            return False  # 998, 999, 1,000
        dotted = [cell for cell in cells if "." in cell]
        has_thousands = 0 < len(dotted) < len(cells) and all(_THOUSANDS.fullmatch(cell) for cell in dotted)
        return has_thousands or any("," in cell for cell in cells)

    def cells(self, column: Column) -> list[str]:
        """The cells of a column in the first rows."""
        return [row[column.number - 1] for row in self.rows]


@dataclass(frozen=True, slots=True)
class Source:
    """The columns that are read. `time` is None where the rows have no times; `form` is the format of the times.

    `step` is the usual step from one time to the next; see `Unwrapper`. `is_sparse` says that only some rows have a time;
    the others take the time of the row before.
    """

    table: Table
    signal: Column
    time: Column | None = None
    form: TimeFormat | None = None
    date: Column | None = None
    rr: Column | None = None
    step: float = 0.0
    is_sparse: bool = False

    def read(self) -> Iterator[Batch]:
        """Yield all rows of the file. Times continue where a counter restarts, and packets out of order are sorted.

        Raises:
            RecordingError: a cell is not a number or time; see also `read_rows`.
        """
        batches = self._read_batches()
        return sort_rows(batches, self.step) if self.time and self.step > 0 else batches

    def _read_batches(self) -> Iterator[Batch]:
        table, count, last = self.table, 0, float("nan")
        wanted = [column.number - 1 for column in (self.signal, self.time, self.date, self.rr) if column]
        unwrapper = Unwrapper(self.step, self.form is not None and self.form.kind in ("clock", "calendar"))
        for batch in read_rows(table.text, table.layout, wanted, table.header, self._parse):
            times = np.arange(count, count + batch.values.size, dtype=np.float64) if self.time is None else batch.times
            count += batch.values.size
            times = unwrapper.unwrap(_fill(times, last) if self.is_sparse else times) if self.time else times
            last = float(times[-1]) - unwrapper.offset if times.size else last
            values = np.where(np.isnan(times), np.nan, batch.values) if self.is_sparse else batch.values
            yield batch._replace(times=times, values=values, wrap_value=unwrapper.wrap_value)

    def _parse(self, rows: Rows) -> Batch:
        """The values of some rows. A last row without a line end that cannot be read is truncated.

        Raises:
            CellError: any other cell cannot be read, but may be part of a comment: see `Rows.is_split`.
            RecordingError: any other cell cannot be read.
        """
        try:
            return self._parse_all(rows)
        except CellError as error:
            last = len(rows.cells[0]) - 1
            if rows.open_line is not None and error.at == last:
                cells = tuple(cells[:last] for cells in rows.cells)
                return self._parse(rows._replace(cells=cells, lines=rows.lines[:last], is_cut=True))
            if rows.is_split:
                raise self._explain(error, int(rows.lines[error.at])) from None
            raise

    def _parse_all(self, rows: Rows) -> Batch:
        columns = iter(rows.cells)
        values = self._numbers(self.signal, next(columns))
        times = self._times(columns, values) if self.time else np.empty(0)
        rr = self._numbers(self.rr, next(columns)) if self.rr else None
        cut_line = rows.open_line if rows.is_cut else None
        return Batch(times, values, rows.lines, rr, cut_line)

    def _numbers(self, column: Column, cells: Sequence[str]) -> Samples:
        try:
            return parse_numbers(cells, self.table.has_comma(column))
        except CellError as error:
            error.column = column
            raise

    def _times(self, columns: Iterator[list[str]], values: Samples) -> Samples:
        assert self.time
        assert self.form
        cells = next(columns)
        if self.date:
            cells = [f"{date} {clock}" for date, clock in zip(next(columns), cells, strict=True)]
        try:
            times = parse_times(cells, self.form, self.table.has_comma(self.time))
        except CellError as error:
            error.column = self.time
            raise
        unknown = np.isnan(times) & np.isfinite(values) & (not self.is_sparse)
        if unknown.any():
            at = int(np.flatnonzero(unknown)[0])
            raise CellError(at, cells[at].strip(), self.time, is_time=True)
        return times

    def _explain(self, error: CellError, line: int) -> RecordingError:
        path = self.table.text.path
        title = error.column.name[:SHOWN] if error.column else ""
        if error.is_time:
            problem = f"has {error.cell[:20]!r} as its time, which is not a valid number" if error.cell else "has no time"
            return RecordingError(f"{path}: row {line} {problem}; remove that row")
        comma = "; decimal commas need ; or a tab between the cells" if "," in error.cell else ""
        what = (
            "a time as in the rows before"
            if error.column is self.time and self.form and self.form.kind != "number"
            else "a number"
        )
        return RecordingError(
            f"{path}: row {line}, column {title!r}: {error.cell[:SHOWN]!r} is not {what}; correct or empty the cell{comma}"
        )


def _fill(times: Samples, last: float) -> Samples:
    """Fill in missing times with the time of the row before; `last` is the time before the first row."""
    filled = np.concatenate(([last], times))
    known = np.where(np.isnan(filled), 0, np.arange(filled.size))
    return filled[np.maximum.accumulate(known)][1:]
