"""The result of replaying one file: every episode once with its final values, and summary figures."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from drivers.kinds import NOT_MEASURED
from drivers.readings import TICKS_PER_SECOND
from models.findings import EPISODES
from sync.records import (
    AlertRecord,
    BeatsRecord,
    FindingRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    StatusRecord,
    UnknownRecord,
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
GAPS_KEPT: Final = 100
"""Gaps that are kept with their reasons for the report. All of them are counted and written to the output."""
STRIPS_KEPT: Final = 40
"""Strips that are kept for the report: those of the most urgent alerts. At 5 to 10 kB each, they take half a megabyte."""
PRIORITIES: Final = ("high", "medium", "low")
PULSE: Final = "pulse"
LATEST_KEY: Final = "latest_s"
"""In `measured` of an open alert of which no episode lasts: when the latest one ended, in seconds after the alert's onset."""
LONGEST_RECORDING_S: Final = 61.0
"""Those made on demand last up to a minute; the longest of the PhysioNet/CinC Challenge 2017 has 61 s."""
VERDICTS: Final[Mapping[str, str]] = {"rhythm_normal": "normal", "rhythm_af": "af", "rhythm_other": "other"}
"""The verdict on a short recording, by the kind of finding."""
VERDICT_TEXTS: Final[Mapping[str, str]] = {
    "normal": "normal, by a model",
    "af": "atrial fibrillation, by a model",
    "other": "another one than normal or atrial fibrillation, by a model",
    "too_short": "the recording is too short to say",
    "noise": "too much noise to say",
    "gaps": "too much of the signal is missing to say",
    "lead_off": "no electrode contact",
    "out_of_distribution": "the model is not sure",
}
"""What a short recording shows, or why nothing can be said, by `ReplayResult.verdict`."""


@dataclass(frozen=True, slots=True)
class TimedBeat:
    """A detected R peak, or a pulse of a pulse wave, at the time of the hub's clock.

    `label` is N, S, V, F or ? for an R peak, `pulse` for a pulse. `joined` is False if the interval before the beat is not
    known, for another reason than a gap: the signal before it is bad.
    """

    at_us: int
    label: str
    joined: bool = True


HELD_US: Final = round(DEFAULT_LIMITS.repeat_low.value * 1e6)
"""An alert that has ended is held for as long as another episode may open it again."""

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
class SignalResult:
    """What was replayed of one kind of waveform, in arrays: a day has 100,000 beats, and may have as many gaps.

    `covered_s` is the length of its samples. `beats_us` are the times of its beats; `joined` has a 1 for each beat whose
    interval is known. The gaps are those in which samples are missing.
    """

    rate_hz: float | None = None
    covered_s: float = 0.0
    beats_us: "array[int]" = field(default_factory=lambda: array("q"))
    joined: bytearray = field(default_factory=bytearray)
    gaps_from_us: "array[int]" = field(default_factory=lambda: array("q"))
    gaps_to_us: "array[int]" = field(default_factory=lambda: array("q"))


@dataclass(slots=True)
class ReplayResult:
    """The result of one file, filled during the replay. Times are those of the hub's clock, in microseconds since 1970.

    `vitals_s` and `heart_rates` are the times and values of the heart rates that the sensor measured,
    `interval_ends_s` and `intervals_s` its valid RR or PP intervals; times are seconds from the start of the file.
    """

    file: str
    sensor: str
    start_us: int
    start_known: bool
    notes: list[str]
    end_us: int = 0
    ecg: SignalResult = field(default_factory=SignalResult)
    ppg: SignalResult = field(default_factory=SignalResult)
    vitals_s: "array[float]" = field(default_factory=lambda: array("d"))
    heart_rates: "array[float]" = field(default_factory=lambda: array("d"))
    interval_ends_s: "array[float]" = field(default_factory=lambda: array("d"))
    intervals_s: "array[float]" = field(default_factory=lambda: array("d"))
    rhythm: FindingRecord | None = None
    """The last finding about the rhythm of half a minute of ECG, or of the whole of a short recording."""
    alerts: list[AlertRecord] = field(default_factory=list)
    strip_count: int = 0
    gaps: list[GapRecord] = field(default_factory=list)
    gap_count: int = 0
    quarantined: list[QuarantinedRecord] = field(default_factory=list)
    quarantined_count: int = 0
    replay_s: float = 0.0
    failure: str | None = None
    _open: dict[object, Episode] = field(default_factory=dict)
    _alerts: dict[str, list[AlertRecord]] = field(default_factory=dict)
    """By id: the last record of each kind and priority that an alert has had, `raised_us` being when it came to them."""

    def seconds(self, at_us: int) -> float:
        """Returns seconds from the start of the file."""
        return (at_us - self.start_us) / 1e6

    @property
    def duration_s(self) -> float:
        return self.seconds(self.end_us)

    @property
    def kind(self) -> Literal["ecg", "ppg", "intervals"] | None:
        """What the heart rate is measured from: the ECG, otherwise the pulse wave, otherwise intervals of the sensor."""
        if self.ecg.rate_hz is not None:
            return "ecg"
        if self.ppg.rate_hz is not None:
            return "ppg"
        return "intervals" if self.intervals_s else None

    @property
    def verdict(self) -> str | None:
        """What a recording of at most a minute shows: a rhythm of `VERDICTS`, or why there is none; None for another file."""
        if self.kind != "ecg" or self.ecg.covered_s > LONGEST_RECORDING_S:
            return None
        if self.rhythm is None:
            return "too_short"
        return self.rhythm.inconclusive or VERDICTS.get(self.rhythm.kind)

    @property
    def signal(self) -> SignalResult:
        """The waveform that the heart rate is measured from; an empty one if there is none."""
        return self.ppg if self.kind == "ppg" else self.ecg

    def add(self, records: Iterable[Record], beats: Sequence[TimedBeat]) -> Iterator[OutputRecord]:
        """Adds one output of the pipeline; yields the records that have become final, in order."""
        for record in records:
            yield from self._add_record(record)
        for beat in beats:
            signal = self.ppg if beat.label == PULSE else self.ecg
            signal.beats_us.append(beat.at_us)
            signal.joined.append(beat.joined)
        yield from beats
        yield from self._release_alerts()

    def close(self) -> Iterator[OutputRecord]:
        """Ends the file: yields the episodes that are still open, in order of onset."""
        for stages in self._alerts.values():
            stages[-1] = _end_recurring(stages[-1])
        self._open |= {id_: stages[-1] for id_, stages in self._alerts.items()}
        for episode in sorted(self._open.values(), key=_onset_us):
            if isinstance(episode, AlertRecord):
                yield from self._release_alert(episode.id)
            else:
                yield self._keep(replace(episode, to_us=self.end_us) if isinstance(episode, GapRecord) else episode)
        self._open.clear()
        self._drop_strips()
        for episodes in (self.alerts, self.gaps):
            episodes.sort(key=_onset_us)

    def rates(self) -> Rates:
        """Returns the heart rate from the detected beats or pulses; if there is no waveform, from the sensor's intervals."""
        if self.kind == "intervals":
            t, rr = np.array(self.interval_ends_s), np.array(self.intervals_s)
            unknown = np.zeros(t.size, np.bool_)
        else:
            t = (np.array(self.signal.beats_us, np.int64) - self.start_us) / 1e6
            rr = np.diff(t, prepend=np.nan)
            unknown = np.frombuffer(bytes(self.signal.joined), np.uint8) == 0
            gaps_s = (np.array(self.signal.gaps_from_us, np.int64) - self.start_us) / 1e6
            after_gaps = np.searchsorted(t, gaps_s, side="right")
            unknown[after_gaps[after_gaps < t.size]] = True
        unknown |= ~((rr >= SHORTEST_RR_S) & (rr <= LONGEST_RR_S))
        per_beat = np.divide(60.0, rr, out=np.full(t.size, np.nan), where=~unknown)
        return Rates(t, per_beat, _smooth(per_beat, unknown), rr, unknown)

    def _add_record(self, record: Record) -> Iterator[OutputRecord]:
        match record:
            case WaveformRecord():
                self._add_waveform(record)
                return
            case BeatsRecord() | UnknownRecord():
                return  # the beats come as `TimedBeat`; this version's pipeline writes no unknown record
            case AlertRecord():
                self._add_alert(record)
                return
            case FindingRecord() | GapRecord():
                yield from self._add_episode(record)
                return
            case VitalRecord(kind="heart_rate") if NOT_MEASURED.isdisjoint(record.flags):
                self.vitals_s.append(self.seconds(record.times.at_us))
                self.heart_rates.append(record.value)
            case IntervalsRecord(kind="rr" | "pp"):
                for at_us, ticks in interval_ends(record):
                    self.interval_ends_s.append(self.seconds(at_us))
                    self.intervals_s.append(ticks / TICKS_PER_SECOND)
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
        signal = self._signal(record.kind)
        if signal:
            signal.rate_hz = record.rate_hz
            signal.covered_s += length_s

    def _signal(self, kind: str) -> SignalResult | None:
        return {"ecg": self.ecg, "ppg": self.ppg}.get(kind)

    def _add_episode(self, record: FindingRecord | GapRecord) -> Iterator[OutputRecord]:
        key = (type(record), EPISODES.get(record.kind, record.kind), _onset_us(record))
        self._open.pop(key, None)
        if _is_over(record):
            yield self._keep(record)
        else:
            self._open[key] = record

    def _add_alert(self, record: AlertRecord) -> None:
        stages = self._alerts.setdefault(record.id, [])
        before = stages[-1] if stages else None
        strip = record.strip or (before.strip if before else None)
        raised_us = record.decided_us if record.raised_us is None else record.raised_us
        if before and (before.kind, before.priority) == (record.kind, record.priority):
            stages.pop()
            raised_us = before.raised_us or raised_us
        elif before:
            stages[-1] = replace(before, strip=None)
        stages.append(replace(record, strip=strip, raised_us=raised_us))

    def _release_alerts(self) -> Iterator[AlertRecord]:
        """Yield the alerts that no further episode opens again."""
        lasts = [(id_, stages[-1].end_us) for id_, stages in self._alerts.items()]
        for id_, end_us in lasts:
            if end_us is not None and self.end_us - end_us > HELD_US:
                yield from self._release_alert(id_)

    def _release_alert(self, id_: str) -> Iterator[AlertRecord]:
        """Yield an alert once for each kind and priority that it has had, with its final end."""
        *earlier, last = self._alerts.pop(id_)
        self.alerts.append(last)
        if last.strip:
            self.strip_count += 1
            if self.strip_count % STRIPS_KEPT == 0:
                self._drop_strips()
        yield from (replace(stage, end_us=last.end_us) for stage in earlier)
        yield last

    def _keep(self, episode: FindingRecord | GapRecord) -> FindingRecord | GapRecord:
        if isinstance(episode, GapRecord):
            self._keep_gap(episode)
        elif episode.kind.split("_")[0] == "rhythm":
            self.rhythm = episode
        return episode

    def _drop_strips(self) -> None:
        """Keeps the strips of the most urgent alerts only."""
        with_strip = [index for index, alert in enumerate(self.alerts) if alert.strip]
        with_strip.sort(key=lambda index: urgency(self.alerts[index]))
        for index in with_strip[STRIPS_KEPT:]:
            self.alerts[index] = replace(self.alerts[index], strip=None)

    def _keep_gap(self, gap: GapRecord) -> None:
        self.gap_count += 1
        if len(self.gaps) < GAPS_KEPT:
            self.gaps.append(gap)
        signal = self._signal(gap.kind)
        if signal and gap.missing != 0:
            signal.gaps_from_us.append(gap.from_us)
            signal.gaps_to_us.append(self.end_us if gap.to_us is None else gap.to_us)


def interval_ends(record: IntervalsRecord) -> Iterator[tuple[int, int]]:
    """Yields for each interval the time of the beat that ends it, and its ticks.

    The last one ends when the payload arrived, the others before it.
    """
    for index, ticks in enumerate(record.ticks):
        later_us = round(sum(record.ticks[index + 1 :]) * 1e6 / TICKS_PER_SECOND)
        yield record.times.at_us - later_us, ticks


def urgency(alert: AlertRecord) -> tuple[int, str, int]:
    """Sort key: the most urgent alerts first, then by kind, then by onset."""
    priority = PRIORITIES.index(alert.priority) if alert.priority in PRIORITIES else len(PRIORITIES)
    return priority, alert.kind, alert.onset_us


def _end_recurring(alert: AlertRecord) -> AlertRecord:
    """An alert that waited for another episode when the file ended has ended with its latest one."""
    latest_s = (alert.measured or {}).get(LATEST_KEY)
    return (
        alert if latest_s is None or alert.end_us is not None else replace(alert, end_us=alert.onset_us + round(latest_s * 1e6))
    )


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
