"""Processes one sensor's readings into records, beats, findings and alerts, for the agent and for replay alike.

The pipeline is synchronous and does no I/O. Arrival times come with the readings, so a day can be replayed in a minute.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np

from config.limits import Limits
from drivers.kinds import is_continuous
from drivers.readings import Intervals, Quarantined, Reading, Status, Vital, Waveform
from gateway.alerts import AlertTracker
from gateway.timeline import Arrival, LastSample, WaveformTimeline
from gateway.waveform_analysis import (
    ANALYSED_WAVEFORMS,
    EcgWaveformAnalysis,
    Output,
    PpgWaveformAnalysis,
    SavedState,
    alert_records,
    join_outputs,
)
from models.inference.models import Models
from models.rules.vitals import VitalRules
from sync.records import (
    AlertRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    StatusRecord,
    Times,
    VitalRecord,
    WaveformRecord,
)

RUNNING_US: Final = 60_000_000
"""A stream of vital signs without a value for longer than a minute has ended: no sensor that measures by itself is slower."""
AGENT_RESTART_REASON: Final = "the agent was restarted"
"""The reason of a gap since the last run of the agent."""


def end_saved_alerts(saved: SavedState, now_us: int, reason: str | None = None) -> tuple[AlertRecord, ...]:
    """The end of each alert that a pipeline's saved state holds as ongoing: at its last ECG sample, otherwise at `now_us`.

    `reason` is an additional reason key: why the alerts end.
    """
    ecg = saved.get("waveforms", {}).get("ecg")
    end_us = ecg["at_us"] if ecg else now_us
    added = (reason,) if reason else ()
    return tuple(
        replace(AlertRecord(**alert), reasons=(*alert["reasons"], *added), end_us=max(alert["onset_us"], end_us))
        for alert in saved.get("alerts", ())
    )


class Pipeline:
    """Timeline, analysis and alerts for the readings of one sensor.

    Its saved state has five keys: `waveforms` holds the `LastSample` of each kind of waveform, `values` the time of the last
    value of each continuous kind that is being received, `alerts` the ongoing alerts, `streams` the state of each waveform
    analysis, and `vitals` that of the rules on vital signs.
    """

    def __init__(self, sensor: str, limits: Limits, models: Models, saved: SavedState | None = None) -> None:
        """`saved` is the last `state()` of an earlier pipeline of this sensor."""
        self.sensor = sensor
        self._limits, self._models = limits, models
        self._restored: dict[str, Any] = {
            **{"waveforms": {}, "values": {}, "alerts": [], "streams": {}, "vitals": {}},
            **(saved or {}),
        }
        waveforms = self._restored["waveforms"].items()
        self._timelines = {kind: WaveformTimeline(sensor, kind, LastSample(**last)) for kind, last in waveforms}
        self._values_us: dict[str, int] = dict(self._restored["values"])
        self._analysis_states: dict[str, Any] = self._restored["streams"]
        self._analyses: dict[str, EcgWaveformAnalysis | PpgWaveformAnalysis] = {}
        vitals: Mapping[str, Any] = self._restored["vitals"]
        self._vitals = VitalRules(limits, vitals.get("rules"))
        self._vital_alerts = AlertTracker(sensor, limits, vitals.get("flood"))

    def feed(self, readings: Sequence[Reading], arrival: Arrival) -> Output:
        """Processes readings that arrived together."""
        output = join_outputs(self._process(reading, arrival) for reading in readings)
        now_us = arrival.wall_us
        self._values_us = {kind: at_us for kind, at_us in self._values_us.items() if abs(now_us - at_us) <= RUNNING_US}
        return output

    def on_interruption(self, reason: str, arrival: Arrival) -> Output:
        """Opens a gap in every waveform because the link was lost or a recording has no valid samples."""
        del arrival
        self._values_us = {}
        return Output(self._open_waveform_gaps(reason))

    def finish(self, arrival: Arrival) -> Output:
        """Ends the analyses because no more readings will come: pending beats are decided and open episodes are closed."""
        output = join_outputs(analysis.finish(arrival.wall_us) for analysis in self._analyses.values())
        self._analysis_states = self._collect_analysis_states()
        self._analyses = {}
        return output

    def state(self) -> SavedState:
        """The last sample or value of each stream, the ongoing alerts and the state of the rules; a restart resumes from it."""
        states = {kind: timeline.state() for kind, timeline in self._timelines.items()}
        ongoing = [alert for analysis in self._analyses.values() for alert in analysis.ongoing_alerts()]
        ongoing += self._vital_alerts.ongoing_alerts()
        return {
            "waveforms": {kind: state for kind, state in states.items() if state},
            "values": dict(self._values_us),
            "alerts": [asdict(alert) for alert in ongoing],
            "streams": self._collect_analysis_states(),
            "vitals": {"rules": self._vitals.state(), "flood": self._vital_alerts.limiter_state()},
        }

    def restarted(self, saved: SavedState) -> "Pipeline":
        """A new pipeline of the same sensor that resumes from `saved`; this one must not be used any more."""
        return Pipeline(self.sensor, self._limits, self._models, saved)

    def resume(self, arrival: Arrival) -> Output:
        """Resumes after a restart of the agent.

        Ends the alerts that were ongoing, and records a gap in every stream that had not ended: an open one in a waveform, and
        one until now in vital signs, whose last values a crash may have cost.
        """
        now_us = arrival.wall_us
        gaps = tuple(
            GapRecord(self.sensor, kind, last_us, max(last_us, now_us), None, AGENT_RESTART_REASON)
            for kind, last_us in self._values_us.items()
        )
        self._values_us = {}
        return Output((*gaps, *self.resume_analysis(arrival, AGENT_RESTART_REASON).records))

    def resume_analysis(self, arrival: Arrival, reason: str) -> Output:
        """Opens a gap in every waveform and ends the alerts that were ongoing in the saved state."""
        return Output((*self._open_waveform_gaps(reason), *end_saved_alerts(self._restored, arrival.wall_us)))

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

    def _process(self, reading: Reading, arrival: Arrival) -> Output:
        now = Times(arrival.wall_us, arrival.wall_us, arrival.mono_ns)
        match reading:
            case Waveform():
                return self._process_waveform(reading, arrival)
            case Vital(kind, value, flags):
                if is_continuous(kind):
                    self._values_us[kind] = now.at_us
                findings = tuple(self._vitals.feed(kind, value, now.at_us, flags))
                records = alert_records(self._vital_alerts, findings, arrival.wall_us)
                delayed = self._vital_alerts.end_suppression(now.at_us, arrival.wall_us)
                return Output((VitalRecord(self.sensor, kind, now, value, flags), *records, *delayed))
            case Intervals(kind, ticks):
                self._values_us[kind] = now.at_us
                return Output((IntervalsRecord(self.sensor, kind, now, ticks),))
            case Status(kind, value):
                return Output((StatusRecord(self.sensor, kind, now, value),))
            case Quarantined(characteristic, payload, reason):
                return Output((QuarantinedRecord(self.sensor, characteristic, now, payload, reason),))

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
        return join_outputs(iter([stored, *self._analyse(wave.kind, values, wave.rate_hz, missing, frame.record, arrival)]))

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
            analysis = ANALYSED_WAVEFORMS[kind](self.sensor, nominal_hz, self._limits, self._models, saved)
            self._analyses[kind] = analysis
        elif missing is not None:
            yield analysis.process_gap(missing / record.rate_hz, arrival.wall_us)
        yield analysis.process_samples(values, record.times.at_us, record.rate_hz, arrival.wall_us)
