"""Analyses one waveform of a sensor: samples in, records out.

The analysis measures time in stream seconds, which are seconds since the waveform's first sample. Records carry the hub's time.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from config.limits import Limits
from gateway.alerts import AlertTracker
from gateway.timeline import SampleTimes
from models.analysis import EcgAnalysis, EcgStep
from models.beat_labels import LabelledBeat
from models.findings import Finding
from models.inference.models import Models
from models.ppg_analysis import PpgAnalysis, PpgStep
from models.rules.burden import DailyBurden
from reporting.result import PULSE, TimedBeat
from sync.records import AlertRecord, Record

BEATS_FOR_STRIPS: Final = 64
"""More beats than fit into a strip of 12 s at 220/min."""

Samples = NDArray[np.float64]
SavedState = Mapping[str, Any]
"""What must survive a restart, ready for JSON. It is stored, so its keys must not change. The value of the key "flood" is the
state of the alarm rate limiter, and that of "closed" names the alerts that the clinic closed while their episodes lasted."""


@dataclass(frozen=True, slots=True)
class Output:
    """The results of one step: records in the order in which they are to be stored, and detected beats or good pulses."""

    records: tuple[Record, ...] = ()
    beats: tuple[TimedBeat, ...] = ()


class WaveformAnalysis(Protocol):
    """The analysis of one waveform of a sensor, at one nominal sampling rate. `decided_us` is explained in `AlertRecord`."""

    rate_hz: float

    def process_samples(self, values: Samples, at_us: int, rate_hz: float, decided_us: int) -> Output:
        """Processes consecutive samples. The first was measured at `at_us`; `rate_hz` is the measured rate."""
        ...

    def process_gap(self, seconds: float, decided_us: int) -> Output:
        """Processes a gap of this length."""
        ...

    def finish(self, decided_us: int) -> Output:
        """Ends the analysis: no more samples will come."""
        ...

    def ongoing_alerts(self) -> tuple[AlertRecord, ...]:
        """The alerts whose episodes have not ended."""
        ...

    def close_alert(self, id_: str, now_us: int, reason: str, command: int) -> AlertRecord | None:
        """See `AlertTracker.close`."""
        ...

    def state(self) -> SavedState:
        """The state that the next analysis of this waveform resumes from."""
        ...


class EcgWaveformAnalysis:
    """The analysis of a sensor's ECG."""

    def __init__(self, sensor: str, rate_hz: float, limits: Limits, models: Models, saved: SavedState | None = None) -> None:
        """`saved` is the last `state()` of the previous analysis.

        Raises:
            ValueError: the sampling rate is not supported for an ECG.
        """
        restored = saved or {}
        self.rate_hz = rate_hz
        self.analysis = EcgAnalysis(rate_hz, limits, models)
        self._times = SampleTimes()
        self._alerts = AlertTracker(sensor, limits, restored.get("flood"), restored.get("closed"))
        self._burden = DailyBurden(limits, state=restored.get("burden"))
        self._beats: deque[LabelledBeat] = deque(maxlen=BEATS_FOR_STRIPS)

    def process_samples(self, values: Samples, at_us: int, rate_hz: float, decided_us: int) -> Output:
        """See `WaveformAnalysis`; `values` in mV."""
        self._times.add_anchor(self.analysis.end_s * self.rate_hz, at_us, rate_hz)
        return join_outputs(self._collect_output(step, decided_us) for step in self.analysis.push_hops(values))

    def process_gap(self, seconds: float, decided_us: int) -> Output:
        """See `WaveformAnalysis`."""
        return self._collect_output(self.analysis.gap(seconds), decided_us)

    def finish(self, decided_us: int) -> Output:
        """See `WaveformAnalysis`. The next analysis continues the AF burden of the day."""
        return self._collect_output(self.analysis.finish(), decided_us)

    def ongoing_alerts(self) -> tuple[AlertRecord, ...]:
        """See `WaveformAnalysis`."""
        return self._alerts.ongoing_alerts()

    def close_alert(self, id_: str, now_us: int, reason: str, command: int) -> AlertRecord | None:
        """See `WaveformAnalysis`."""
        return self._alerts.close(id_, now_us, reason, command)

    def state(self) -> SavedState:
        """See `WaveformAnalysis`."""
        return {"flood": self._alerts.limiter_state(), "closed": self._alerts.closed(), "burden": self._burden.state()}

    def _to_utc_us(self, stream_s: float) -> int:
        return self._times.at_us(stream_s * self.rate_hz)

    def _collect_output(self, step: EcgStep, decided_us: int) -> Output:
        self._beats.extend(step.beats)
        recent = tuple(self._beats)
        records: list[Record] = []
        for finding in step.findings:
            records += self._alerts.on_finding(finding, self._to_utc_us, decided_us, self.analysis, recent)
        now_us = self._to_utc_us(self.analysis.chain.end_s)
        for finding in self._burden.add_total(now_us / 1e6, step.burden.af_s, step.burden.observed_s):
            records += self._alerts.on_finding(finding, utc_s_to_us, decided_us)
        records += self._alerts.end_suppression(now_us, decided_us)
        beats = tuple(TimedBeat(self._to_utc_us(beat.t_s), beat.label) for beat in step.beats)
        return Output(tuple(records), beats)


class PpgWaveformAnalysis:
    """The analysis of a sensor's PPG, the optical pulse wave."""

    def __init__(self, sensor: str, rate_hz: float, limits: Limits, models: Models, saved: SavedState | None = None) -> None:
        """`saved` is the last `state()` of the previous analysis.

        Raises:
            ValueError: the sampling rate is not supported for a PPG.
        """
        self.rate_hz = rate_hz
        self._analysis = PpgAnalysis(rate_hz, limits, models.rr_af, models.ppg_quality)
        self._times = SampleTimes()
        restored = saved or {}
        self._alerts = AlertTracker(sensor, limits, restored.get("flood"), restored.get("closed"))

    def process_samples(self, values: Samples, at_us: int, rate_hz: float, decided_us: int) -> Output:
        """See `WaveformAnalysis`; `values` in any unit."""
        self._times.add_anchor(self._analysis.chain.end_s * self.rate_hz, at_us, rate_hz)
        return self._collect_output(self._analysis.push(values), decided_us)

    def process_gap(self, seconds: float, decided_us: int) -> Output:
        """See `WaveformAnalysis`."""
        return self._collect_output(self._analysis.gap(seconds), decided_us)

    def finish(self, decided_us: int) -> Output:
        """See `WaveformAnalysis`."""
        return self._collect_output(self._analysis.finish(), decided_us)

    def ongoing_alerts(self) -> tuple[AlertRecord, ...]:
        """See `WaveformAnalysis`."""
        return self._alerts.ongoing_alerts()

    def close_alert(self, id_: str, now_us: int, reason: str, command: int) -> AlertRecord | None:
        """See `WaveformAnalysis`."""
        return self._alerts.close(id_, now_us, reason, command)

    def state(self) -> SavedState:
        """See `WaveformAnalysis`."""
        return {"flood": self._alerts.limiter_state(), "closed": self._alerts.closed()}

    def _to_utc_us(self, stream_s: float) -> int:
        return self._times.at_us(stream_s * self.rate_hz)

    def _collect_output(self, step: PpgStep, decided_us: int) -> Output:
        records: list[Record] = []
        for finding in step.findings:
            records += self._alerts.on_finding(finding, self._to_utc_us, decided_us)
        records += self._alerts.end_suppression(self._to_utc_us(self._analysis.chain.end_s), decided_us)
        pulses = tuple(
            TimedBeat(self._to_utc_us(pulse.t_s), PULSE, pulse.pp_s is not None) for pulse in step.pulses if pulse.good
        )
        return Output(tuple(records), pulses)


ANALYSED_WAVEFORMS: Final[Mapping[str, type[EcgWaveformAnalysis] | type[PpgWaveformAnalysis]]] = {
    "ecg": EcgWaveformAnalysis,
    "ppg": PpgWaveformAnalysis,
}
"""The analysis of each kind of waveform; other kinds are only recorded."""


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
