"""Reads tables with a recording in each row, whose samples are a list in one cell: `…,512,"[12,-7,…]"`.

Withings exports ECGs in this form: `signal.csv`, with the columns type, date, duration, frequency, wearposition and a list.
There are also rows of other types, such as the pressure in a cuff. The unit is that of Withings' interface, µV.
Sources: public loaders of the export of Health Mate, which name its columns; developer.withings.com (Heart v2 Get).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from captures.exports.keys import find_kind, normalize, split_key
from captures.exports.loading import DOCUMENT_LIMIT_BYTES, NUMBER_LIMIT
from captures.exports.reading import recording_of
from captures.exports.signals import SIGNAL_LIMIT, Signal, find_signals
from captures.leads import is_ecg_name, is_ppg_name
from captures.recording import ReadOptions, Recording, RecordingError
from captures.streams import open_stream

_LIST: Final = re.compile(rb'(?:^|[,;\t]) ?"?\[\s?-?\d[\d.eE+-]{0,30}\s?,')
"""A cell that begins a list of numbers."""
_CELL: Final = re.compile(r' *(?:"((?:[^"]|"")*)"|(\[[^\]]*\])|([^,;\t]*))[^,;\t]*(?:[,;\t]|$)')
_COLUMNS_LIMIT: Final = 100
_KEY_OF_ECG: Final = "wearposition"
"""In Withings' interface, this key beside the samples means that they are an ECG."""


def starts_rows_of_lists(begin: bytes) -> bool:
    """Whether a file with these first bytes is a table with lists of samples in its cells."""
    titles, _, rows = begin.partition(b"\n")
    return (
        re.search(rb"[A-Za-z]", titles) is not None
        and b"[" not in titles
        and _LIST.search(rows.partition(b"\n")[0]) is not None
    )


def read_rows_of_lists(path: Path, options: ReadOptions) -> Recording | None:
    """Open a table with lists: the first ECG, or the signal that `options` name. None if the lists are too short for samples.

    Raises:
        RecordingError: the file is damaged or too long, or leaves open what `options` must state.
        OSError: the file cannot be read.
    """
    with open_stream(path) as file:
        raw = file.read(DOCUMENT_LIMIT_BYTES + 1)
    if len(raw) > DOCUMENT_LIMIT_BYTES or raw.count(b",") > NUMBER_LIMIT:
        raise RecordingError(
            f"{path}: rows with lists of samples of more than {DOCUMENT_LIMIT_BYTES >> 20} MiB; export fewer recordings at a"
            " time"
        )
    lines = raw.decode("utf-8-sig", "replace").splitlines()
    titles = [title.strip() for title in _split(lines[0])]
    signals: list[Signal] = []
    for line in lines[1 : SIGNAL_LIMIT + 1]:
        signals += _read_row(dict(zip(titles, _split(line), strict=False)))
    return recording_of(path, signals, options) if signals else None


def _split(line: str) -> list[str]:
    """The cells of a row, without their quotation marks."""
    found: list[str] = []
    at = 0
    while at < len(line) and len(found) < _COLUMNS_LIMIT:
        cell = _CELL.match(line, at)
        if cell is None or cell.end() == at:
            break
        found.append(cell[1].replace('""', '"') if cell[1] is not None else cell[2] or cell[3] or "")
        at = cell.end()
    return found


def _read_row(cells: dict[str, str]) -> Iterator[Signal]:
    """The signals of a row. A list is named by its title, or by the type of the row where that says more."""
    lists = {title: values for title, cell in cells.items() if (values := _parse_list(cell)) is not None}
    others: dict[str, Any] = {title: _parse_number(cell) for title, cell in cells.items() if title not in lists}
    kind = find_kind(others)
    if kind and not is_ecg_name(kind):
        others = {title: value for title, value in others.items() if normalize(title) != _KEY_OF_ECG}
    for title, values in lists.items():
        says_kind = is_ecg_name(split_key(title)) or is_ppg_name(split_key(title))
        yield from find_signals({**others, (title if says_kind or not kind else kind): values})


def _parse_list(cell: str) -> list[Any] | None:
    if not cell.startswith("["):
        return None
    try:
        values = json.loads(cell, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, list) else None


def _parse_number(cell: str) -> str | float:
    try:
        return float(cell[:40])
    except ValueError:
        return cell[:200]
