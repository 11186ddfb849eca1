"""The result of replaying one file: every episode once with its final values, and summary figures."""

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
"""Beats in the running median of the heart rate, robust against two wrong intervals. The rules use the same smoothing."""
SHORTEST_RR_S: Final = 0.2
"""Refractory period of the ventricle: no interval can be shorter (Pan & Tompkins 1985, section III)."""
LONGEST_RR_S: Final = 15.0
"""A longer interval counts as unknown: no beats were detected in it. A real standstill of this length raises its own alert."""
QUARANTINED_KEPT: Final = 100
"""Undecodable payloads that are kept for the report. All of them are counted and written to the output."""


@dataclass(frozen=True, slots=True)
class TimedBeat:
    """A detected R peak, at the time of the hub's clock; `label` is N, S, V, F or ?."""

    at_us: int
    label: str
    amplitude_mv: float


OutputRecord = (
    VitalRecord | IntervalsRecord | StatusRecord | QuarantinedRecord | GapRecord | FindingRecord | AlertRecord | TimedBeat
)
"""An output record: everything except samples, and each episode only when it is over."""
Episode = GapRecord | FindingRecord | AlertRecord


@dataclass(frozen=True, slots=True)
class Rates:
    """Heart rate in /min; `t` is seconds from the file's start, at the beat that ends the interval.

    `per_beat` is the rate of that interval, `smoothed` the median of five; `unknown` marks a beat without a valid interval,
    such as the first one after a gap.
    """

    t: NDArray[np.float64]
    per_beat: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    rr_s: NDArray[np.float64]
    unknown: NDArray[np.bool_]

    @property
    def mean(self) -> float | None:
        """Number of intervals over their total time."""
        known = self.rr_s[~self.unknown]
        return float(60.0 * known.size / known.sum()) if known.size else None

    @property
    def lowest(self) -> float | None:
        return float(np.nanmin(self.smoothed)) if np.isfinite(self.smoothed).any() else None

    @property
    def highest(self) -> float | None:
        return float(np.nanmax(self.smoothed)) if np.isfinite(self.smoothed).any() else None


@dataclass(slots=True)
class ReplayResult:
    """The result of one file, filled during the replay. Times are those of the hub's clock, in microseconds since 1970."""

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
    replay_s: float = 0.0
    failure: str | None = None
    _open: dict[object, Episode] = field(default_factory=dict)

    def seconds(self, at_us: int) -> float:
        """Returns seconds from the start of the file."""
        return (at_us - self.start_us) / 1e6

    @property
    def duration_s(self) -> float:
        return self.seconds(self.end_us)

    def add(self, records: Iterable[Record], beats: Sequence[TimedBeat]) -> Iterator[OutputRecord]:
        """Adds one output of the pipeline; yields the records that have become final, in order."""
        for record in records:
            yield from self._add_record(record)
        self.beats.extend(beats)
        yield from beats

    def close(self) -> Iterator[OutputRecord]:
        """Ends the file: yields the episodes that are still open, in order of onset."""
        for episode in sorted(self._open.values(), key=_onset_us):
            yield self._keep(replace(episode, to_us=self.end_us) if isinstance(episode, GapRecord) else episode)
        self._open.clear()
        for episodes in (self.alerts, self.findings, self.gaps):
            episodes.sort(key=_onset_us)

    def rates(self) -> Rates:
        """Returns the heart rate from the detected beats."""
        t = np.array([self.seconds(beat.at_us) for beat in self.beats], np.float64)
        rr = np.diff(t, prepend=np.nan)
        crosses_gap = np.zeros(t.size, np.bool_)
        for gap in self.gaps:
            if gap.kind == "ecg" and gap.missing:
                first = int(np.searchsorted(t, self.seconds(gap.from_us), side="right"))
                crosses_gap[first : first + 1] = True
        unknown = crosses_gap | ~((rr >= SHORTEST_RR_S) & (rr <= LONGEST_RR_S))
        per_beat = np.divide(60.0, rr, out=np.full(t.size, np.nan), where=~unknown)
        return Rates(t, per_beat, _smooth(per_beat, unknown), rr, unknown)

    def _add_record(self, record: Record) -> Iterator[OutputRecord]:
        match record:
            case WaveformRecord():
                self._add_waveform(record)
                return
            case AlertRecord() | FindingRecord() | GapRecord():
                yield from self._add_episode(record)
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

    def _add_waveform(self, record: WaveformRecord) -> None:
        length_s = record.samples.size / record.rate_hz
        self.end_us = max(self.end_us, record.times.at_us + round(length_s * 1e6))
        if record.kind == "ecg":
            self.ecg_rate_hz = record.rate_hz
            self.covered_s += length_s

    def _add_episode(self, record: Episode) -> Iterator[OutputRecord]:
        key = (type(record), record.kind, _onset_us(record))
        before = self._open.pop(key, None)
        if isinstance(record, AlertRecord) and isinstance(before, AlertRecord) and record.strip is None:
            record = replace(record, strip=before.strip)
        if _is_over(record):
            yield self._keep(record)
        else:
            self._open[key] = record

    def _keep(self, episode: Episode) -> Episode:
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


def _smooth(per_beat: NDArray[np.float64], unknown: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the median of each value and the four before it; NaN until five values in a row are known."""
    smoothed = np.full(per_beat.size, np.nan)
    if per_beat.size >= SMOOTHED_BEATS:
        windows = np.lib.stride_tricks.sliding_window_view(per_beat, SMOOTHED_BEATS)
        smoothed[SMOOTHED_BEATS - 1 :] = np.median(windows, axis=1)
    smoothed[unknown] = np.nan
    return smoothed
