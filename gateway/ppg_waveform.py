"""Analyses the PPG of a sensor: samples in, records out. Like `gateway.waveform_analysis`, loaded only where there is a PPG."""

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import Limits
from gateway.alert_tracker import AlertTracker
from gateway.timeline import SampleTimes
from gateway.waveform_analysis import Output, Samples, SavedState
from models.inference.models import Models
from models.ppg_analysis import PpgAnalysis, PpgStep
from reporting.result import PULSE, TimedBeat
from sync.records import Record


class PpgWaveformAnalysis:
    """The analysis of a sensor's PPG, the optical pulse wave."""

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
            ValueError: the sampling rate is not supported for a PPG.
        """
        self.rate_hz = rate_hz
        self.organised_since_us: int | None = None
        self._rhythm = (saved or {}).get("rhythm", {})
        """What the previous analysis learnt of the rhythm and when it ended, until the first sample."""
        brief_ages_s = self._rhythm.get("brief_ages_s", ())
        self._analysis = PpgAnalysis(rate_hz, limits, models.rr_af, models.ppg_quality, contexts, brief_ages_s)
        self._times = SampleTimes()
        self._alerts = alerts

    def note_contact(self, *, has_contact: bool) -> None:
        """See `WaveformAnalysis`. A pulse wave shows by itself whether it is one."""

    def note_motion(self, *, is_moving: bool | None) -> None:
        """See `WaveformAnalysis`. The motion of an arm or a finger is not that of the body: nothing waits for it."""

    def process_samples(self, values: Samples, at_us: int, rate_hz: float, decided_us: int) -> Output:
        """See `WaveformAnalysis`; `values` in any unit."""
        if self._rhythm:
            self._analysis.add_time_away((at_us - self._rhythm["at_us"]) / 1e6)
            self._rhythm = {}
        self._times.add_anchor(self._analysis.chain.end_s * self.rate_hz, at_us, rate_hz)
        return self._collect_output(self._analysis.push(values), decided_us)

    def process_gap(self, seconds: float, decided_us: int) -> Output:
        """See `WaveformAnalysis`."""
        return self._collect_output(self._analysis.gap(seconds), decided_us)

    def finish(self, decided_us: int) -> Output:
        """See `WaveformAnalysis`."""
        return self._collect_output(self._analysis.finish(), decided_us)

    def state(self) -> SavedState:
        """See `WaveformAnalysis`."""
        end_s = self._analysis.chain.end_s
        learnt = {"at_us": self._to_utc_us(end_s), "brief_ages_s": self._analysis.brief_ages_s} if end_s else {}
        return {"rhythm": learnt or self._rhythm}

    def _to_utc_us(self, stream_s: float) -> int:
        return self._times.at_us(stream_s * self.rate_hz)

    def _collect_output(self, step: PpgStep, decided_us: int) -> Output:
        records: list[Record] = []
        for finding in step.findings:
            records += self._alerts.on_finding(finding, self._to_utc_us, decided_us)
        records += self._alerts.advance(self._to_utc_us(self._analysis.chain.end_s), decided_us)
        pulses = tuple(
            TimedBeat(self._to_utc_us(pulse.t_s), PULSE, pulse.pp_s is not None) for pulse in step.pulses if pulse.good
        )
        return Output(tuple(records), pulses)
