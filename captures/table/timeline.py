"""Finds the sampling rate and the gaps from the times of the samples, which may be coarse, jittered, or those of packets.

Samples are evenly spaced between gaps: the rate is their number over the time, and the times only say where samples are
missing. Where many samples share a time (times of whole seconds, or one time for a packet), the first one of each time is an
anchor, and gaps are searched between anchors.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.recording import CHUNK_SAMPLES, Chunk, Samples

WINDOW: Final = 25
"""Anchors before and after a long step whose median times are compared: medians cut jitter of half an interval to a tenth."""
_FEW: Final = 8
_MOST_HELD: Final = 1 << 18
"""Most samples that are buffered because the times after them decide whether a step is a gap."""
_JITTER_STEPS: Final = 3
"""From this number on, backward shifts count as jitter of the times."""
_JITTER: Final = 6.0
"""A gap is longer than this many times the median backward shift: with normal jitter, one shift in 20,000 is as long."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Timeline:
    """How the times of samples give their positions on an even grid.

    `least_s` is the shortest gap that can be distinguished from jitter. `anchor_rows` is the number of samples that share a
    time; 1 where each sample has its own.
    """

    rate_hz: float
    least_s: float
    anchor_rows: float = 1.0


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps between the anchors at `places`: which are gaps, and in seconds how far the times go back by jitter."""

    places: NDArray[np.int64]
    gaps: Flags
    backward_s: Samples


def find_anchors(times: Samples, timeline: Timeline) -> NDArray[np.int64]:
    """The indices of the samples whose times count: all, or those that have a later time than the one before."""
    if timeline.anchor_rows <= 1:
        return np.arange(times.size)
    return np.flatnonzero(np.diff(times) > 0.5 / timeline.rate_hz) + 1


def find_steps(times: Samples, timeline: Timeline) -> Steps:
    """Find the gaps between the anchors of some consecutive samples.

    A step is a gap if it is longer than its samples take, and if the times after it stay late by as much. After a step that is
    long only because of jitter, they are no longer late.
    """
    places = find_anchors(times, timeline)
    if places.size < 2:
        return Steps(places, np.zeros(max(0, places.size - 1), np.bool_), np.empty(0))
    late_s = times[places] - places / timeline.rate_hz
    excess_s = np.diff(late_s)
    # A median of `WINDOW` times with normal jitter is off by a quarter of the jitter, and a difference of two by a third.
    jitter_s = 1.05 * float(np.median(np.abs(excess_s - np.median(excess_s))))
    least_s = max(timeline.least_s, 4 * jitter_s / 3)
    candidates = np.flatnonzero(np.abs(excess_s) > min(least_s, 0.5 / timeline.rate_hz))
    gaps = np.zeros(excess_s.size, np.bool_)
    if not candidates.size:
        return Steps(places, gaps, np.empty(0))
    padded = np.pad(late_s, WINDOW, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)
    # Because of the padding, window i + 1 ends with anchor i, and window i + 1 + WINDOW begins after it.
    shift_s = np.median(windows[candidates + 1 + WINDOW], axis=1) - np.median(windows[candidates + 1], axis=1)
    gaps[candidates] = (shift_s > least_s) & (excess_s[candidates] > least_s)
    near = (candidates < _FEW) | (candidates >= excess_s.size - _FEW)  # too few times on one side for a median
    gaps[candidates[near]] &= excess_s[candidates[near]] > least_s + 4 * jitter_s
    backward_s = -shift_s[(shift_s < -0.5 / timeline.rate_hz) & (excess_s[candidates] < -0.5 / timeline.rate_hz)]
    return Steps(places, gaps, backward_s)


class GapFinder:
    """Finds gaps in a stream of times. Samples are buffered until the times after them decide whether a step is a gap."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._margin = int(min(_MOST_HELD, (WINDOW + 2) * max(1.0, 2 * timeline.anchor_rows)))
        self._times: Samples = np.empty(0)
        self._values: Samples = np.empty(0)
        self._done = 0
        """Samples at the start of the buffer that were already returned; they are compared with those after a step."""
        self.anchor_samples = 0
        self.anchor_s = 0.0
        """Number of samples between anchors without a gap between them, and the time that they take."""
        self.backward: list[float] = []

    def push(self, times: Samples, values: Samples, is_end: bool = False) -> tuple[Samples, Samples, Flags]:
        """Add samples. Returns those that are decided: times, values, and whether there is a gap before each."""
        self._times = np.concatenate((self._times, times))
        self._values = np.concatenate((self._values, values))
        stop = self._times.size if is_end else self._times.size - self._margin
        if stop <= self._done or (not is_end and stop - self._done < self._margin):
            return np.empty(0), np.empty(0), np.empty(0, np.bool_)
        steps = find_steps(self._times, self._timeline)
        flags = np.zeros(self._times.size, np.bool_)
        flags[steps.places[1:]] = steps.gaps
        self._count(steps, stop)
        out = (self._times[self._done : stop], self._values[self._done : stop], flags[self._done : stop])
        kept = max(0, stop - self._margin)
        self._times, self._values, self._done = self._times[kept:], self._values[kept:], stop - kept
        return out

    def _count(self, steps: Steps, stop: int) -> None:
        new = (steps.places[1:] >= self._done) & (steps.places[1:] < stop)
        even = new & ~steps.gaps
        self.anchor_samples += int(np.diff(steps.places)[even].sum())
        self.anchor_s += float(np.diff(self._times[steps.places])[even].sum())
        if len(self.backward) < CHUNK_SAMPLES:
            self.backward += steps.backward_s.tolist()


def measure_rate(times: Samples, timeline: Timeline) -> float:
    """Samples per second between the anchors without a gap between them; NaN if there are too few."""
    steps = find_steps(times, timeline)
    even = ~steps.gaps
    seconds = float(np.diff(times[steps.places])[even].sum()) if steps.places.size > 1 else 0.0
    return float(np.diff(steps.places)[even].sum()) / seconds if seconds > 0 else float("nan")


def find_least_gap(backward_s: list[float], timeline: Timeline, anchor_s: float) -> float:
    """The shortest gap in seconds that can be distinguished from jitter."""
    least_s = 0.5 / timeline.rate_hz
    if timeline.anchor_rows > 1:
        least_s = max(1.5 / timeline.rate_hz, 0.5 * anchor_s)
    if len(backward_s) >= _JITTER_STEPS:
        least_s = max(least_s, 0.5 / timeline.rate_hz + _JITTER * float(np.median(backward_s)))
    return least_s


def place_samples(parts: Iterator[tuple[Samples, Samples, Flags]], rate_hz: float) -> Iterator[Chunk]:
    """Yield the samples as chunks: after each gap, the first one has its own time, and the others follow at the rate."""
    start_s, count = 0.0, 0
    is_first = True
    for times, values, flags in parts:
        edges = [*np.flatnonzero(flags).tolist(), values.size]
        first = 0
        for edge in edges:
            if edge > first:
                for at in range(first, edge, CHUNK_SAMPLES):
                    part = values[at : min(at + CHUNK_SAMPLES, edge)]
                    if is_first:
                        start_s = float(times[0])
                    yield Chunk(start_s + count / rate_hz, part, count > 0)
                    is_first = False
                    count += part.size
            if edge < values.size and not is_first and float(times[edge]) > start_s + count / rate_hz:
                start_s, count = float(times[edge]), 0
            first = edge
