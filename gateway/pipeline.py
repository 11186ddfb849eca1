"""Readings in; records, beats, findings and alerts out. The agent and replay run the same one.

Synchronous and pure of I/O; the times of arrival come with the readings, so that a day can be replayed in a minute.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from config.limits import Limits
from drivers.readings import Intervals, Quarantined, Reading, Status, Vital, Waveform
from gateway.alerts import AlertBook
from gateway.timeline import Arrival, LastSample, SampleTimes, WaveTimeline
from models.analysis import EcgAnalysis, Step
from models.rules.af import RhythmModel
from models.signal.chain import Beat
from sync.records import (
    AlertRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    StatusRecord,
    Times,
    VitalRecord,
    WaveformRecord,
)

BEATS_FOR_STRIPS: Final = 64
"""More than fit in a strip of 12 s at 220/min."""


State = Mapping[str, Any]
"""What a pipeline continues from: `waveforms` by kind (`LastSample`), and the ongoing `alerts`."""


@dataclass(frozen=True, slots=True)
class TimedBeat:
    """A detected R peak at the hub's time."""

    at_us: int
    label: str
    amplitude_mv: float


@dataclass(frozen=True, slots=True)
class Output:
    """What one step brought: records in the order to be stored, and the beats behind them."""

    records: tuple[Record, ...] = ()
    beats: tuple[TimedBeat, ...] = ()


class EcgStream:
    """The ECG of one sensor: its analysis, and the way from stream seconds to the hub's time."""

    def __init__(self, sensor: str, rate_hz: float, limits: Limits, rhythm: RhythmModel | None) -> None:
        self.rate_hz = rate_hz
        self.analysis = EcgAnalysis(rate_hz, limits, rhythm)
        self._times = SampleTimes()
        self._alerts = AlertBook(sensor)
        self._beats: deque[Beat] = deque(maxlen=BEATS_FOR_STRIPS)

    def samples(self, mv: np.ndarray[tuple[int], np.dtype[np.float64]], at_us: int, rate_hz: float, decided_us: int) -> Output:
        """Consecutive samples, the first of them measured at `at_us`; `rate_hz` as measured."""
        self._times.anchor(self.analysis.end_s * self.rate_hz, at_us, rate_hz)
        return self._output(self.analysis.push(mv), decided_us)

    def ongoing_alerts(self) -> tuple[AlertRecord, ...]:
        """The alerts whose episodes have not ended."""
        return self._alerts.ongoing()

    def gap(self, seconds: float, decided_us: int) -> Output:
        """No samples for so long."""
        return self._output(self.analysis.gap(seconds), decided_us)

    def finish(self, decided_us: int) -> Output:
        """No more samples will come."""
        return self._output(self.analysis.finish(), decided_us)

    def _at_us(self, stream_s: float) -> int:
        return self._times.at_us(stream_s * self.rate_hz)

    def _output(self, step: Step, decided_us: int) -> Output:
        self._beats.extend(step.beats)
        recent = tuple(self._beats)
        records: list[Record] = []
        for finding in step.findings:
            records.extend(self._alerts.records(finding, self._at_us, decided_us, self.analysis, recent))
        beats = tuple(TimedBeat(self._at_us(beat.t_s), "N", beat.amplitude_mv) for beat in step.beats)
        return Output(tuple(records), beats)


class Pipeline:
    """The way of one sensor's readings: timeline, then analysis, then alerts."""

    def __init__(self, sensor: str, limits: Limits, rhythm: RhythmModel | None, state: State | None = None) -> None:
        """`state` is what an earlier pipeline of this sensor said of itself last."""
        self.sensor = sensor
        self._limits, self._rhythm = limits, rhythm
        self._left = state or {"waveforms": {}, "alerts": []}
        waveforms = self._left["waveforms"].items()
        self._timelines = {kind: WaveTimeline(sensor, kind, LastSample(**last)) for kind, last in waveforms}
        self._ecg: EcgStream | None = None

    def feed(self, readings: Sequence[Reading], arrival: Arrival) -> Output:
        """Readings that came together at `arrival`."""
        return _joined(self._reading(reading, arrival) for reading in readings)

    def interrupted(self, reason: str, arrival: Arrival) -> Output:
        """The link broke off, or a recording has a hole: opens a gap in every waveform."""
        del arrival
        gaps = (timeline.interrupted(reason) for timeline in self._timelines.values())
        return Output(tuple(gap for gap in gaps if gap))

    def finish(self, arrival: Arrival) -> Output:
        """No more will come: the analysis decides what is pending and closes what goes on."""
        output = self._ecg.finish(arrival.wall_us) if self._ecg else Output()
        self._ecg = None
        return output

    def state(self) -> State:
        """Where every waveform stands and which alerts go on, ready for JSON; for a new pipeline after a crash."""
        states = {kind: timeline.state() for kind, timeline in self._timelines.items()}
        ongoing = self._ecg.ongoing_alerts() if self._ecg else ()
        return {
            "waveforms": {kind: state for kind, state in states.items() if state},
            "alerts": [asdict(alert) for alert in ongoing],
        }

    def taken_up(self, arrival: Arrival) -> Output:
        """To be told first after a restart: the gap that is open since, and the end of what nobody watched any more."""
        alerts = [replace(AlertRecord(**alert), reasons=tuple(alert["reasons"])) for alert in self._left["alerts"]]
        ecg = self._timelines.get("ecg")
        end_us = ecg.last.at_us if ecg and ecg.last else arrival.wall_us
        ended = tuple(replace(alert, end_us=max(alert.onset_us, end_us)) for alert in alerts)
        return Output((*self.interrupted("the agent was restarted", arrival).records, *ended))

    @property
    def has_samples(self) -> bool:
        """Whether any waveform has begun."""
        return any(timeline.last for timeline in self._timelines.values())

    def _reading(self, reading: Reading, arrival: Arrival) -> Output:
        now = Times(arrival.wall_us, arrival.wall_us, arrival.mono_ns)
        match reading:
            case Waveform():
                return self._waveform(reading, arrival)
            case Vital(kind, value, flags):
                return Output((VitalRecord(self.sensor, kind, now, value, flags),))
            case Intervals(kind, ticks):
                return Output((IntervalsRecord(self.sensor, kind, now, ticks),))
            case Status(kind, value):
                return Output((StatusRecord(self.sensor, kind, now, value),))
            case Quarantined(characteristic, payload, reason):
                return Output((QuarantinedRecord(self.sensor, characteristic, now, payload, reason),))

    def _waveform(self, wave: Waveform, arrival: Arrival) -> Output:
        timeline = self._timelines.setdefault(wave.kind, WaveTimeline(self.sensor, wave.kind))
        placed = timeline.place(wave, arrival)
        if placed.record is None:
            return Output()
        stored = Output((placed.gap, placed.record) if placed.gap else (placed.record,))
        if wave.kind != "ecg":
            return stored
        mv = np.array(wave.samples, np.float64) * wave.scale
        missing = None if placed.follows or placed.gap is None else placed.gap.missing or 0
        return _joined(iter([stored, *self._analysed(mv, wave.rate_hz, missing, placed.record, arrival)]))

    def _analysed(
        self,
        mv: np.ndarray[tuple[int], np.dtype[np.float64]],
        nominal_hz: float,
        missing: int | None,
        record: WaveformRecord,
        arrival: Arrival,
    ) -> Iterator[Output]:
        """`missing` samples before these; None where they follow directly."""
        if self._ecg and self._ecg.rate_hz != nominal_hz:
            yield self._ecg.finish(arrival.wall_us)
            self._ecg = None
        if self._ecg is None:
            self._ecg = EcgStream(self.sensor, nominal_hz, self._limits, self._rhythm)
        elif missing is not None:
            yield self._ecg.gap(missing / record.rate_hz, arrival.wall_us)
        yield self._ecg.samples(mv, record.times.at_us, record.rate_hz, arrival.wall_us)


def _joined(outputs: Iterator[Output]) -> Output:
    parts = list(outputs)
    return Output(
        tuple(record for part in parts for record in part.records), tuple(beat for part in parts for beat in part.beats)
    )
