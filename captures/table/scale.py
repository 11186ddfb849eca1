"""Finds the unit of the times of a table (seconds, parts of a second, days, or samples), and their sampling rate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from captures.recording import RecordingError, Samples
from captures.table.layout import Column
from captures.table.rows import SHOWN
from captures.table.timeline import Timeline, find_least_gap, find_steps, measure_rate
from captures.table.times import DAY_S, TimeFormat, seconds_per_unit
from captures.table.titles import is_index_title, is_index_unit

FASTEST_HZ: Final = 4000.0
SLOWEST_HZ: Final = {"ecg": 50.0, "ppg": 10.0}
"""Sampling rates that are read. A step of one sample then fits only one of the units s, ms, µs and ns."""
_UNITS_S: Final = (1.0, 1e-3, 1e-6, 1e-9)
_UNIX_S: Final = (1e9, 2.5e9)
"""Times in this range (2001 to 2049) are seconds since 1970; other times have an unknown epoch."""
_EPOCHS: Final = (
    (DAY_S, 3.2e4, 6e4, 25_569.0),
    (DAY_S, 7.2e5, 7.6e5, 719_529.0),
    (1e-7, 6.2e17, 6.6e17, 621_355_968_000_000_000.0),
    (1e-7, 1.2e17, 1.4e17, 116_444_736_000_000_000.0),
)
"""Unit, smallest and largest value, and the value of 1970: days of spreadsheets and of MATLAB, ticks of .NET and of Windows."""
_SHORTEST_S: Final = 2.0
_COVERED: Final = 0.7
"""Stretches between gaps that are shorter than `_SHORTEST_S` and cover less than `_COVERED` of the time are packets."""
_LEAST_GAPS: Final = 3
"""Fewest gaps that make stretches count as packets."""
_SAME: Final = 0.05
"""Largest relative difference of two rates that count as equal."""
_SIMILAR: Final = 0.2
"""Largest relative difference of the rates of jittered times or packets that count as equal."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The unit of the times is `unit_s` seconds; `unix` is the value of 1970, None where it is unknown.

    `is_index` says that they number the samples; then `unit_s` counts samples.
    """

    unit_s: float
    unix: float | None = None
    is_index: bool = False


def find_scale(times: Samples, column: Column, form: TimeFormat, kind: str) -> Scale | None:
    """The scale of the first times of a column; None if neither its title nor its steps give the unit."""
    if form.kind != "number":
        known = form.kind == "stamp" or (form.kind == "calendar" and form.day_first is not None)
        return Scale(1.0, 0.0 if known else None)
    steps = np.diff(times)
    step = float(np.median(steps)) if steps.size else 0.0
    unit_s = seconds_per_unit(column.unit)
    if unit_s is None and _is_index(times, step, column):
        smallest = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
        return Scale(1 / smallest, None, True)
    if unit_s is None:
        unit_s = _unit_by_step(times, step, kind)
    if unit_s is None and times[0] == times[-1]:
        unit_s = 1.0
    return None if unit_s is None else Scale(unit_s, _find_unix(float(times[0]), unit_s))


def _is_index(times: Samples, step: float, column: Column) -> bool:
    if is_index_unit(column.unit):
        return True
    is_whole = bool((times == np.rint(times)).all())
    return is_whole and (step == 1 or (is_index_title(column) and step > 0))


def _unit_by_step(times: Samples, step: float, kind: str) -> float | None:
    """The seconds in the only unit in which the step is that of a plausible sampling rate; None if no unit fits."""
    mean = float(times[-1] - times[0]) / max(1, times.size - 1)
    for typical in (step, mean):
        for unit_s in (*(unit_s for unit_s, low, high, _ in _EPOCHS if low <= times[0] <= high), *_UNITS_S):
            if typical * unit_s * 1.02 >= 1 / FASTEST_HZ and typical * unit_s <= 1.02 / SLOWEST_HZ[kind]:
                return unit_s
    return None


def _find_unix(first: float, unit_s: float) -> float | None:
    for unit, low, high, unix in _EPOCHS:
        if unit == unit_s and low <= first <= high:
            return unix
    return 0.0 if _UNIX_S[0] <= first * unit_s <= _UNIX_S[1] else None


def fit_timeline(path: Path, seconds: Samples, column: Column, stated_hz: float | None, kind: str) -> Timeline | None:
    """The timeline that fits the times of the first samples; None if they do not fit the stated rate.

    Raises:
        RecordingError: the times do not give a sampling rate, and none is stated.
    """
    slowest = SLOWEST_HZ[kind]
    found = [timeline for timeline in (_fit_each(seconds), _fit_coarse(seconds)) if timeline]
    if stated_hz is not None:
        found = [timeline for timeline in found if abs(timeline.rate_hz / stated_hz - 1) <= _SAME]
        if found:
            timeline = Timeline(stated_hz, found[0].least_s, found[0].anchor_rows)
            return _with_least_gap(seconds, timeline)
        return _fit_packets(seconds, stated_hz)
    title = column.name[:SHOWN]
    usable = [timeline for timeline in found if slowest / 1.02 <= timeline.rate_hz <= FASTEST_HZ * 1.02]
    is_burst = [_has_bursts(seconds, timeline) for timeline in usable]
    if usable and not all(is_burst):
        return usable[is_burst.index(False)]
    span_s = float(seconds[-1] - seconds[0])
    if span_s == 0:
        raise RecordingError(f"{path}: all rows have the same time in column {title!r}; give the sampling rate with --rate")
    count_hz = (seconds.size - 1) / span_s if span_s > 0 else 0.0
    about = f" (by count about {count_hz:.4g} Hz)" if slowest <= count_hz <= FASTEST_HZ else ""
    if found and not any(is_burst) and not about:
        raise RecordingError(
            f"{path}: the times in column {title!r} give a sampling rate of {found[0].rate_hz:.4g} Hz, outside {slowest:g} to"
            f" {FASTEST_HZ:g} Hz; check the time unit, or give the rate with --rate"
        )
    raise RecordingError(
        f"{path}: many rows share a time in column {title!r}, or come in bursts; perhaps each packet has one time; give the"
        f" sampling rate with --rate{about}"
    )


def _fit_each(seconds: Samples) -> Timeline | None:
    """The timeline of samples that each have a time of their own; None if most share one."""
    step = float(np.median(np.diff(seconds)))
    if step <= 0:
        return None
    has_back = bool((np.diff(seconds) < 0).any())
    timeline = Timeline(1 / step, 0.5 * step)
    for _ in range(3):  # the median step of times in whole ms is up to 10 % off, and so are the first gaps found
        rate_hz = measure_rate(seconds, timeline)
        if not np.isfinite(rate_hz) or rate_hz <= 0:
            return None
        timeline = _with_least_gap(seconds, Timeline(rate_hz, 0.5 / rate_hz))
    return None if has_back and abs(timeline.rate_hz * step - 1) > _SIMILAR else timeline


def _fit_coarse(seconds: Samples) -> Timeline | None:
    """The timeline of samples whose times are rounded to a longer unit, such as whole seconds; None if they are not."""
    steps = np.diff(seconds)
    later = np.flatnonzero(steps > 0)
    if later.size < 3 or later.size > 0.7 * steps.size or (steps < 0).any():
        return None
    unit_s = float(np.median(steps[later]))
    counts = seconds[later + 1] / unit_s
    digits = unit_s / 10.0 ** np.floor(np.log10(unit_s) + 1e-9)
    if (
        min(abs(digits - nice) for nice in (1.0, 2.0, 5.0, 6.0)) > 1e-3
        or np.abs(counts - counts[0] - np.rint(counts - counts[0])).max() > 0.05
    ):
        return None
    single = np.abs(np.diff(seconds[later + 1]) - unit_s) < 0.1 * unit_s
    rate_hz = float(np.mean(np.diff(later)[single])) / unit_s if single.any() else float("nan")
    if not rate_hz > 0:
        return None
    timeline = Timeline(rate_hz, 0.5 * unit_s, float(steps.size / later.size))
    for _ in range(2):
        rate_hz = measure_rate(seconds, timeline)
        timeline = Timeline(rate_hz, max(1.5 / rate_hz, 0.5 * unit_s), timeline.anchor_rows)
    return timeline


def _fit_packets(seconds: Samples, rate_hz: float) -> Timeline | None:
    """The timeline of samples at a stated rate that came in packets; None if the times do not fit it."""
    timeline = Timeline(rate_hz, float("inf"), 2.0)
    places = find_steps(seconds, timeline).places
    if places.size < 2:
        return None
    anchor_s = float(np.median(np.diff(seconds[places])))
    backward_s = find_steps(seconds, timeline).backward_s.tolist()
    timeline = Timeline(rate_hz, find_least_gap(backward_s, timeline, anchor_s), (seconds.size - 1) / places.size)
    found_hz = measure_rate(seconds, timeline)
    return timeline if abs(found_hz / rate_hz - 1) <= _SIMILAR else None


def _with_least_gap(seconds: Samples, timeline: Timeline) -> Timeline:
    if timeline.anchor_rows > 1:
        return timeline
    backward_s = find_steps(seconds, timeline).backward_s
    return Timeline(timeline.rate_hz, find_least_gap(backward_s.tolist(), timeline, 0.0), timeline.anchor_rows)


def _has_bursts(seconds: Samples, timeline: Timeline) -> bool:
    gaps = int(find_steps(seconds, timeline).gaps.sum())
    covered_s = seconds.size / timeline.rate_hz
    is_short = gaps >= _LEAST_GAPS and covered_s / (gaps + 1) < _SHORTEST_S
    return is_short and covered_s < _COVERED * float(seconds[-1] - seconds[0])
