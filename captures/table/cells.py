"""Numbers in the cells of a table: marks of missing values, decimal commas and thousands separators."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from captures.recording import Samples
from captures.table.layout import Column

LARGEST: Final = 1e30
"""Larger than any value in any of the units: nanoseconds since 1970 are 2e18."""
MISSING: Final = frozenset(
    (
        *("", "na", "n/a", "#n/a", "n.a.", "nan", "-nan", "null", "none", "nil", "missing"),
        *("-", "--", "---", "–", "—", ".", "?", "*"),
        *("inf", "+inf", "-inf", "infinity", "-infinity", "1.#inf", "-1.#ind", "1.#qnan"),
        *("#value!", "#div/0!", "#null!"),
    )
)
"""Cells without a value, in lower case."""
_PLAIN: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_GROUPS: Final = {
    False: re.compile(r"[+-]?[1-9]\d{0,2}(?:([,' \u00a0\u202f’])\d{3})(?:\1\d{3})*(?:\.\d*)?", re.ASCII),
    True: re.compile(r"[+-]?[1-9]\d{0,2}(?:([.' \u00a0\u202f’])\d{3})(?:\1\d{3})*(?:,\d*)?", re.ASCII),
}
"""Numbers with thousands separators, by whether the decimal mark is a comma."""
_COMMA: Final = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?", re.ASCII)
_LONGEST: Final = 400
"""Characters of a number: 1e308 written out has 309."""


class CellError(ValueError):
    """A cell that cannot be read; `at` is its index in the list. `is_time` says that a row with a sample has no valid time."""

    def __init__(self, at: int, cell: str, column: Column | None = None, is_time: bool = False) -> None:
        super().__init__(cell[:80])
        self.at = at
        self.cell = cell
        self.column = column
        self.is_time = is_time


def parse_numbers(cells: Sequence[str], decimal_comma: bool) -> Samples:
    """The numbers in some cells, shape (cells,); NaN for missing values and for numbers that no sensor measures, such as inf.

    Raises:
        CellError: a cell is neither a number nor one of the marks of a missing value.
    """
    try:
        values = None if decimal_comma or "_" in "".join(cells) else np.array(list(map(float, cells)), np.float64)
    except ValueError:
        values = None
    if values is None:
        values = np.array([_parse_at(at, cell, decimal_comma) for at, cell in enumerate(cells)], np.float64)
    values[~(np.abs(values) <= LARGEST)] = np.nan
    return values


def parse_number(cell: str, decimal_comma: bool) -> float | None:
    """The number in one cell; NaN for a mark of a missing value, and None for anything else."""
    text = cell.strip()
    if len(text) > _LONGEST:
        return None
    if decimal_comma and _COMMA.fullmatch(text):
        return float(text.replace(",", "."))
    group = _GROUPS[decimal_comma].fullmatch(text)
    if group:
        return float(text.replace(group[1], "").replace(",", "."))
    if _PLAIN.fullmatch(text):
        return float(text)
    return float("nan") if text.lower() in MISSING else None


def is_missing(cell: str) -> bool:
    """Whether a cell has no value."""
    return cell.strip().lower() in MISSING


def _parse_at(at: int, cell: str, decimal_comma: bool) -> float:
    value = parse_number(cell, decimal_comma)
    if value is None:
        raise CellError(at, cell.strip())
    return value
