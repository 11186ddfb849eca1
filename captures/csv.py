"""Reads an ECG from CSV: a header row, a column of times and a column of samples.

Columns are found by name; units are part of the name: `ecg [uV]`, `ecg_mv`, `time (ms)`, `timestamp_ns`. A missing unit is
inferred from the values. Time advances by 0.5 to 20 ms per sample (2000 to 50 Hz), and these ranges do not overlap in s, ms, µs
and ns. Samples are µV if their spread exceeds 20, else mV. RR intervals are ms if above 10, else s. Delimiters are comma,
semicolon (the decimal mark may then be a comma) and tab.
"""

import csv
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.files import read_text
from captures.leads import ACCEPTED_ECG, is_ecg_name, millivolts_per_unit
from captures.recording import LONGEST_S, Recording, RecordingError, find_gaps, split_chunks

_UNIT_SUFFIX: Final = re.compile(r"[mµun]?[sv]", re.IGNORECASE)
_FILLERS: Final = f"{string.whitespace}_"
"""What may stand between a column's name and its unit."""
_TIME: Final = re.compile(r"(?:.*[\s_])?(?:time|timestamp|t|seconds|datetime)", re.IGNORECASE)
_RR: Final = re.compile(r"rr(?:[\s_-]?intervals?)?", re.IGNORECASE)
_SECONDS: Final = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_RATES_HZ: Final = (50.0, 2000.0)
_UNIX_S: Final = (1e9, 4e9)
"""Times in this range (2001 to 2096) are seconds since 1970; other times have an unknown epoch."""
_UV_SPREAD: Final = 20.0
"""No ECG spans 20 mV, and an ECG of 20 µV shows no QRS."""
_LARGEST: Final = 1e30
"""Larger than any value in any of the units: nanoseconds since 1970 are 2e18."""


@dataclass(frozen=True, slots=True)
class _Column:
    index: int
    title: str
    base: str
    unit: str


@dataclass(frozen=True, slots=True)
class _Table:
    columns: tuple[_Column, ...]
    cells: tuple[tuple[str, ...], ...]
    decimal_comma: bool

    def numbers(self, path: Path, column: _Column) -> NDArray[np.float64]:
        """Returns the values of a column; NaN where a cell is empty or not a measurable number, such as inf."""
        cells = [cell.strip() or "nan" for cell in self.cells[column.index]]
        if self.decimal_comma:
            cells = [cell.replace(",", ".") for cell in cells]
        values = np.array([_parse_number(path, column, row, cell) for row, cell in enumerate(cells, start=2)])
        values[~(np.abs(values) <= _LARGEST)] = np.nan
        return values


def read_csv(path: Path) -> Recording:
    """Reads the first ECG column of a CSV file, plain or gzipped.

    Raises:
        RecordingError: a column is missing, a cell is not a number, or the times decrease or do not give the rate of an ECG.
        OSError: the file cannot be opened.
    """
    rows, delimiter, is_complete = _read_rows(path)
    try:
        return _recording(path, _table(path, rows, delimiter))
    except RecordingError:
        if is_complete or len(rows) <= 3:
            raise
    note = f"row {len(rows)}, the last one, is truncated and left out; the rows before it are complete"
    return _recording(path, _table(path, rows[:-1], delimiter), note)


def _recording(path: Path, table: _Table, *notes: str) -> Recording:
    ecg, time = _find_ecg(path, table), _find_time(path, table)
    seconds, start_us = _times(path, table, time)
    rate_hz = _rate(path, seconds)
    raw = table.numbers(path, ecg)
    mv, unit = _millivolts(raw, ecg)
    rr_t_s, rr_s = _intervals(path, table, seconds)
    return Recording(
        name=path.name.removesuffix(".gz").rpartition(".")[0],
        rate_hz=rate_hz,
        start_us=start_us,
        notes=(f"ECG from column {ecg.title!r} in {unit}, time from {time.title!r}", *notes),
        read_chunks=lambda: split_chunks(seconds, mv, rate_hz),
        rr_s=rr_s,
        rr_t_s=rr_t_s,
    )


def _read_rows(path: Path) -> tuple[list[list[str]], str, bool]:
    """Returns the rows with the header, the delimiter, and whether the last row ends with a line end."""
    text = read_text(path)
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = max(";\t,", key=lines[0].count) if lines else ","
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise RecordingError(f"{path}: not a table ({error}); export it as UTF-8 CSV") from error
    if len(rows) < 3:
        raise RecordingError(f"{path}: holds {len(rows)} lines; a header row and at least two samples are needed")
    return rows, delimiter, text.endswith(("\n", "\r"))


def _table(path: Path, rows: Sequence[Sequence[str]], delimiter: str) -> _Table:
    width = len(rows[0])
    uneven = next((number for number, row in enumerate(rows, start=1) if len(row) != width), None)
    if uneven is not None:
        raise RecordingError(
            f"{path}: row {uneven} has {len(rows[uneven - 1])} cells, the header has {width}; remove or complete that row"
        )
    return _Table(
        tuple(_column(i, title) for i, title in enumerate(rows[0])), tuple(zip(*rows[1:], strict=True)), delimiter == ";"
    )


def _column(index: int, title: str) -> _Column:
    base, unit = _split_unit(title.strip())
    return _Column(index, title.strip(), base, unit.lower())


def _split_unit(title: str) -> tuple[str, str]:
    """Splits a title into name and unit, which stands in brackets or after an underscore; the unit may be empty.

    A title may be of any length, so each step takes time in proportion to it: a regular expression for the whole would not.
    """
    if title.endswith(("]", ")")):
        inner = max(title.rfind("]", 0, -1), title.rfind(")", 0, -1)) + 1
        openings = [at for at in (title.find("[", inner), title.find("(", inner)) if at >= 0]
        if openings:
            return title[: min(openings)].rstrip(_FILLERS), title[min(openings) + 1 : -1].strip()
    name, underscore, suffix = title.rpartition("_")
    if underscore and _UNIT_SUFFIX.fullmatch(suffix):
        return name.rstrip(_FILLERS), suffix
    return title.rstrip(_FILLERS), ""


def _find_ecg(path: Path, table: _Table) -> _Column:
    found = next((column for column in table.columns if is_ecg_name(column.base)), None)
    if found is None:
        raise RecordingError(
            f"{path}: no ECG column among {_titles(table)}; name a column {ACCEPTED_ECG}, with its unit: ecg [mV]"
        )
    if found.unit and not millivolts_per_unit(found.unit):
        raise RecordingError(f"{path}: unit {found.unit!r} of column {found.title!r} is not supported; use mV or uV")
    return found


def _find_time(path: Path, table: _Table) -> _Column:
    """Returns the first time column with a unit, else the first time column."""
    found = [column for column in table.columns if _TIME.fullmatch(column.base)]
    if not found:
        raise RecordingError(
            f"{path}: no time column among {_titles(table)}; name a column time, timestamp or t, with its unit: time [s]"
        )
    return next((column for column in found if column.unit in _SECONDS), found[0])


def _titles(table: _Table) -> str:
    return ", ".join(repr(column.title) for column in table.columns)


def _times(path: Path, table: _Table, column: _Column) -> tuple[NDArray[np.float64], int | None]:
    """Returns seconds from the first sample, and its time (µs since 1970) where the times are absolute."""
    cells = table.cells[column.index]
    if "T" in cells[0] or cells[0].count("-") == 2:
        return _calendar_times(path, column, cells)
    try:
        whole = [int(cell) for cell in cells]
        first, since = float(whole[0]), np.array([value - whole[0] for value in whole], np.float64)
    except (ValueError, OverflowError):
        values = table.numbers(path, column)
        unknown = np.flatnonzero(np.isnan(values))
        if unknown.size:
            cell = cells[unknown[0]].strip()
            problem = f"has {cell[:20]!r} as its time, which is not a valid number" if cell else "has no time"
            raise RecordingError(f"{path}: row {unknown[0] + 2} {problem}; remove that row") from None
        first, since = float(values[0]), values - values[0]
    _check_order(path, column, since)
    unit_s = _SECONDS.get(column.unit) or _unit_by_step(path, column, float(np.median(np.diff(since))))
    is_unix_time = _UNIX_S[0] <= first * unit_s <= _UNIX_S[1]
    return _check_length(path, since * unit_s), round(first * unit_s * 1e6) if is_unix_time else None


def _calendar_times(path: Path, column: _Column, cells: Sequence[str]) -> tuple[NDArray[np.float64], int]:
    """Parses times like 2024-05-05T12:30:00.123Z; times without a zone count as UTC."""
    try:
        stamps = [datetime.fromisoformat(cell.strip()) for cell in cells]
    except ValueError as error:
        raise RecordingError(f"{path}: column {column.title!r}: {error}; write times as seconds or in ISO 8601") from error
    start = np.array([(stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp() for stamp in stamps])
    since = start - start[0]
    _check_order(path, column, since)
    return _check_length(path, since), round(float(start[0]) * 1e6)


def _check_order(path: Path, column: _Column, times: NDArray[np.float64]) -> None:
    steps = np.diff(times)
    if (steps < 0).any():
        raise RecordingError(f"{path}: time decreases at row {int(np.flatnonzero(steps < 0)[0]) + 3}; sort the rows by time")
    if np.median(steps) == 0:
        raise RecordingError(
            f"{path}: most rows repeat the time of the row before in column {column.title!r}, perhaps one time per packet;"
            " export a time for each sample"
        )


def _check_length(path: Path, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    if seconds[-1] > LONGEST_S:
        steps = np.diff(seconds)
        raise RecordingError(
            f"{path}: time jumps by {steps.max():.3g} s at row {int(steps.argmax()) + 3}, but no recording is longer than"
            f" {LONGEST_S:g} s; correct the times or split the file at this row"
        )
    return seconds


def _unit_by_step(path: Path, column: _Column, step: float) -> float:
    slow, fast = _RATES_HZ
    for unit_s in (1.0, 1e-3, 1e-6, 1e-9):
        if 1 / fast <= step * unit_s <= 1 / slow:
            return unit_s
    raise RecordingError(
        f"{path}: steps of {step:g} in column {column.title!r} do not fit the sampling rate of an ECG; add the unit to"
        " its name: time [ms]"
    )


def _rate(path: Path, seconds: NDArray[np.float64]) -> float:
    """Returns samples per second: first from the median step, then exactly from the time between samples without a gap."""
    steps = np.diff(seconds)
    rate_hz = 1 / float(np.median(steps))
    slow, fast = _RATES_HZ
    if not slow <= rate_hz <= fast:
        raise RecordingError(
            f"{path}: the times give a sampling rate of {rate_hz:g} Hz, outside {slow:g} to {fast:g} Hz; check the time unit"
        )
    for _ in range(2):  # the median step of times in whole ms is up to 10 % off, and so are the first gaps found
        regular = steps[~find_gaps(seconds, rate_hz)]
        rate_hz = float(regular.size / regular.sum())
    return rate_hz


def _millivolts(raw: NDArray[np.float64], column: _Column) -> tuple[NDArray[np.float64], str]:
    if column.unit:
        return raw * millivolts_per_unit(column.unit), column.unit
    spread = float(np.nanpercentile(raw, 99) - np.nanpercentile(raw, 1)) if not np.isnan(raw).all() else 0.0
    return (raw * 1e-3, "µV (inferred from its spread)") if spread > _UV_SPREAD else (raw, "mV (inferred from its spread)")


def _intervals(path: Path, table: _Table, seconds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns when the device reported RR intervals, and their lengths, both in seconds; empty without such a column."""
    column = next((column for column in table.columns if _RR.fullmatch(column.base)), None)
    if column is None:
        return np.empty(0), np.empty(0)
    values = table.numbers(path, column)
    given = ~np.isnan(values)
    rr = values[given]
    in_ms = column.unit == "ms" or (not column.unit and rr.size > 0 and float(np.median(rr)) > 10)
    return seconds[given], rr * 1e-3 if in_ms else rr


def _parse_number(path: Path, column: _Column, row: int, cell: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise RecordingError(
            f"{path}: row {row}, column {column.title!r}: {cell!r} is not a number; correct or empty the cell"
        ) from error
