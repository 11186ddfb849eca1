"""Reads texts of RR intervals, from apps and straps that store nothing else.

- One interval a line, in ms or s, with or without a title: Elite HRV, HRV4Training, Kubios.
- Polar Flow: `duration,offline`, where `offline` is 1 while the strap had no contact.
- A column of intervals beside one of times: Empatica E4 (`IBI.csv`: the start, ` IBI`, then times from the start and intervals
  in s), Polar Sensor Logger (`Phone timestamp;RR-interval [ms]`).
- Polar HRM files of RR intervals (`[Params]`, `Interval=238`, `[HRData]`; Polar HRM file format 1.4).

Numbers without a title are RR intervals only if they are unlikely to be samples of an ECG: see `captures.interval_kind`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from captures.interval_kind import NumberKind, classify_numbers
from captures.leads import is_ecg_name, is_ppg_name, split_words
from captures.moments import moment_of_number, parse_moment
from captures.recording import ReadOptions, RecordingError, RrRecording, Samples
from captures.table.text import open_text, read_blocks, read_head

LIMIT_CHARACTERS: Final = 32 << 20
"""Longer texts are not lists of RR intervals: those of a week take 20 MB with their times."""
_HEAD_LINES: Final = 60
_RR_WORDS: Final = frozenset(("rr", "rri", "rrs", "ibi", "ibis", "nn", "nni", "ppi"))
_RR_LETTERS: Final = re.compile(r"r-?r|ibi|nn|pp", re.IGNORECASE)
"""Every title of intervals contains one of these."""
_MORE_WORDS: Final = frozenset(
    (
        *("interval", "intervals", "ms", "s", "sec", "secs", "seconds", "msec", "duration", "raw", "value"),
        *("intervall", "intervalle", "intervalles", "abstand", "intervalo", "intervalos", "intervallo", "intervalli"),
    )
)
_FLAG_WORDS: Final = frozenset(("artifact", "artifacts", "artefact", "artefacts", "artefakt", "offline"))
_COMMENTS: Final = ("#", "%", "//")
_TIME_WORDS: Final = frozenset(("time", "timestamp", "t", "date", "datetime", "seconds", "elapsed", "offset"))
_SECOND_WORDS: Final = frozenset(("s", "sec", "secs", "seconds"))
_MS_WORDS: Final = frozenset(("ms", "msec", "millis", "milliseconds"))
_LARGEST_S: Final = 60.0
"""A longer time between two beats is not an interval: the sensor was off."""
_FIT: Final = (0.7, 1.4)
"""Times belong to the intervals if their median step is as long as an interval within these factors."""
_UNTITLED_FIT: Final = 0.1
"""Columns without titles are times and intervals if at least 90 % of the steps are as long as the interval, within 10 %."""
_EMPATICA: Final = re.compile(r"\s*(\d{9,10}(?:\.\d{1,9})?)\s*[,;]\s*IBI\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class IntervalLayout:
    """Where the intervals of a text stand; columns count from 0. `unit_s` is None where only the size of the numbers
    distinguishes s from ms.

    An interval whose cell in the `flag_column` is not 0 is left out, but its time counts.
    """

    first_line: int
    delimiter: str | None
    column: int
    title: str
    time_column: int | None = None
    unit_s: float | None = None
    start_us: int | None = None
    titled: bool = True
    flag_column: int | None = None


def read_intervals(path: Path, options: ReadOptions) -> RrRecording | None:
    """Return the RR intervals of a text; None if it is something else, or the user says that it holds samples.

    Raises:
        RecordingError: the text names RR intervals and holds none, or its numbers may be either.
        OSError: the file cannot be read.
    """
    if options.signal is not None or options.unit is not None or options.rate_hz is not None:
        return None
    text = open_text(path)
    layout = recognise_intervals(read_head(text)[:_HEAD_LINES])
    if layout is None:
        return None
    blocks: list[str] = []
    size = 0
    for block in read_blocks(text):
        blocks.append(block)
        size += len(block)
        if size > LIMIT_CHARACTERS:
            return None
    lines = "".join(blocks).split("\n")[layout.first_line :]
    rows = [row for row in (_split(line, layout.delimiter) for line in lines if line.strip()) if row]
    return _recording_of(path, layout, rows)


def recognise_intervals(head: Sequence[str]) -> IntervalLayout | None:
    """Find the layout of a text of RR intervals in its first lines; None if it is something else."""
    if not head:
        return None
    empatica = _EMPATICA.fullmatch(head[0][:80])
    if empatica:
        start_us = moment_of_number(float(empatica[1]))
        return IntervalLayout(1, ",", 1, "IBI", time_column=0, unit_s=1.0, start_us=start_us)
    if head[0].strip().casefold() == "[params]":
        return _recognise_hrm(head)
    return _recognise_titles(head) or _recognise_numbers(head)


def _recognise_hrm(head: Sequence[str]) -> IntervalLayout | None:
    known = dict(line.strip().casefold().split("=", 1) for line in head if "=" in line)
    begin = next((number for number, line in enumerate(head) if line.strip().casefold() == "[hrdata]"), None)
    if known.get("interval") != "238" or begin is None:
        return None
    date = known.get("date", "")
    start_us = parse_moment(f"{date[:4]}-{date[4:6]}-{date[6:8]} {known.get('starttime', '')}")
    return IntervalLayout(begin + 1, None, 0, "HRData", unit_s=1e-3, start_us=start_us)


def _recognise_titles(head: Sequence[str]) -> IntervalLayout | None:
    if head[0].replace(" ", "").casefold() == "duration,offline":
        return IntervalLayout(1, ",", 0, "duration", unit_s=1e-3, flag_column=1)
    for number, line in enumerate(head[:-1]):
        if not _RR_LETTERS.search(line):
            continue
        mark = next((mark for mark in ";\t," if mark in line), ";")
        below = next((line for line in head[number + 1 :] if line.strip()), "")
        for delimiter in (mark, None):
            titles, cells = _split(line, delimiter), _split(below, delimiter)
            column = next((i for i, title in enumerate(titles) if _is_interval_title(title)), None)
            if column is None or any(is_ecg_name(title) or is_ppg_name(title) for title in titles):
                continue
            if len(titles) == len(cells) and not math.isnan(_to_number(cells[column])):
                unit_s = _unit_of(titles[column])
                return IntervalLayout(
                    number + 1,
                    delimiter,
                    column,
                    titles[column][:40],
                    _find_title(titles, _TIME_WORDS, column),
                    unit_s,
                    flag_column=_find_title(titles, _FLAG_WORDS, column),
                )
    return None


def _find_title(titles: Sequence[str], words: frozenset[str], but: int) -> int | None:
    """The first column with one of some words in its title."""
    found = (i for i, title in enumerate(titles) if i != but and not words.isdisjoint(split_words(title)))
    return next(found, None)


def _recognise_numbers(head: Sequence[str]) -> IntervalLayout | None:
    """Columns of numbers without titles: intervals, or times and intervals; comments may stand above."""
    begin = next((at for at, line in enumerate(head) if line.strip() and not line.startswith(_COMMENTS)), 0)
    head = head[begin:]
    for delimiter in (";", "\t", ",", None):
        rows = [_split(line, delimiter) for line in head if line.strip()]
        widths = {len(row) for row in rows}
        if widths <= {1} or widths == {2}:
            numbers = np.array([[_to_number(cell) for cell in row] for row in rows])
            if np.isfinite(numbers).all() and numbers.size:
                last = widths.pop() - 1
                return IntervalLayout(begin, delimiter, last, "", 0 if last else None, titled=False)
    return None


def _is_interval_title(title: str) -> bool:
    words = set(split_words(title.replace("R-R", "RR").replace("P-P", "PPI")))
    return bool(words & _RR_WORDS) and words <= _RR_WORDS | _MORE_WORDS


def _unit_of(title: str) -> float | None:
    words = set(split_words(title))
    return 1e-3 if words & _MS_WORDS else 1.0 if words & _SECOND_WORDS else None


def _recording_of(path: Path, layout: IntervalLayout, rows: list[list[str]]) -> RrRecording | None:
    width = max(layout.column, layout.time_column or 0, layout.flag_column or 0) + 1
    full = [row for row in rows if len(row) >= width]
    values = np.array([_to_number(row[layout.column]) for row in full])
    unit_s = layout.unit_s or (1e-3 if values.size and np.nanmedian(np.nan_to_num(values)) > 10 else 1.0)
    rr_s = values * unit_s
    passed = (rr_s > 0) & (rr_s <= _LARGEST_S)
    flags = np.array([layout.flag_column is not None and _to_number(row[layout.flag_column]) != 0 for row in full], np.bool_)
    valid = passed & ~flags
    cells = [full[i][layout.time_column] for i in np.flatnonzero(valid)] if layout.time_column is not None else None
    times = _read_times(cells, rr_s[valid]) if cells else None
    if not layout.titled and not _are_intervals(path, rr_s, passed.size == len(rows) and bool((rr_s > 0).all()), cells, times):
        return None
    if not valid.any():
        raise RecordingError(f"{path}: no RR intervals in column {layout.title or layout.column + 1!r}; give another file")
    left_out = len(rows) - int(np.count_nonzero(valid))
    what = f"column {layout.title!r}" if layout.title else "its numbers (without a title)"
    notes = [f"{what}: {np.count_nonzero(valid)} RR intervals in {'ms' if unit_s < 1 else 's'}"]
    if times is None:
        notes.append("their times are the sums of the intervals")
    if left_out:
        notes.append(f"{left_out} rows without an interval are left out")
    t_s, start_us = times if times is not None else (np.cumsum(np.where(passed, rr_s, 0.0))[valid], None)
    return RrRecording(path.name.split(".")[0], layout.start_us or start_us, tuple(notes), t_s, rr_s[valid])


def _are_intervals(
    path: Path, rr_s: Samples, whole: bool, cells: list[str] | None, times: tuple[Samples, int | None] | None
) -> bool:
    """Whether numbers without titles are RR intervals.

    Raises:
        RecordingError: they may be intervals or samples.
    """
    if not whole or (cells is not None and times is None):
        return False
    if times is not None:
        gaps = np.abs(np.diff(times[0]) - rr_s[1:]) > _UNTITLED_FIT * rr_s[1:]
        return float(np.mean(gaps)) < _UNTITLED_FIT
    match classify_numbers(rr_s):
        case NumberKind.INTERVALS:
            return True
        case NumberKind.SAMPLES:
            return False
        case NumberKind.EITHER:
            raise RecordingError(
                f"{path}: its numbers may be RR intervals or samples of an ECG; if they are intervals, add a first line"
                " 'RR [ms]'; if they are samples, give --rate HZ and --unit V|mV|uV|nV|N/mV"
            )


def _read_times(cells: Sequence[str], rr_s: Samples) -> tuple[Samples, int | None] | None:
    """The times of the intervals in seconds from the start, and the start; None where the cells are not their times."""
    numbers = np.array([_to_number(cell) for cell in cells])
    dates = [parse_moment(cell.strip().strip('"')) for cell in cells] if np.isnan(numbers).all() else []
    if dates and None not in dates:
        numbers = np.array(dates, dtype=np.float64) * 1e-6
    if numbers.size < 2 or not np.isfinite(numbers).all() or (np.diff(numbers) < 0).any():
        return None
    ratio = float(np.median(np.diff(numbers) / rr_s[1:]))
    scale = next((scale for scale in (1.0, 1e-3, 1e-6, 1e-9) if _FIT[0] <= ratio * scale <= _FIT[1]), None)
    if scale is None:
        return None
    start_us = int(dates[0]) if dates and dates[0] is not None else moment_of_number(float(numbers[0]))
    t_s = (numbers - (numbers[0] if start_us is not None else 0.0)) * scale
    return (t_s, start_us) if t_s[0] >= 0 else None


def _split(line: str, delimiter: str | None) -> list[str]:
    cells = line.strip().rstrip(delimiter or "").split(delimiter)
    return [cell.strip().strip("\"'") for cell in cells]


def _to_number(cell: str) -> float:
    """The number in a cell, also with a decimal comma; NaN for anything else."""
    try:
        value = float(cell[:40].replace(",", ".", 1))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
