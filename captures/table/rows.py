"""Splits a text into rows and columns of cells, block by block."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from captures.recording import RecordingError
from captures.table.cells import CellError
from captures.table.layout import Layout
from captures.table.text import LINE_LIMIT_BYTES, Text, read_blocks

T = TypeVar("T")

_QUOTES: Final = "\"'"
_BLANKS: Final = re.compile(r"[ \t]+")
COMMENTS: Final = ("#", "%", "//", ";")
"""Beginnings of comment lines; a semicolon begins one only where it does not separate cells."""
_NUMBER_STARTS: Final = ("-", "+", ".")
"""A last cell that holds only one of these is a truncated number."""
SHOWN: Final = 40
"""Characters of a cell or title that a message shows."""


class Rows(NamedTuple):
    """Consecutive rows: the cells of each wanted column, and the number of each row's line in the file, from 1.

    `open_line` is the line of the last row of the file where it has no line end. `is_cut` says that this row is truncated and
    left out. `is_split` says that the block was split line by line, without its comments.
    """

    cells: tuple[list[str], ...]
    lines: NDArray[np.int64]
    open_line: int | None = None
    is_cut: bool = False
    is_split: bool = False


def is_comment(line: str, delimiter: str | None) -> bool:
    """Whether a line is a comment: it begins with #, %, // or, where semicolons do not separate cells, with ;."""
    return line.lstrip(' \t"').startswith(tuple(mark for mark in COMMENTS if mark != delimiter))


def split_line(line: str, delimiter: str | None) -> list[str]:
    """The cells of a line, without quotes and the blanks around them."""
    if delimiter is None:
        return [cell.strip(_QUOTES) for cell in line.split()]
    if '"' in line:
        csv.field_size_limit(LINE_LIMIT_BYTES)
        try:
            cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            cells = line.split(delimiter)
    else:
        cells = line.split(delimiter)
    return [_unquote(cell) for cell in cells]


def read_rows(text: Text, layout: Layout, wanted: Sequence[int], header: str, parse: Callable[[Rows], T]) -> Iterator[T]:
    """Yield the parsed rows of a table from its first one on, with the cells of the columns `wanted` (their places, from 0).

    Comments, empty rows and rows of empty cells are left out. `header` is the line with the titles; empty if there is none.
    `parse` raises `CellError` for a cell that it cannot read; in a block that `split_fast` split, this may be a comment.

    Raises:
        CellError: a cell that cannot be read.
        RecordingError: a row has more or fewer cells than the others, or the header is repeated; see also `read_blocks`.
    """
    splitter = _Splitter(text, layout, tuple(wanted), header.strip())
    number = 1
    for block in read_blocks(text):
        following = number + block.count("\n")
        skipped = max(0, layout.first_line + 1 - number)
        body = block.split("\n", skipped)[-1] if skipped and number + skipped <= following else block
        if number + skipped <= following and body:
            yield _parse_block(splitter, body, number + skipped, parse)
        number = following


def _parse_block(splitter: "_Splitter", body: str, number: int, parse: Callable[[Rows], T]) -> T:
    rows = splitter.split_fast(body, number)
    if rows is not None:
        try:
            return parse(rows)
        except CellError:
            pass
    return parse(splitter.split(body, number))


@dataclass(frozen=True, slots=True)
class _Splitter:
    text: Text
    layout: Layout
    wanted: tuple[int, ...]
    header: str

    def split_fast(self, body: str, number: int) -> Rows | None:
        """The rows of a block in which each line has exactly one cell per column; None for any other block."""
        if not body.endswith("\n") or (self.header and self.header in body) or _has_comment(body, self.layout.delimiter):
            return None
        plain = body.replace('"', "").replace("'", "")
        width, delimiter = self.layout.width, self.layout.delimiter
        if delimiter is None:
            plain = _BLANKS.sub(" ", plain).replace("\n ", "\n").replace(" \n", "\n").removeprefix(" ")
            delimiter = " "
        if plain.startswith("\n") or "\n\n" in plain or not _is_even(plain, delimiter, width):
            return None
        cells = plain[:-1].replace("\n", delimiter).split(delimiter) if width > 1 else plain[:-1].split("\n")
        count = len(cells) // width
        return Rows(tuple(cells[at::width] for at in self.wanted), np.arange(number, number + count))

    def split(self, body: str, number: int) -> Rows:
        """The rows of a block, line by line."""
        found: list[list[str]] = []
        lines: list[int] = []
        for at, line in enumerate(body.removesuffix("\n").split("\n"), start=number):
            if not line.strip() or is_comment(line, self.layout.delimiter):
                continue
            if self.header and line.strip() == self.header:
                raise RecordingError(
                    f"{self.text.path}: the header is repeated in line {at}, where a second recording begins; split the file"
                    " there"
                )
            cells = split_line(line, self.layout.delimiter)
            if any(cells):
                found.append(cells)
                lines.append(at)
        open_line = lines[-1] if lines and not body.endswith("\n") else None
        is_cut = open_line is not None and (len(found[-1]) < self.layout.width or found[-1][-1] in _NUMBER_STARTS)
        if is_cut:
            found.pop()
            lines.pop()
        for cells, at in zip(found, lines, strict=True):
            self._check_width(cells, at)
        columns = tuple([cells[column] for cells in found] for column in self.wanted)
        return Rows(columns, np.array(lines, np.int64), open_line, is_cut, True)

    def _check_width(self, cells: list[str], line: int) -> None:
        width = self.layout.width
        more = cells[width:]
        if len(cells) < width or (any(more) and not more[0].startswith("#")):  # LabChart writes comments behind a row
            raise RecordingError(
                f"{self.text.path}: row {line} has {len(cells)} cells, the others have {width}; remove or complete that row"
            )


def _is_even(plain: str, delimiter: str, width: int) -> bool:
    """Whether each line has this number of cells."""
    if width == 1:
        return delimiter not in plain.strip()
    raw = np.frombuffer(plain.encode(), np.uint8)
    ends = raw[(raw == ord(delimiter)) | (raw == ord("\n"))] == ord("\n")
    return ends.size % width == 0 and bool(ends[width - 1 :: width].all()) and int(ends.sum()) * width == ends.size


def _has_comment(body: str, delimiter: str | None) -> bool:
    return any(f"\n{mark}" in body or body.startswith(mark) for mark in COMMENTS if mark != delimiter)


def _unquote(cell: str) -> str:
    text = cell.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES else text
