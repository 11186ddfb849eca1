"""What the replay of one file brought: every episode once with its final values, and the figures that sum it up."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sync.records import (
    AlertRecord,
    FindingRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    StatusRecord,
    VitalRecord,
    WaveformRecord,
)

SMOOTHED_BEATS: Final = 5
"""Beats in the running median of the heart rate: two wrong intervals cannot move it. The rules smooth the same way."""
SHORTEST_RR_S: Final = 0.2
"""Refractory period of the ventricle: no interval can be shorter (Pan & Tompkins 1985, section III)."""
LONGEST_RR_S: Final = 15.0
"""Beyond it no beat was found because none could be seen; a ventricular standstill of this length is an alert of its own."""
QUARANTINED_KEPT: Final = 100
"""Payloads kept to be listed in a report; all are counted and written."""


@dataclass(frozen=True, slots=True)
class TimedBeat:
    """A detected R peak at the hub's time; `label` is N, S, V, F or ?."""

    at_us: int
    label: str
    amplitude_mv: float


Line = VitalRecord | IntervalsRecord | StatusRecord | QuarantinedRecord | GapRecord | FindingRecord | AlertRecord | TimedBeat
"""What is written to the output: everything but samples, and each episode only when it is over."""
Episode = GapRecord | FindingRecord | AlertRecord


@dataclass(frozen=True, slots=True)
class Rates:
    """Heart rate in /min; `t` is seconds from the file's start, at the beat that ends the interval.

    `each` is of that interval alone, `smoothed` the median of five; `after_gap` marks a beat whose interval is not known.
    """

    t: NDArray[np.float64]
    each: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    rr_s: NDArray[np.float64]
    after_gap: NDArray[np.bool_]

    @property
    def mean(self) -> float | None:
        """Beats over the time that they took."""
        known = self.rr_s[~self.after_gap]
        return float(60.0 * known.size / known.sum()) if known.size else None

    @property
    def lowest(self) -> float | None:
        return float(np.nanmin(self.smoothed)) if np.isfinite(self.smoothed).any() else None

    @property
    def highest(self) -> float | None:
        return float(np.nanmax(self.smoothed)) if np.isfinite(self.smoothed).any() else None


@dataclass(slots=True)
class Replayed:
    """One file's result, filled while it is replayed. Times inside are the hub's, in microseconds since 1970."""

    file: str
    sensor: str
    start_us: int
    start_known: bool
    notes: list[str]
    end_us: int = 0
    ecg_rate_hz: float | None = None
    covered_s: float = 0.0
    beats: list[TimedBeat] = field(default_factory=list)
    heart_rates: list[tuple[float, float]] = field(default_factory=list)
    alerts: list[AlertRecord] = field(default_factory=list)
    findings: list[FindingRecord] = field(default_factory=list)
    gaps: list[GapRecord] = field(default_factory=list)
    quarantined: list[QuarantinedRecord] = field(default_factory=list)
    quarantined_count: int = 0
    took_s: float = 0.0
    failure: str | None = None
    _open: dict[object, Episode] = field(default_factory=dict)

    def seconds(self, at_us: int) -> float:
        """Seconds from the file's start."""
        return (at_us - self.start_us) / 1e6

    @property
    def duration_s(self) -> float:
        return self.seconds(self.end_us)

    def add(self, records: Iterable[Record], beats: Sequence[TimedBeat]) -> Iterator[Line]:
        """Takes one output of the pipeline; yields what has become final by it, in order."""
        for record in records:
            yield from self._record(record)
        self.beats.extend(beats)
        yield from beats

    def close(self) -> Iterator[Line]:
        """The file has ended: what still goes on is closed with it, in order of onset."""
        for episode in sorted(self._open.values(), key=_onset_us):
            yield self._final(replace(episode, to_us=self.end_us) if isinstance(episode, GapRecord) else episode)
        self._open.clear()
        for episodes in (self.alerts, self.findings, self.gaps):
            episodes.sort(key=_onset_us)

    def rates(self) -> Rates:
        """The heart rate by the detected beats."""
        t = np.array([self.seconds(beat.at_us) for beat in self.beats], np.float64)
        rr = np.diff(t, prepend=np.nan)
        crossed = np.zeros(t.size, np.bool_)
        for gap in self.gaps:
            if gap.kind == "ecg" and gap.missing:
                first = int(np.searchsorted(t, self.seconds(gap.from_us), side="right"))
                crossed[first : first + 1] = True
        unknown = crossed | ~((rr >= SHORTEST_RR_S) & (rr <= LONGEST_RR_S))
        each = np.divide(60.0, rr, out=np.full(t.size, np.nan), where=~unknown)
        return Rates(t, each, _smoothed(each, unknown), rr, unknown)

    def _record(self, record: Record) -> Iterator[Line]:
        match record:
            case WaveformRecord():
                self._waveform(record)
                return
            case AlertRecord() | FindingRecord() | GapRecord():
                yield from self._episode(record)
                return
            case VitalRecord(kind="heart_rate"):
                self.heart_rates.append((self.seconds(record.times.at_us), record.value))
            case QuarantinedRecord():
                self.quarantined_count += 1
                if len(self.quarantined) < QUARANTINED_KEPT:
                    self.quarantined.append(record)
            case _:
                pass
        yield record

    def _waveform(self, record: WaveformRecord) -> None:
        length_s = record.samples.size / record.rate_hz
        self.end_us = max(self.end_us, record.times.at_us + round(length_s * 1e6))
        if record.kind == "ecg":
            self.ecg_rate_hz = record.rate_hz
            self.covered_s += length_s

    def _episode(self, record: Episode) -> Iterator[Line]:
        key = (type(record), record.kind, _onset_us(record))
        before = self._open.pop(key, None)
        if isinstance(record, AlertRecord) and isinstance(before, AlertRecord) and record.strip is None:
            record = replace(record, strip=before.strip)
        if _is_over(record):
            yield self._final(record)
        else:
            self._open[key] = record

    def _final(self, episode: Episode) -> Episode:
        match episode:
            case AlertRecord():
                self.alerts.append(episode)
            case FindingRecord():
                self.findings.append(episode)
            case GapRecord():
                self.gaps.append(episode)
        return episode


def _onset_us(episode: Episode) -> int:
    return episode.from_us if isinstance(episode, GapRecord) else episode.onset_us


def _is_over(episode: Episode) -> bool:
    return (episode.to_us if isinstance(episode, GapRecord) else episode.end_us) is not None


def _smoothed(each: NDArray[np.float64], unknown: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The median of each value and the four before it; NaN until five follow each other without a gap."""
    smoothed = np.full(each.size, np.nan)
    if each.size >= SMOOTHED_BEATS:
        windows = np.lib.stride_tricks.sliding_window_view(each, SMOOTHED_BEATS)
        smoothed[SMOOTHED_BEATS - 1 :] = np.median(windows, axis=1)
    smoothed[unknown] = np.nan
    return smoothed
