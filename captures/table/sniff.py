"""Finds the layout of a table of unknown origin in its first lines: separators, header, units, and the column of the times."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from captures.recording import RecordingError
from captures.table.cells import LARGEST, is_missing, parse_number
from captures.table.layout import HEAD_LINES, Column, Layout
from captures.table.rows import is_comment, split_line
from captures.table.timecolumn import find_time
from captures.table.times import is_time
from captures.table.titles import read_column, read_unit

_DELIMITERS: Final = ("\t", ";", ",", "|", None)
_SEP: Final = re.compile(r'"?sep=(.|\\t)"?', re.IGNORECASE | re.DOTALL)
_COMMA: Final = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?|[+-]?\d{1,3}(?:\.\d{3})+,\d+", re.ASCII)
_POINT: Final = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+\.\d+", re.ASCII)
"""A number with a thousands separator and a decimal point, as Americans write it."""
_WIDE: Final = re.compile(r"\t|\s{2,}")
_SHORTEST: Final = 2
_MOST_COLUMNS: Final = 32_768
"""Tables with a column for each sensor have up to 300 columns."""
_LEAST_WRAPPED: Final = 4
_CLOSER: Final = 0.7
_LEAST_VALUES: Final = 0.6
"""Smallest share of values among the cells of a column of values."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the head: its number in the file, from 0, and its cells."""

    number: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Grid:
    """The lines of a head, split at one delimiter. `values` says which columns hold numbers or times."""

    delimiter: str | None
    decimal_comma: bool
    lines: list[Line]
    width: int
    values: tuple[bool, ...]
    score: float


def sniff(path: Path, head: Sequence[str], delimiter: str = "") -> Layout:
    """Find the layout of a table in its first lines. `delimiter` is the only one that is tried, if given.

    Raises:
        RecordingError: the lines do not hold a table.
    """
    forced, start = _read_sep(head)
    forced = delimiter or forced
    content = [(at, line) for at, line in enumerate(head) if at >= start and line.strip()]
    if content and all(max(*map(line.count, "\t;,|"), len(line.split())) > _MOST_COLUMNS for _, line in content[:3]):
        raise RecordingError(f"{path}: more than {_MOST_COLUMNS} columns, too many for a table of an ECG; remove the others")
    grids = [_build_grid(content, delimiter) for delimiter in ((forced,) if forced else _DELIMITERS)]
    grid = max(grids, key=lambda grid: grid.score)
    first = _find_first_row(grid)
    if first is None:
        raise RecordingError(
            f"{path}: holds no row of numbers in its first {HEAD_LINES} lines; give a table with a column of times and"
            " one of the ECG, a header row, and a row for each sample"
        )
    titles, units = _find_header(grid, first)
    if len(titles) > grid.width and grid.delimiter is None:
        titles = _join_titles(titles, head[grid.lines[first - 1 - bool(units)].number], grid.width)
    titles = titles or _find_comment_header(head, grid.lines[first].number, grid)
    rows = [line.cells for line in grid.lines[first:] if len(line.cells) >= grid.width]
    columns = _read_columns(path, titles, units, rows, grid.width)
    time, date = find_time(columns, rows, grid.decimal_comma, bool(titles))
    return Layout("", grid.lines[first].number, grid.delimiter, columns, grid.decimal_comma, time, date)


def is_one_signal(head: Sequence[str], layout: Layout) -> bool:
    """Whether the lines of a table without titles are parts of one signal that is wrapped to lines of equal length.

    Then neighbours in a line are closer than neighbours in a column, and the first number of a line is close to the one before.
    """
    if layout.width < _LEAST_WRAPPED or any(column.name for column in layout.columns):
        return False
    rows = [split_line(line, layout.delimiter) for line in head[layout.first_line :] if line.strip()]
    numbers = [[parse_number(cell, layout.decimal_comma) for cell in cells] for cells in rows if len(cells) == layout.width]
    if len(numbers) < _LEAST_WRAPPED or any(number is None for row in numbers for number in row):
        return False
    values = np.array(numbers, np.float64)
    if not (np.abs(values) <= LARGEST).all():
        return False
    along, down = np.abs(np.diff(values, axis=1)).mean(), np.abs(np.diff(values, axis=0)).mean()
    return bool(along < _CLOSER * down and np.abs(values[1:, 0] - values[:-1, -1]).mean() < _CLOSER * down)


def header_line(head: Sequence[str], layout: Layout) -> str:
    """The line with the titles, before the first row; empty if there is none."""
    for line in reversed(head[: layout.first_line]):
        cells = [cell for cell in split_line(line, layout.delimiter) if cell]
        if (
            cells
            and not any(is_value(cell, layout.decimal_comma) for cell in cells)
            and any(read_unit(c) is None for c in cells)
        ):
            return "" if is_comment(line, layout.delimiter) else line
    return ""


def is_value(cell: str, decimal_comma: bool) -> bool:
    """Whether a cell is a number, a time, or the mark of a missing one."""
    return parse_number(cell, decimal_comma) is not None or is_time(cell)


def _read_sep(head: Sequence[str]) -> tuple[str | None, int]:
    """The delimiter that a line such as `sep=;` states, and the number of the line after it."""
    for at, line in enumerate(head[:3]):
        found = _SEP.fullmatch(line.strip(" \r"))
        if found:
            return ("\t" if found[1] == "\\t" else found[1]), at + 1
    return None, 0


def _build_grid(content: Sequence[tuple[int, str]], delimiter: str | None) -> Grid:
    lines = [Line(at, split_line(line, delimiter)) for at, line in content if not is_comment(line, delimiter)]
    lines = [line for line in lines if any(line.cells)]
    rows = [line.cells for line in lines if any(is_value(cell, True) for cell in line.cells if cell)]
    widths = Counter(map(len, rows))
    width = max(widths, key=lambda width: (widths[width], width), default=0)
    same = [cells for cells in rows if len(cells) == width]
    comma = has_decimal_comma(same)
    values = tuple(_share(same, column, comma) >= _LEAST_VALUES for column in range(width))
    good = sum(all(is_value(cells[at], comma) for at in range(width) if values[at]) for cells in same) if any(values) else 0
    weight = 1.01 if width > 1 else 0.5 if comma else 1.0  # 0,1 is more likely two cells than one with a decimal comma
    return Grid(delimiter, comma, lines, width, values, good * weight * sum(values) / max(1, width))


def has_decimal_comma(rows: Sequence[Sequence[str]]) -> bool:
    """Whether some numbers have a decimal comma, and none has a comma before a decimal point."""
    cells = [cell for row in rows for cell in row if "," in cell]
    return any(map(_COMMA.fullmatch, cells)) and not any(map(_POINT.fullmatch, cells))


def _trim(cells: Sequence[str]) -> int:
    """The number of cells without empty ones at the end."""
    count = len(cells)
    while count > 1 and not cells[count - 1]:
        count -= 1
    return count


def _share(rows: Sequence[Sequence[str]], column: int, comma: bool) -> float:
    return sum(is_value(cells[column], comma) for cells in rows) / len(rows) if rows else 0.0


def _find_first_row(grid: Grid) -> int | None:
    """The place among the lines of the first row of values; None if there is none."""
    for at, line in enumerate(grid.lines):
        if not at and _counts_columns(line.cells):
            continue
        if _is_row(grid, line.cells) and all(_is_row(grid, following.cells) for following in grid.lines[at + 1 : at + 2]):
            above = at - 1
            while above >= _counts_columns(grid.lines[0].cells) and _is_broken_row(grid, grid.lines[above].cells):
                above -= 1
            return above + 1
    return None


def _counts_columns(cells: Sequence[str]) -> bool:
    """Whether a line has the titles that pandas gives to columns without titles: 0, 1, 2."""
    own = cells[1:] if cells[0] == "" else cells
    return len(cells) > 1 and list(own) == [str(at) for at in range(len(own))]


def _is_row(grid: Grid, cells: Sequence[str]) -> bool:
    known = [at for at, flag in enumerate(grid.values) if flag and at < len(cells)]
    return (
        bool(known)
        and _trim(cells) <= grid.width
        and all(is_value(cells[at], grid.decimal_comma) for at in known)
        and any(cells[at] and not is_missing(cells[at]) for at in known)
    )


def _is_broken_row(grid: Grid, cells: Sequence[str]) -> bool:
    """Whether a line above the first row has the same number of cells and some values: a row with a damaged cell."""
    return len(cells) == grid.width > 1 and any(
        grid.values[at] and cell and not is_missing(cell) and is_value(cell, grid.decimal_comma)
        for at, cell in enumerate(cells[: len(grid.values)])
    )


def _find_header(grid: Grid, first: int) -> tuple[list[str], list[str]]:
    """The titles above the first row, and the units; empty where there are none."""
    above = [line.cells for line in grid.lines[max(0, first - 2) : first]]
    above = [cells for cells in above if _trim(cells) > 1 or grid.width == 1]
    if not above or _counts_columns(above[-1]):
        return [], []
    units = [read_unit(cell) for cell in above[-1]]
    if len(above) == _SHORTEST and any(units) and None not in units:
        return above[0], [unit or "" for unit in units]
    return above[-1], []


def _join_titles(titles: Sequence[str], line: str, width: int) -> list[str]:
    """The titles of a header that is split at blanks although its titles contain single blanks."""
    wide = _WIDE.split(line.strip())
    return wide if len(wide) == width else _join_brackets(titles)


def _join_brackets(cells: Sequence[str]) -> list[str]:
    """The titles of a header that is split at blanks, each with its unit: `Time (s)  ECG (mV)`."""
    found: list[str] = []
    for cell in cells:
        if found and cell.startswith(("(", "[")):
            found[-1] += f" {cell}"
        else:
            found.append(cell)
    return found


def _find_comment_header(head: Sequence[str], first_line: int, grid: Grid) -> list[str]:
    """The titles in the last comment above the first row, as numpy.savetxt writes them."""
    if not first_line or not is_comment(head[first_line - 1], grid.delimiter):
        return []
    cells = split_line(head[first_line - 1].strip().lstrip('#%/;" ').rstrip('"'), grid.delimiter)
    cells = _join_brackets(cells) if grid.delimiter is None else cells
    fits = _trim(cells) == grid.width and not any(is_value(cell, grid.decimal_comma) for cell in cells)
    return cells if fits else []


def _read_columns(
    path: Path, titles: Sequence[str], units: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[Column, ...]:
    named = _trim(titles) if titles else width
    if named == width - 1 and _counts_rows([cells[0] for cells in rows]):  # R leaves out the title of the row names
        titles, named = ["", *titles], width
    spare = all(not any(cells[named:]) for cells in rows)
    if titles and named != width and not (named < width and spare):
        raise RecordingError(
            f"{path}: the header has {named} cells, the rows have {width}; give each column a title, and check the separator"
            " and the decimal mark"
        )
    found = []
    for at in range(width):
        column = read_column(at + 1, titles[at] if at < len(titles) else "")
        unit = units[at] if at < len(units) else ""
        found.append(Column(column.number, column.name, unit or column.unit))
    return tuple(found)


def _counts_rows(cells: Sequence[str]) -> bool:
    return len(cells) > 1 and all(
        cell == str(int(cells[0]) + at) if cells[0].isdecimal() and len(cells[0]) < 10 else False
        for at, cell in enumerate(cells)
    )
