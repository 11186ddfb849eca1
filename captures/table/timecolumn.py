"""Chooses the column of the times by its title and its cells in the first rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from captures.table.cells import CellError
from captures.table.layout import Column
from captures.table.times import find_format, is_date, parse_times, seconds_per_unit
from captures.table.titles import is_date_title, is_index_title, is_time_title

_EVEN_SHARE: Final = 0.8
"""Smallest share of steps that are close to the median step: times of packets sometimes step back."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    column: Column
    distinct: int
    has_unit: bool
    is_clock: bool


def find_time(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], decimal_comma: bool, has_titles: bool
) -> tuple[Column | None, Column | None]:
    """The column of the times, and the column of the dates if it is separate; None where the table does not have one.

    Of several columns of times, the one with the most different times is chosen, then one with a unit, then the first one. If
    no title says time, it is the first column that increases evenly and has a unit of time, or holds dates or times of day;
    otherwise the first column of sample numbers. Without titles, it is the first column if its numbers increase evenly.
    """
    named = [column for column in columns if is_time_title(column)]
    found = [candidate for column in named if (candidate := _examine(column, rows, decimal_comma))]
    if found:
        best = max(found, key=lambda candidate: (candidate.distinct, candidate.has_unit, -candidate.column.number))
        date = _find_date(columns, rows) if best.is_clock else None
        return best.column, date
    other = [column for column in columns if not is_index_title(column) or not column.name]
    for column in other:
        if _is_of_time(column, rows, decimal_comma) and _is_even(column, rows, decimal_comma):
            return column, None
    counted = columns[:1] if not has_titles and len(columns) > 1 else [column for column in columns if is_index_title(column)]
    for column in counted:
        if _is_even(column, rows, decimal_comma):
            return column, None
    return None, None


def _examine(column: Column, rows: Sequence[Sequence[str]], decimal_comma: bool) -> _Candidate | None:
    """Examine the first rows of a column that is named like times; None if it does not hold times."""
    cells = [row[column.number - 1] for row in rows]
    form = find_format([cell for cell in cells[:-1] or cells if cell], decimal_comma)
    if form is None:
        return _Candidate(column, 0, False, False) if not all(map(is_date, cells)) else None
    if all(map(is_date, cells)) and form.kind != "number":
        return None
    try:
        times = parse_times(cells[:-1] or cells, form, decimal_comma)
    except CellError:
        return _Candidate(column, 0, False, False)
    times = times[np.isfinite(times)]
    return _Candidate(column, np.unique(times).size, seconds_per_unit(column.unit) is not None, form.kind == "clock")


def _is_of_time(column: Column, rows: Sequence[Sequence[str]], decimal_comma: bool) -> bool:
    """Whether a column has a unit of time, or holds dates or times of day."""
    form = find_format([row[column.number - 1] for row in rows], decimal_comma)
    return form is not None and (form.kind != "number" or seconds_per_unit(column.unit) is not None)


def _find_date(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Column | None:
    for column in columns:
        cells = [row[column.number - 1] for row in rows]
        if is_date_title(column) and cells and all(map(is_date, cells)):
            return column
    return None


def _is_even(column: Column, rows: Sequence[Sequence[str]], decimal_comma: bool) -> bool:
    """Whether the numbers or times of a column increase by about the same step."""
    cells = [row[column.number - 1] for row in rows]
    form = find_format([cell for cell in cells if cell], decimal_comma)
    if form is None:
        return False
    try:
        steps = np.diff(parse_times(cells, form, decimal_comma))
    except CellError:
        return False
    if steps.size < 2 or not np.isfinite(steps).all():
        return False
    middle = float(np.median(steps))
    return middle > 0 and float(np.mean(np.abs(steps - middle) <= 0.5 * middle)) >= _EVEN_SHARE
