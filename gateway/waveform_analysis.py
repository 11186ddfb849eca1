"""Analyses one waveform of a sensor: samples in, records out.

The analysis measures time in stream seconds, which are seconds since the waveform's first sample. Records carry the hub's time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import Limits
from gateway.alert_tracker import AlertTracker
from gateway.beat_log import BeatLog
from gateway.strip_history import StripHistory
from gateway.strips import cut_latest_strip
from gateway.timeline import SampleTimes
from models.analysis import EcgAnalysis, EcgStep
from models.findings import Finding
from models.inference.models import Models
from models.rules.burden import DailyBurden
from reporting.result import TimedBeat
from sync.records import Record

Samples = NDArray[np.float64]
SavedState = Mapping[str, Any]
"""What must survive a restart, ready for JSON. It is stored, so its keys must not change. The value of the key "rhythm" is what
the analysis has learnt of the patient's rhythm, and when."""


@dataclass(frozen=True, slots=True)
class Output:
    """The results of one step: records in the order in which they are to be stored, and detected beats or good pulses."""

    records: tuple[Record, ...] = ()
    beats: tuple[TimedBeat, ...] = ()


class WaveformAnalysis(Protocol):
    """The analysis of one waveform of a sensor, at one nominal sampling rate. `decided_us` is explained in `AlertRecord`."""

    rate_hz: float
    organised_since_us: int | None
    """Since when the rhythm has been organised; None while it is not, or if the waveform does not tell."""

    def note_contact(self, *, has_contact: bool) -> None:
        """Notes whether the sensor says that it has skin contact, for the samples that follow."""
        ...

    def note_motion(self, *, is_moving: bool | None) -> None:
        """Notes whether the wearer moves, for the samples that follow; None if that is not known."""
        ...

    def process_samples(self, values: Samples, at_us: int, rate_hz: float, decided_us: int) -> Output:
        """Processes consecutive samples. The first was measured at `at_us`; `rate_hz` is the measured rate."""
        ...

    def process_gap(self, seconds: float, decided_us: int) -> Output:
        """Processes a gap of this length."""
        ...

    def finish(self, decided_us: int) -> Output:
        """Ends the analysis: no more samples will come."""
        ...

    def state(self) -> SavedState:
        """The state that the next analysis of this waveform resumes from."""
        ...


class EcgWaveformAnalysis:
    """The analysis of a sensor's ECG."""

    def __init__(
        self,
        alerts: AlertTracker,
        rate_hz: float,
        limits: Limits,
        models: Models,
        saved: SavedState | None = None,
        contexts: Contexts = NO_CONTEXTS,
    ) -> None:
        """`saved` is the last `state()` of the previous analysis.

        Raises:
            ValueError: the sampling rate is not supported for an ECG.
        """
        restored = saved or {}
        self.rate_hz = rate_hz
        self._rhythm = restored.get("rhythm", {})
        """What the previous analysis learnt of the rhythm and when it ended, until the first sample."""
        self.analysis = EcgAnalysis(rate_hz, limits, models, contexts, saved=self._rhythm.get("learnt"))
        self._times = SampleTimes()
        self._alerts = alerts
        self._burden = DailyBurden(limits, state=restored.get("burden"))
        self._history = StripHistory(self.analysis)
        self._beat_log = BeatLog(alerts.sensor, "ecg")
        self.organised_since_us: int | None = None

    def note_contact(self, *, has_contact: bool) -> None:
        """See `WaveformAnalysis`."""
        self.analysis.has_contact = has_contact

    def note_motion(self, *, is_moving: bool | None) -> None:
        """See `WaveformAnalysis`."""
        self.analysis.note_motion(is_moving=is_moving)

    def process_samples(self, values: Samples, at_us: int, rate_hz: float, decided_us: int) -> Output:
        """See `WaveformAnalysis`; `values` in mV."""
        if self._rhythm:
            self.analysis.add_time_away((at_us - self._rhythm["at_us"]) / 1e6)
            self._rhythm = {}
        self._times.add_anchor(self.analysis.end_s * self.rate_hz, at_us, rate_hz)
        return join_outputs(self._collect_output(step, decided_us) for step in self.analysis.push_hops(values))

    def process_gap(self, seconds: float, decided_us: int) -> Output:
        """See `WaveformAnalysis`."""
        end_s = self.analysis.end_s
        output = self._collect_output(self.analysis.gap(seconds), decided_us)
        return self._add_rest_of_beats(output, end_s, end_s + seconds)

    def finish(self, decided_us: int) -> Output:
        """See `WaveformAnalysis`. The next analysis continues the AF burden of the day."""
        end_s = self.analysis.end_s
        return self._add_rest_of_beats(self._collect_output(self.analysis.finish(), decided_us), end_s, end_s)

    def state(self) -> SavedState:
        """See `WaveformAnalysis`."""
        learnt = {"at_us": self._to_utc_us(self.analysis.end_s), "learnt": self.analysis.state()} if self.analysis.end_s else {}
        return {"burden": self._burden.state(), "rhythm": learnt or self._rhythm}

    def _to_utc_us(self, stream_s: float) -> int:
        return self._times.at_us(stream_s * self.rate_hz)

    def _add_rest_of_beats(self, output: Output, end_s: float, resume_s: float) -> Output:
        records = tuple(self._beat_log.end(end_s, resume_s, self._to_utc_us))
        return replace(output, records=(*output.records, *records))

    def _collect_output(self, step: EcgStep, decided_us: int) -> Output:
        self._history.add_step(step.beats)
        records: list[Record] = list(self._beat_log.add(step.beats, step.labelled_until_s, self._to_utc_us))
        for finding in step.findings:
            records += self._alerts.on_finding(finding, self._to_utc_us, decided_us, self._history)
        now_us = self._to_utc_us(self.analysis.chain.end_s)
        for finding in self._burden.add_total(now_us / 1e6, step.burden.af_s, step.burden.observed_s):
            records += self._alerts.on_finding(finding, utc_s_to_us, decided_us)
        since_s = step.organised_since_s
        self.organised_since_us = None if since_s is None else self._to_utc_us(since_s)
        for alert in self._alerts.advance(now_us, decided_us, self.organised_since_us):
            is_raised = alert.raised_us == decided_us and alert.end_us is None and alert.strip is None
            strip = cut_latest_strip(self._to_utc_us, self._history) if is_raised else alert.strip
            records.append(replace(alert, strip=strip))
        self.analysis.note_urgency(is_urgent=self._alerts.is_after_high(now_us))
        beats = tuple(TimedBeat(self._to_utc_us(beat.t_s), beat.label) for beat in step.beats)
        return Output(tuple(records), beats)


def join_outputs(outputs: Iterable[Output]) -> Output:
    """The records and beats of several steps, in order."""
    parts = list(outputs)
    if len(parts) == 1:
        return parts[0]
    records, beats = [part.records for part in parts], [part.beats for part in parts if part.beats]
    return Output(tuple(chain.from_iterable(records)), tuple(chain.from_iterable(beats)))


def utc_s_to_us(utc_s: float) -> int:
    """Converts seconds since 1970, in which vital signs and daily AF burdens are timed, to microseconds."""
    return round(utc_s * 1e6)


def alert_records(alerts: AlertTracker, findings: Sequence[Finding], decided_us: int) -> tuple[Record, ...]:
    """Passes findings whose times are seconds since 1970 to the tracker; returns their finding and alert records."""
    return tuple(record for finding in findings for record in alerts.on_finding(finding, utc_s_to_us, decided_us))
