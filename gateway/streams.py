"""From the samples of one sensor's waveform to records: the analysis in stream seconds, the alerts in the hub's time."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from config.limits import Limits
from gateway.alerts import AlertBook
from gateway.timeline import SampleTimes
from models.analysis import EcgAnalysis, Step
from models.beat_labels import LabelledBeat
from models.findings import Finding
from models.inference.models import Models
from models.ppg_analysis import PpgAnalysis, PpgStep
from models.rules.burden import DailyBurden
from reporting.result import TimedBeat
from sync.records import AlertRecord, Record

BEATS_FOR_STRIPS: Final = 64
"""More than fit in a strip of 12 s at 220/min."""

Samples = NDArray[np.float64]
State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Output:
    """What one step brought: records in the order to be stored, and the beats behind them."""

    records: tuple[Record, ...] = ()
    beats: tuple[TimedBeat, ...] = ()


class Stream(Protocol):
    """One analysed waveform of a sensor."""

    rate_hz: float

    def samples(self, values: Samples, at_us: int, rate_hz: float, decided_us: int) -> Output:
        """Consecutive samples, the first of them measured at `at_us`; `rate_hz` as measured."""
        ...

    def gap(self, seconds: float, decided_us: int) -> Output:
        """No samples for so long."""
        ...

    def finish(self, decided_us: int) -> Output:
        """No more samples will come."""
        ...

    def ongoing_alerts(self) -> tuple[AlertRecord, ...]:
        """The alerts whose episodes have not ended."""
        ...

    def state(self) -> State:
        """What a stream after a restart goes on from, ready for JSON."""
        ...


class EcgStream:
    """The ECG of one sensor."""

    def __init__(self, sensor: str, rate_hz: float, limits: Limits, models: Models, state: State | None = None) -> None:
        """`state` is what an earlier stream said of itself last.

        Raises:
            ValueError: the rate is none of an ECG.
        """
        left = state or {}
        self.rate_hz = rate_hz
        self.analysis = EcgAnalysis(rate_hz, limits, models)
        self._times = SampleTimes()
        self._alerts = AlertBook(sensor, limits, left.get("flood"))
        self._burden = DailyBurden(limits, state=left.get("burden"))
        self._beats: deque[LabelledBeat] = deque(maxlen=BEATS_FOR_STRIPS)

    def samples(self, values: Samples, at_us: int, rate_hz: float, decided_us: int) -> Output:
        """See `Stream`; in mV."""
        self._times.anchor(self.analysis.end_s * self.rate_hz, at_us, rate_hz)
        return joined(self._output(step, decided_us) for step in self.analysis.hops(values))

    def gap(self, seconds: float, decided_us: int) -> Output:
        """See `Stream`."""
        return self._output(self.analysis.gap(seconds), decided_us)

    def finish(self, decided_us: int) -> Output:
        """See `Stream`. The day's burden goes on with the next stream."""
        return self._output(self.analysis.finish(), decided_us)

    def ongoing_alerts(self) -> tuple[AlertRecord, ...]:
        """See `Stream`."""
        return self._alerts.ongoing()

    def state(self) -> State:
        """See `Stream`."""
        return {"flood": self._alerts.flood(), "burden": self._burden.state()}

    def _at_us(self, stream_s: float) -> int:
        return self._times.at_us(stream_s * self.rate_hz)

    def _output(self, step: Step, decided_us: int) -> Output:
        self._beats.extend(step.beats)
        recent = tuple(self._beats)
        records: list[Record] = []
        for finding in step.findings:
            records += self._alerts.records(finding, self._at_us, decided_us, self.analysis, recent)
        now_us = self._at_us(self.analysis.chain.end_s)
        for finding in self._burden.put(now_us / 1e6, step.burden.af_s, step.burden.observed_s):
            records += self._alerts.records(finding, utc_us, decided_us)
        records += self._alerts.released(now_us, decided_us)
        beats = tuple(TimedBeat(self._at_us(beat.t_s), beat.label, beat.amplitude_mv) for beat in step.beats)
        return Output(tuple(records), beats)


class PpgStream:
    """The pulse wave of one sensor."""

    def __init__(self, sensor: str, rate_hz: float, limits: Limits, models: Models, state: State | None = None) -> None:
        """`state` is what an earlier stream said of itself last.

        Raises:
            ValueError: the rate is none of a PPG.
        """
        self.rate_hz = rate_hz
        self._analysis = PpgAnalysis(rate_hz, limits, models.rr_af, models.ppg_quality)
        self._times = SampleTimes()
        self._alerts = AlertBook(sensor, limits, (state or {}).get("flood"))

    def samples(self, values: Samples, at_us: int, rate_hz: float, decided_us: int) -> Output:
        """See `Stream`; in any unit."""
        self._times.anchor(self._analysis.chain.end_s * self.rate_hz, at_us, rate_hz)
        return self._output(self._analysis.push(values), decided_us)

    def gap(self, seconds: float, decided_us: int) -> Output:
        """See `Stream`."""
        return self._output(self._analysis.gap(seconds), decided_us)

    def finish(self, decided_us: int) -> Output:
        """See `Stream`."""
        return self._output(self._analysis.finish(), decided_us)

    def ongoing_alerts(self) -> tuple[AlertRecord, ...]:
        """See `Stream`."""
        return self._alerts.ongoing()

    def state(self) -> State:
        """See `Stream`."""
        return {"flood": self._alerts.flood()}

    def _at_us(self, stream_s: float) -> int:
        return self._times.at_us(stream_s * self.rate_hz)

    def _output(self, step: PpgStep, decided_us: int) -> Output:
        records: list[Record] = []
        for finding in step.findings:
            records += self._alerts.records(finding, self._at_us, decided_us)
        records += self._alerts.released(self._at_us(self._analysis.chain.end_s), decided_us)
        return Output(tuple(records))


STREAMS: Final[Mapping[str, type[EcgStream] | type[PpgStream]]] = {"ecg": EcgStream, "ppg": PpgStream}
"""The waveforms that are analysed, by kind."""


def joined(outputs: Iterable[Output]) -> Output:
    """What several steps brought, in order."""
    parts = list(outputs)
    return Output(
        tuple(record for part in parts for record in part.records), tuple(beat for part in parts for beat in part.beats)
    )


def utc_us(seconds: float) -> int:
    """The hub's time of a finding that is stated in seconds since 1970."""
    return round(seconds * 1e6)


def told(alerts: AlertBook, findings: Sequence[Finding], decided_us: int) -> tuple[Record, ...]:
    """Records of findings whose times are seconds since 1970."""
    return tuple(record for finding in findings for record in alerts.records(finding, utc_us, decided_us))
