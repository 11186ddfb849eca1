"""Measures a whole table before its samples are read: sampling rate, amplitude, range, missing and repeated values."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from captures.choice import typical_amplitude
from captures.recording import RecordingError, Samples
from captures.table.checks import RateChecker, RepeatFinder, check_order
from captures.table.order import Batch
from captures.table.scale import Scale
from captures.table.source import Source
from captures.table.timeline import Flags, GapFinder, Timeline, find_least_gap

SENTINELS: Final = (
    -32768.0,
    32767.0,
    -9999.0,
    9999.0,
    -999.0,
    99999.0,
    -99999.0,
    -2147483648.0,
    2147483647.0,
    -8388608.0,
    8388607.0,
    65535.0,
)
"""Values that mean a missing sample if they are far from all other values."""
_FAR: Final = 1.0
"""A sentinel lies farther from the other values than this many times their range."""
_AMPLITUDE_SAMPLES: Final = 240_000
"""A minute at the highest rate."""
_MOST_RR: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How the rows of a source become samples: see `Scale` and `Timeline`.

    `missing` are values that stand for missing samples. With `drops_repeats`, rows whose time and value occurred shortly before
    are left out. `is_frames` says that the samples are the frames of a camera: see `captures.table.frames`.
    """

    source: Source
    scale: Scale
    timeline: Timeline
    missing: tuple[float, ...] = ()
    drops_repeats: bool = False
    is_frames: bool = False


@dataclass(slots=True)
class Findings:
    """What was measured in a table.

    `start` is the first time in the unit of the file. `tail_s` is the time of the last row and `last_s` that of the last
    sample, both in seconds from the first time. `level` is the median of the first samples and `amplitude` their typical
    amplitude, in the unit of the file. `repeated` is the number of rows that are left out. `sentinels` has the number of
    samples of each value that stands for a missing one. `wrap_value`, `is_reordered` and `cut_line`: see `Batch`.
    """

    samples: int = 0
    start: float = 0.0
    tail_s: float = 0.0
    last_s: float = 0.0
    repeated: int = 0
    wrap_value: float = 0.0
    is_reordered: bool = False
    cut_line: int | None = None
    is_whole: bool = True
    lowest: float = float("inf")
    highest: float = float("-inf")
    amplitude: float = float("nan")
    level: float = 0.0
    sentinels: dict[float, int] = field(default_factory=dict)
    rr_s: Samples = field(default_factory=lambda: np.empty(0))
    rr_t_s: Samples = field(default_factory=lambda: np.empty(0))


def read_samples(plan: Plan, findings: Findings | None = None) -> Iterator[tuple[Samples, Samples, Batch]]:
    """Yield times in seconds from the first row, samples without the missing ones, and the batch that they come from."""
    found = findings or Findings()
    repeats = RepeatFinder() if plan.drops_repeats else None
    start: float | None = None
    for batch in plan.source.read():
        known = np.isfinite(batch.times)
        if start is None and known.any():
            start = found.start = float(batch.times[known][0])
        seconds = (batch.times - (start or 0.0)) * plan.scale.unit_s
        keep = np.isfinite(batch.values) & ~np.isin(batch.values, plan.missing)
        if repeats:
            again = repeats.find(seconds[keep], batch.values[keep])
            found.repeated += int(again.sum())
            keep[keep] = ~again
        times, values = seconds[keep], batch.values[keep]
        found.wrap_value = batch.wrap_value or found.wrap_value
        found.repeated += batch.repeated
        found.is_reordered = batch.is_reordered or found.is_reordered
        found.cut_line = batch.cut_line or found.cut_line
        found.tail_s = float(seconds[known][-1]) if known.any() else found.tail_s
        found.last_s = float(times[-1]) if times.size else found.last_s
        yield times, values, batch._replace(times=seconds, values=values, lines=batch.lines[keep])


def mark_gaps(plan: Plan) -> Iterator[tuple[Samples, Samples, Flags]]:
    """Yield all times and samples of a file, and whether there is a gap before each sample."""
    finder = GapFinder(plan.timeline)
    for times, values, _ in read_samples(plan):
        yield finder.push(times, values)
    yield finder.push(np.empty(0), np.empty(0), is_end=True)


def survey(path: Path, plan: Plan, stated_hz: float | None) -> tuple[Plan, Findings]:
    """Measure the whole file. Returns the plan with the measured rate and missing values, and the measurements.

    Raises:
        RecordingError: the times step back, the rate changes, or the file is damaged.
    """
    measured, findings = _measure(path, plan, stated_hz)
    for _ in range(2):
        if measured.missing == plan.missing and measured.timeline.least_s <= 1.2 * plan.timeline.least_s:
            break
        plan = measured
        measured, findings = _measure(path, plan, stated_hz)
    return measured, findings


def _measure(path: Path, plan: Plan, stated_hz: float | None) -> tuple[Plan, Findings]:
    findings = Findings()
    finder, values = GapFinder(plan.timeline), _Values()
    checker = RateChecker(path, plan.timeline, stated_hz is not None)
    rr: list[tuple[Samples, Samples]] = []
    previous = float("nan")
    for times, samples, batch in read_samples(plan, findings):
        check_order(path, plan.source, times, batch.lines, previous)
        previous = float(times[-1]) if times.size else previous
        if not plan.is_frames:
            checker.check(times, batch.lines)
            finder.push(times, samples)
        values.add(samples)
        findings.samples += samples.size
        if batch.rr is not None and (given := np.isfinite(batch.rr)).any():
            rr.append((batch.times[given], batch.rr[given]))
            if sum(part.size for part, _ in rr) > _MOST_RR:
                raise RecordingError(
                    f"{path}: more than {_MOST_RR} RR intervals: each row seems to repeat one; remove the column"
                )
    finder.push(np.empty(0), np.empty(0), is_end=True)
    values.report(findings, plan.timeline.rate_hz)
    if rr:
        findings.rr_t_s, findings.rr_s = (np.concatenate(parts) for parts in zip(*rr, strict=True))
    rate_hz = finder.anchor_samples / finder.anchor_s if finder.anchor_s > 0 and stated_hz is None else plan.timeline.rate_hz
    timeline = replace(plan.timeline, rate_hz=rate_hz)
    if timeline.anchor_rows <= 1:
        timeline = replace(timeline, least_s=find_least_gap(finder.backward, timeline, 0.0))
    missing = tuple(sorted({*plan.missing, *findings.sentinels}))
    return replace(plan, timeline=timeline, missing=missing), findings


class _Values:
    """Measures samples in the unit of the file."""

    def __init__(self) -> None:
        self._is_whole = True
        self._lowest, self._highest = float("inf"), float("-inf")
        self._counts = dict.fromkeys(SENTINELS, 0)
        self._head: list[Samples] = []
        self._kept = 0
        self._first: float | None = None

    def add(self, values: Samples) -> None:
        if not values.size:
            return
        special = np.isin(values, SENTINELS)
        if special.any():
            for value in np.unique(values[special]).tolist():
                self._counts[value] += int((values == value).sum())
            values = values[~special]
            if not values.size:
                return
        self._is_whole = self._is_whole and bool((values == np.rint(values)).all())
        self._lowest, self._highest = min(self._lowest, float(values.min())), max(self._highest, float(values.max()))
        self._first = float(values[0]) if self._first is None else self._first
        if self._kept < _AMPLITUDE_SAMPLES and (self._kept or (values != self._first).any()):
            self._head.append(values[: _AMPLITUDE_SAMPLES - self._kept])
            self._kept += self._head[-1].size

    def report(self, findings: Findings, rate_hz: float) -> None:
        span = self._highest - self._lowest
        for value, count in self._counts.items():
            if count and self._lowest <= self._highest:
                if value < self._lowest - _FAR * span - 1 or value > self._highest + _FAR * span + 1:
                    findings.sentinels[value] = count
                else:
                    self._lowest, self._highest = min(self._lowest, value), max(self._highest, value)
            elif count:
                self._lowest = self._highest = value
        findings.is_whole, findings.lowest, findings.highest = self._is_whole, self._lowest, self._highest
        head = np.concatenate(self._head) if self._head else np.empty(0)
        is_flat = not self._lowest < self._highest
        findings.level = float(np.median(head)) if head.size else 0.0
        findings.amplitude = 0.0 if is_flat else typical_amplitude(head, rate_hz)
