"""Readings in; records, beats, findings and alerts out. The agent and replay run the same one.

Synchronous and pure of I/O; the times of arrival come with the readings, so that a day can be replayed in a minute.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from config.limits import Limits
from drivers.readings import Intervals, Quarantined, Reading, Status, Vital, Waveform
from gateway.alerts import AlertBook
from gateway.streams import STREAMS, EcgStream, Output, PpgStream, joined, told
from gateway.timeline import Arrival, LastSample, WaveTimeline
from models.inference.models import Models
from models.rules.vitals import VitalRules
from sync.records import (
    AlertRecord,
    IntervalsRecord,
    QuarantinedRecord,
    StatusRecord,
    Times,
    VitalRecord,
    WaveformRecord,
)

State = Mapping[str, Any]
"""What a pipeline continues from: `waveforms` by kind (`LastSample`), the ongoing `alerts`, and what `streams` and rules on
`vitals` have learnt."""


class Pipeline:
    """The way of one sensor's readings: timeline, then analysis, then alerts."""

    def __init__(self, sensor: str, limits: Limits, models: Models, state: State | None = None) -> None:
        """`state` is what an earlier pipeline of this sensor said of itself last."""
        self.sensor = sensor
        self._limits, self._models = limits, models
        self._left: dict[str, Any] = {"waveforms": {}, "alerts": [], "streams": {}, "vitals": {}, **(state or {})}
        waveforms = self._left["waveforms"].items()
        self._timelines = {kind: WaveTimeline(sensor, kind, LastSample(**last)) for kind, last in waveforms}
        self._streams: dict[str, EcgStream | PpgStream] = {}
        vitals = self._left["vitals"]
        self._vitals = VitalRules(limits, vitals.get("rules"))
        self._vital_alerts = AlertBook(sensor, limits, vitals.get("flood"))

    def feed(self, readings: Sequence[Reading], arrival: Arrival) -> Output:
        """Readings that came together at `arrival`."""
        return joined(self._reading(reading, arrival) for reading in readings)

    def interrupted(self, reason: str, arrival: Arrival) -> Output:
        """The link broke off, or a recording has a hole: opens a gap in every waveform."""
        del arrival
        gaps = (timeline.interrupted(reason) for timeline in self._timelines.values())
        return Output(tuple(gap for gap in gaps if gap))

    def finish(self, arrival: Arrival) -> Output:
        """No more will come: the analysis decides what is pending and closes what goes on."""
        output = joined(stream.finish(arrival.wall_us) for stream in self._streams.values())
        self._left["streams"] = {kind: stream.state() for kind, stream in self._streams.items()}
        self._streams = {}
        return output

    def state(self) -> State:
        """Where every waveform stands and which alerts go on, ready for JSON; for a new pipeline after a crash."""
        states = {kind: timeline.state() for kind, timeline in self._timelines.items()}
        streams = self._streams.values()
        ongoing = [alert for stream in streams for alert in stream.ongoing_alerts()]
        ongoing += self._vital_alerts.ongoing()
        return {
            "waveforms": {kind: state for kind, state in states.items() if state},
            "alerts": [asdict(alert) for alert in ongoing],
            "streams": {**self._left["streams"], **{kind: stream.state() for kind, stream in self._streams.items()}},
            "vitals": {"rules": self._vitals.state(), "flood": self._vital_alerts.flood()},
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
                stated = told(self._vital_alerts, tuple(self._vitals.feed(kind, value, now.at_us, flags)), arrival.wall_us)
                released = self._vital_alerts.released(now.at_us, arrival.wall_us)
                return Output((VitalRecord(self.sensor, kind, now, value, flags), *stated, *released))
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
        if wave.kind not in STREAMS:
            return stored
        values = np.array(wave.samples, np.float64) * wave.scale
        missing = None if placed.follows or placed.gap is None else placed.gap.missing or 0
        return joined(iter([stored, *self._analysed(wave.kind, values, wave.rate_hz, missing, placed.record, arrival)]))

    def _analysed(
        self,
        kind: str,
        values: np.ndarray[tuple[int], np.dtype[np.float64]],
        nominal_hz: float,
        missing: int | None,
        record: WaveformRecord,
        arrival: Arrival,
    ) -> Iterator[Output]:
        """`missing` samples before these; None where they follow directly."""
        stream = self._streams.get(kind)
        if stream and stream.rate_hz != nominal_hz:
            yield stream.finish(arrival.wall_us)
            self._left["streams"][kind] = stream.state()
            stream = None
        if stream is None:
            state = self._left["streams"].get(kind)
            stream = STREAMS[kind](self.sensor, nominal_hz, self._limits, self._models, state)
            self._streams[kind] = stream
        elif missing is not None:
            yield stream.gap(missing / record.rate_hz, arrival.wall_us)
        yield stream.samples(values, record.times.at_us, record.rate_hz, arrival.wall_us)
