"""Processes one sensor's readings into records, beats, findings and alerts, for the agent and for replay alike.

The pipeline is synchronous and does no I/O. Arrival times come with the readings, so a day can be replayed in a minute.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import Any, Final

import numpy as np

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import PLAUSIBLE, Limits
from drivers.kinds import is_continuous
from drivers.readings import Intervals, Quarantined, Reading, Status, Vital, Waveform
from gateway.alerts import LATE_REASON, UNCONFIRMED_REASON, UNKNOWN_TIME_REASON
from gateway.analyses import ANALYSED_WAVEFORMS, choose_analysis
from gateway.interval_stream import IntervalStream
from gateway.motion import ACCELERATION, Motion
from gateway.priorities import alert_priority, raises_alert
from gateway.sensor_alerts import SensorAlerts
from gateway.spots import Result, Spot, SpotResults, gather_results, is_of_result
from gateway.timeline import Arrival, LastSample, WaveformTimeline
from gateway.waveform_analysis import (
    Output,
    SavedState,
    WaveformAnalysis,
    alert_records,
    join_outputs,
    utc_s_to_us,
)
from models.findings import Finding
from models.inference.models import Models
from models.rules.vitals import VitalRules
from sync.records import (
    CONFIRMED_KIND,
    UNCONFIRMED_FLAG,
    AlertRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    StatusRecord,
    Times,
    VitalRecord,
    WaveformRecord,
)

RUNNING_US: Final = 60_000_000
"""A stream of vital signs without a value for longer than a minute has ended: no sensor that measures by itself is slower."""
AGENT_RESTART_REASON: Final = "the agent was restarted"
"""The reason of a gap since the last run of the agent."""
LATE_US: Final = 600_000_000
"""A result that is older at its arrival is late. Until then a patient may have rested and measured again."""
CONTINUOUS_INTERVALS: Final = frozenset({"rr", "pp"})
"""Intervals of a sensor that measures them continuously. The other kinds are what it sends in place of one that it lacks."""
_WITHOUT_GAPS: Final = frozenset({"cuff_pressure", "temperature_intermediate", "steps", "motion_x", "motion_y", "motion_z"})
"""Values that a sensor sends while it measures something else, or once for each connection: none is missing afterwards."""
URGENT_PRIORITIES: Final = frozenset({"high", "medium"})
"""A result that may be another person's does not wait for the patient's answer if its values alone raise an alert of these
priorities: harm may come immediately or within minutes, and a severe pressure is of high priority only when it is repeated."""


class Pipeline:
    """Timeline, analysis and alerts for the readings of one sensor.

    Its saved state has nine keys: `waveforms` holds the `LastSample` of each kind of waveform, `values` the time of the last
    value of each continuous kind that is being received, `gaps` the start and reason of each open gap in such values, `alerts`
    the open alerts, `trackers` what is known of them and of earlier ones by stream, `streams` the state of each waveform
    analysis, `intervals` that of the analysis of intervals and heart rates, `vitals` that of the rules on vital signs, and
    `spots` what is known of results measured on demand.
    """

    def __init__(
        self,
        sensor: str,
        limits: Limits,
        models: Models,
        saved: SavedState | None = None,
        *,
        slots: Collection[int] | None = None,
        zone: tzinfo | None = None,
        contexts: Contexts = NO_CONTEXTS,
    ) -> None:
        """`saved` is the last `state()` of an earlier pipeline of this sensor.

        `slots` are the sensor's numbers of this patient; None: whatever it measures is the patient's, as in a recording. `zone`
        is the patient's time zone; None: that of the hub.
        """
        self.sensor = sensor
        self._limits, self._models, self._contexts = limits, models, contexts
        self._slots, self._zone = slots, zone
        self._restored: dict[str, Any] = {
            **{"waveforms": {}, "values": {}, "gaps": {}, "alerts": [], "trackers": {}, "streams": {}, "intervals": {}},
            **{"vitals": {}, "spots": None},
            **(saved or {}),
        }
        waveforms = [(kind, last) for kind, last in self._restored["waveforms"].items() if kind not in ACCELERATION]
        self._timelines = {kind: WaveformTimeline(sensor, kind, LastSample(**last)) for kind, last in waveforms}
        self._motion = Motion()
        self._values_us: dict[str, int] = dict(self._restored["values"])
        self._value_gaps: dict[str, tuple[int, str]] = {kind: (at, why) for kind, (at, why) in self._restored["gaps"].items()}
        self._analysis_states: dict[str, Any] = self._restored["streams"]
        self._analyses: dict[str, WaveformAnalysis] = {}
        vitals: Mapping[str, Any] = self._restored["vitals"]
        self._vitals = VitalRules(limits, vitals.get("rules"))
        self._alerts = SensorAlerts(sensor, limits, self._restored)
        self._vital_alerts = self._alerts.of("vitals")
        self._intervals = IntervalStream(self._alerts.of("intervals"), limits, models, self._restored["intervals"], contexts)
        self.spots = SpotResults(slots, self._restored["spots"], zone)

    def feed(self, readings: Sequence[Reading], arrival: Arrival) -> Output:
        """Processes readings that arrived together."""
        parts: Sequence[Reading | tuple[Spot, ...]] = readings
        if any(map(is_of_result, readings)):
            self.spots.begin(arrival)
            parts = gather_results(readings)
        now = Times(arrival.wall_us, arrival.wall_us, arrival.mono_ns)
        output = join_outputs([self.advance_to(arrival), *(self._process(part, now, arrival) for part in parts)])
        now_us = arrival.wall_us
        self._values_us = {kind: at_us for kind, at_us in self._values_us.items() if abs(now_us - at_us) <= RUNNING_US}
        return output

    @property
    def waits(self) -> bool:
        """Whether the passing of time alone can end an episode of measured values."""
        return self._vitals.waits or self._intervals.waits

    def advance_to(self, arrival: Arrival) -> Output:
        """Ends the episodes of which no newer value has come for too long. The result does not depend on when it is called."""
        stale = alert_records(self._vital_alerts, tuple(self._vitals.advance_to(arrival.wall_us)), arrival.wall_us)
        return Output((*stale, *self._intervals.advance_to(arrival.wall_us)))

    def on_interruption(self, reason: str, arrival: Arrival) -> Output:
        """Opens a gap in every stream because the link was lost or a recording has no valid samples.

        The gap in continuous values ends when the sensor sends one again.
        """
        del arrival
        self.spots.on_disconnected()
        opened = {kind: (at_us, reason) for kind, at_us in self._values_us.items() if kind not in self._value_gaps}
        self._value_gaps |= opened
        self._values_us = {}
        gaps = (GapRecord(self.sensor, kind, at_us, None, None, reason) for kind, (at_us, reason) in opened.items())
        return Output((*gaps, *self._open_waveform_gaps(reason)))

    def _note_value(self, kind: str, at_us: int) -> tuple[GapRecord, ...]:
        """Notes a continuous value; returns the ends of the gaps that were open."""
        self._values_us[kind] = at_us
        if not self._value_gaps:
            return ()
        closed, self._value_gaps = self._value_gaps, {}
        return tuple(
            GapRecord(self.sensor, ended, from_us, max(from_us, at_us), None, reason)
            for ended, (from_us, reason) in closed.items()
        )

    def finish(self, arrival: Arrival) -> Output:
        """Ends the analyses because no more readings will come: pending beats are decided and open episodes are closed."""
        output = join_outputs(analysis.finish(arrival.wall_us) for analysis in self._analyses.values())
        records = (*self._intervals.finish(arrival.wall_us), *self._alerts.finish(arrival.wall_us))
        self._analysis_states = self._collect_analysis_states()
        self._analyses = {}
        return join_outputs([output, Output(records)])

    def state(self) -> SavedState:
        """The last sample or value of each stream, the ongoing alerts and the state of the rules; a restart resumes from it."""
        states = {kind: timeline.state() for kind, timeline in self._timelines.items()}
        return {
            "waveforms": {kind: state for kind, state in states.items() if state},
            "values": dict(self._values_us),
            "gaps": dict(self._value_gaps),
            **self._alerts.state(),
            "streams": self._collect_analysis_states(),
            "intervals": self._intervals.state(),
            "vitals": {"rules": self._vitals.state()},
            "spots": self.spots.state(),
        }

    def restarted(self, saved: SavedState) -> "Pipeline":
        """A new pipeline of the same sensor that resumes from `saved`; this one must not be used any more."""
        arguments = (self.sensor, self._limits, self._models, saved)
        return Pipeline(*arguments, slots=self._slots, zone=self._zone, contexts=self._contexts)

    def resume(self, arrival: Arrival) -> Output:
        """Resumes after a restart of the agent.

        Records a gap in every stream that had not ended: an open one in a waveform, and one until now in vital signs, whose
        last values a crash may have cost. The open alerts go on if they are of high priority, and end otherwise.
        """
        now_us = arrival.wall_us
        gaps = tuple(
            GapRecord(self.sensor, kind, last_us, max(last_us, now_us), None, AGENT_RESTART_REASON)
            for kind, last_us in self._values_us.items()
        )
        self._values_us = {}
        return Output((*gaps, *self.resume_analysis(arrival, AGENT_RESTART_REASON).records))

    def resume_analysis(self, arrival: Arrival, reason: str) -> Output:
        """Opens a gap in every waveform; ends the open alerts, or says of those of high priority that their signal was lost."""
        return Output((*self._open_waveform_gaps(reason), *self._alerts.resume(arrival.wall_us)))

    def close_alert(self, id_: str, now_us: int, reason: str, command: int) -> AlertRecord | None:
        """End an open alert because the clinic commands it: see `AlertTracker.close`."""
        return self._alerts.close(id_, now_us, reason, command)

    def can_wait(self, readings: Sequence[Reading]) -> bool:
        """Whether these readings raise no alert and begin no stream, so that they may be processed together with later ones."""
        if self._vital_alerts.waits:  # their time may change one of its alerts
            return False
        for reading in readings:
            match reading:
                case Vital(kind, origin=None) | Intervals(kind):
                    if kind not in self._values_us or kind in PLAUSIBLE or not self._intervals.is_calm(reading):
                        return False
                case Status(origin=None):
                    pass
                case _:
                    return False
        return True

    @property
    def streams(self) -> frozenset[str]:
        """The kinds whose values a crash would cost: waveforms that have a sample, and vital signs that are being received."""
        return frozenset((*self._values_us, *(kind for kind, timeline in self._timelines.items() if timeline.last)))

    def _open_waveform_gaps(self, reason: str) -> tuple[GapRecord, ...]:
        gaps = (timeline.open_gap(reason) for timeline in self._timelines.values())
        return tuple(gap for gap in gaps if gap)

    def _collect_analysis_states(self) -> dict[str, Any]:
        """The state of each waveform's analysis; where none has run in this run of the agent, the restored state."""
        return {**self._analysis_states, **{kind: analysis.state() for kind, analysis in self._analyses.items()}}

    def answer(self, id_: str, arrival: Arrival, *, is_patient: bool) -> Output:
        """Ends the wait of a held result, because the patient said whose it is.

        The patient's becomes an ordinary result with its own time; another person's is deleted. Nothing happens if no result
        with this id waits.
        """
        held = self.spots.answer(id_, is_patient=is_patient)
        if held is None:
            return Output()
        result, records = held.result, list[Record]()
        if held.is_sent:
            records.append(StatusRecord(self.sensor, CONFIRMED_KIND, result.times, is_patient, result.origin))
        if is_patient:
            for kind, value, flags in held.values:
                reading = Vital(kind, value, flags)
                records += (
                    self._feed_result(reading, result, arrival) if held.is_sent else self._accept(reading, result, arrival)
                )
        return Output(tuple(records))

    def _process(self, reading: Reading | tuple[Spot, ...], now: Times, arrival: Arrival) -> Output:
        match reading:
            case Vital(kind, value, flags):
                gaps = self._note_value(kind, now.at_us) if is_continuous(kind) and kind not in _WITHOUT_GAPS else ()
                record = VitalRecord(self.sensor, kind, now, value, flags)
                findings = tuple(self._vitals.feed(kind, value, now.at_us, flags)) if kind in PLAUSIBLE else ()
                records = alert_records(self._vital_alerts, findings, arrival.wall_us) if findings else ()
                delayed = self._vital_alerts.advance(now.at_us, arrival.wall_us)
                return Output((*gaps, record, *records, *delayed, *self._intervals.feed(reading, now.at_us)))
            case Intervals(kind, ticks):
                gaps = self._note_value(kind, now.at_us) if kind in CONTINUOUS_INTERVALS else ()
                return Output(
                    (*gaps, IntervalsRecord(self.sensor, kind, now, ticks), *self._intervals.feed(reading, now.at_us))
                )
            case Waveform(kind) if kind in ACCELERATION:
                self._motion.add(reading, arrival.wall_us)
                return Output()
            case Waveform():
                return self._process_waveform(reading, arrival)
            case tuple():
                return self._process_result(reading, arrival)
            case Status(kind, value):
                self.spots.on_status(reading, arrival)
                return Output((StatusRecord(self.sensor, kind, now, value), *self._intervals.feed(reading, now.at_us)))
            case Quarantined(characteristic, payload, reason):
                return Output((QuarantinedRecord(self.sensor, characteristic, now, payload, reason),))

    def _process_result(self, readings: tuple[Spot, ...], arrival: Arrival) -> Output:
        """Processes readings of one result that arrived together."""
        origin = readings[0].origin
        assert origin is not None
        new = self.spots.select_new(readings, origin, arrival)
        if not new:
            return Output()
        vitals = [reading for reading in new if isinstance(reading, Vital)]
        is_like_patient = self._vitals.is_like_patient({reading.kind: reading.value for reading in vitals})
        result = self.spots.decide(origin, arrival, is_like_patient)
        if result.whose == "other":
            return Output()
        if result.whose == "unconfirmed":
            return Output(self._hold(vitals, result, arrival))
        return Output(tuple(record for reading in new for record in self._accept(reading, result, arrival)))

    def _hold(self, vitals: Sequence[Vital], result: Result, arrival: Arrival) -> tuple[Record, ...]:
        """Holds readings until the patient answers. Returns what is sent before: none of it changes a mean or an episode."""
        rules = VitalRules(self._limits)
        findings = [
            finding
            for reading in vitals
            for finding in rules.feed(reading.kind, reading.value, result.times.at_us, reading.flags)
            if raises_alert(finding)
        ]
        is_urgent = any(alert_priority(finding, self._limits) in URGENT_PRIORITIES for finding in findings)
        if not self.spots.hold(result, vitals, is_urgent=is_urgent).is_sent:
            return ()
        values = (
            VitalRecord(self.sensor, one.kind, result.times, one.value, (*one.flags, UNCONFIRMED_FLAG), result.origin)
            for one in vitals
        )
        return (*values, *self._raise_alone(findings, (UNCONFIRMED_REASON, *_late_marks(result, arrival)), arrival))

    def _accept(self, reading: Spot, result: Result, arrival: Arrival) -> tuple[Record, ...]:
        """The records of a reading of this patient."""
        if isinstance(reading, Status):
            return (StatusRecord(self.sensor, reading.kind, result.times, reading.value, result.origin),)
        record = VitalRecord(self.sensor, reading.kind, result.times, reading.value, reading.flags, result.origin)
        return (record, *self._feed_result(reading, result, arrival))

    def _feed_result(self, reading: Vital, result: Result, arrival: Arrival) -> tuple[Record, ...]:
        """The findings and alerts of a reading of this patient."""
        at_us, now_us, marks = result.times.at_us, arrival.wall_us, _late_marks(result, arrival)
        if not result.is_datable:  # a mean must not take an old value for a new one
            alone = VitalRules(self._limits).feed(reading.kind, reading.value, at_us, reading.flags)
            return self._raise_alone(tuple(alone), marks, arrival)
        findings = self._vitals.feed_result(reading.kind, reading.value, at_us, now_us, reading.flags)
        records = [
            record
            for finding in findings
            for record in self._vital_alerts.on_finding(finding, utc_s_to_us, now_us, marks=marks)
        ]
        return (*records, *self._vital_alerts.advance(now_us, now_us))

    def _raise_alone(self, findings: Sequence[Finding], marks: tuple[str, ...], arrival: Arrival) -> tuple[Record, ...]:
        """The records of findings that do not belong to an episode of the patient's readings: they end at once."""
        ended = (replace(finding, end_s=finding.onset_s) for finding in findings)
        records = [self._vital_alerts.on_finding(finding, utc_s_to_us, arrival.wall_us, marks=marks) for finding in ended]
        return tuple(record for group in records for record in group)

    def _process_waveform(self, wave: Waveform, arrival: Arrival) -> Output:
        timeline = self._timelines.setdefault(wave.kind, WaveformTimeline(self.sensor, wave.kind))
        frame = timeline.assign_times(wave, arrival)
        if frame.record is None:
            return Output()
        stored = Output((frame.gap, frame.record) if frame.gap else (frame.record,))
        if wave.kind not in ANALYSED_WAVEFORMS:
            return stored
        values = np.array(wave.samples, np.float64) * wave.scale
        missing = None if frame.is_contiguous or frame.gap is None else frame.gap.missing or 0
        covered = Output(self._intervals.on_waveform(arrival.wall_us))
        analysed = tuple(self._analyse(wave.kind, values, wave.rate_hz, missing, frame.record, arrival))
        since_us = self._analyses[wave.kind].organised_since_us
        released = Output(self._intervals.on_better_signal(arrival.wall_us, since_us))
        return join_outputs([covered, stored, *analysed, released])

    def _analyse(
        self,
        kind: str,
        values: np.ndarray[tuple[int], np.dtype[np.float64]],
        nominal_hz: float,
        missing: int | None,
        record: WaveformRecord,
        arrival: Arrival,
    ) -> Iterator[Output]:
        """Analyses the samples of one frame; a changed nominal rate starts a new analysis.

        `missing` is the number of samples missing before the frame; None where it directly follows the previous one.
        """
        analysis = self._analyses.get(kind)
        if analysis and analysis.rate_hz != nominal_hz:
            yield analysis.finish(arrival.wall_us)
            self._analysis_states[kind] = analysis.state()
            analysis = None
        if analysis is None:
            saved = self._analysis_states.get(kind)
            alerts = self._alerts.of(kind)
            analysis = choose_analysis(kind)(alerts, nominal_hz, self._limits, self._models, saved, self._contexts)
            self._analyses[kind] = analysis
        elif missing is not None:
            yield analysis.process_gap(missing / record.rate_hz, arrival.wall_us)
        analysis.note_contact(has_contact=self._intervals.contact.is_there(arrival.wall_us))
        analysis.note_motion(is_moving=self._motion.is_moving(arrival.wall_us))
        yield analysis.process_samples(values, record.times.at_us, record.rate_hz, arrival.wall_us)


def _late_marks(result: Result, arrival: Arrival) -> tuple[str, ...]:
    """The reason keys of alerts about a result that was measured long before now."""
    if not result.is_datable:
        return (UNKNOWN_TIME_REASON,)
    return (LATE_REASON,) if arrival.wall_us - result.times.at_us > LATE_US else ()
