"""Reads the times of single samples; their unit follows from the step between them."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from captures.exports.keys import to_number
from captures.moments import moment_of_number, parse_moment
from captures.recording import Samples

_SCALES: Final = ((1e-4, 0.1, 1.0), (0.1, 100.0, 1e-3), (100.0, 1e5, 1e-6), (1e5, 1e8, 1e-9))
"""Ranges of a step between two samples, and the seconds in its unit: s, ms, µs or ns. Steps of an ECG have 0.25 to 20 ms."""
_EPOCH_2000_NS: Final = (4e17, 9.99e17)
"""Nanoseconds since 2000, from 2012 to 2031: the time of Polar sensors."""
_EPOCH_2000_US: Final = 946_684_800_000_000
_LONG_STEP: Final = 1.5
"""A step longer than this many typical ones is a gap."""


class Times(NamedTuple):
    """The times of samples in seconds from the first one, and when that was (microseconds since 1970), if it is known."""

    seconds: Samples
    start_us: int | None


def read_times(values: Sequence[object]) -> Times | None:
    """Return the times of samples from numbers or dates; None if they do not rise from sample to sample."""
    raw = np.array([to_time(value) for value in values])
    if raw.size < 2 or not np.isfinite(raw).all():
        return None
    steps = np.diff(raw)
    typical = float(np.median(steps))
    scale = next((scale for low, high, scale in _SCALES if low <= typical < high), None)
    if scale is None or (steps < 0).any() or np.count_nonzero(steps == 0) * 10 > steps.size:
        return None
    return Times((raw - raw[0]) * scale, _epoch_of(float(raw[0])))


def to_time(value: object) -> float:
    """A time as a number; a date in seconds since 1970."""
    number = to_number(value)
    if not math.isnan(number) or not isinstance(value, str):
        return number
    moment = parse_moment(value)
    return math.nan if moment is None else moment * 1e-6


def _epoch_of(first: float) -> int | None:
    if _EPOCH_2000_NS[0] <= first < _EPOCH_2000_NS[1]:
        return _EPOCH_2000_US + round(first * 1e-3)
    return moment_of_number(first)


def rate_of_times(seconds: Samples) -> float | None:
    """The sampling rate in Hz of rising times, gaps not counted; None for fewer than two times."""
    steps = np.diff(seconds)
    if not steps.size:
        return None
    usual = steps[steps <= _LONG_STEP * float(np.median(steps))]
    total = float(usual.sum())
    return usual.size / total if total > 0 else None
