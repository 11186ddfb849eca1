"""Analyses the beat-to-beat intervals and heart rates of a sensor while no waveform of it is being received.

An ECG or a PPG of the same sensor says more than the numbers that the sensor derives from it, so it alone counts. What counts
is decided by what is being received: a strap may send its ECG for an hour a day, and its intervals always.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import Limits
from drivers.readings import TICKS_PER_SECOND, Intervals, Reading, Status, Vital
from gateway.alert_tracker import AlertTracker
from gateway.contact import VALID_US, Contact
from gateway.waveform_analysis import utc_s_to_us
from models.findings import Finding
from models.inference.models import Models
from models.interval_analysis import SHORTEST_S, SILENT_S, WAVEFORM_REASON, IntervalAnalysis
from models.rules.burden import DailyBurden
from models.rules.no_signal import NoSignalRule
from models.rules.organised import MAX_BPM, MIN_BPM
from models.rules.vitals import DOUBTFUL
from sync.records import Record

RATE_KINDS: Final = frozenset({"heart_rate", "pulse_rate"})
"""Vital signs that are a rate of the heart, averaged by the sensor over seconds."""
MEASURED_KINDS: Final = frozenset({"rr", "pp"})
"""Intervals from one beat to the next."""
VOID_KINDS: Final = frozenset({"rr_implausible", "pp_void"})
"""Intervals that take time but are not valid. Those of the other kinds are no intervals at all."""


class IntervalStream:
    """Intervals and heart rates of one sensor in, records out."""

    def __init__(
        self,
        alerts: AlertTracker,
        limits: Limits,
        models: Models,
        saved: Mapping[str, Any] | None = None,
        contexts: Contexts = NO_CONTEXTS,
    ) -> None:
        """`saved` is the last `state()` of an earlier stream of this sensor."""
        restored = saved or {}
        self._make_analysis = partial(IntervalAnalysis, limits, models.rr_af, contexts)
        self._brief_ends_s: list[float] = restored.get("brief_ends_s", [])
        """When the latest brief episodes of an irregular pulse ended, before the analysis began."""
        self._analysis: IntervalAnalysis | None = None
        """None while nothing is to be judged: most sensors with an ECG never need it."""
        self._alerts = alerts
        self._organised_us: tuple[int, int] | None = None
        """Since when, and until when, the rate has been that of an organised rhythm; None while it is not."""
        self._burden = DailyBurden(limits, state=restored.get("burden"), kind="irregular_pulse_burden")
        self._normal_bpm = limits.bradycardia_rate.value, limits.tachycardia_rate.value
        self._waveform_us: int | None = None
        """When the last samples of a waveform arrived."""
        self._last_us = 0
        """When the last reading arrived."""
        self.contact = Contact()
        self._no_signal = NoSignalRule(limits)
        self._contact_us: int | None = None
        """When the sensor last said whether it has contact, while no waveform of it was received."""

    def feed(self, reading: Reading, at_us: int) -> tuple[Record, ...]:
        """Process a reading that arrived at `at_us`; one of another kind is ignored."""
        at_s, self._last_us = at_us / 1e6, at_us
        has_contact = self.contact.note(reading, at_us)
        match reading:
            case _ if self._is_covered(at_us):
                pass
            case Status() if has_contact is not None:
                self._contact_us, self._no_signal.is_urgent = at_us, self._alerts.is_after_high(at_us)
                return self._to_alerts(self._no_signal.advance_to(at_s, None if has_contact else "lead_off"), at_us)
            case Vital(kind, value, flags, origin=None) if kind in RATE_KINDS and not DOUBTFUL & set(flags):
                self._note_rate(value, at_us)
                analysis = self._analysis = self._analysis or self._make_analysis(self._brief_ends_s)
                return self._to_records(analysis, analysis.add_heart_rate(at_s, value), at_us)
            case Intervals(kind, ticks) if ticks and kind in MEASURED_KINDS | VOID_KINDS:
                seconds = tuple(tick / TICKS_PER_SECOND for tick in ticks)
                measured = kind in MEASURED_KINDS and not self.contact.is_off
                self._note_rate(60.0 * len(seconds) / max(sum(seconds), SHORTEST_S) if measured else 0.0, at_us)
                analysis = self._analysis = self._analysis or self._make_analysis(self._brief_ends_s)
                return self._to_records(analysis, analysis.add_intervals(at_s, seconds, measured=measured), at_us)
            case _:
                pass
        return ()

    @property
    def waits(self) -> bool:
        """Whether the passing of time can end an episode."""
        return bool(self._alerts.ongoing_alerts())

    def on_waveform(self, at_us: int) -> tuple[Record, ...]:
        """Note samples of a waveform that is analysed, from now on instead of intervals and rates."""
        is_first = not self._is_covered(at_us)
        self._waveform_us = at_us
        return self.finish(at_us, WAVEFORM_REASON) if is_first else ()

    def on_better_signal(self, now_us: int, organised_since_us: int | None) -> tuple[Record, ...]:
        """Note since when the rhythm has been organised in the waveform that is being received: it ends latched alerts."""
        return self._alerts.advance(now_us, now_us, organised_since_us)

    def advance_to(self, at_us: int) -> tuple[Record, ...]:
        """End the episodes of which no value has come for too long."""
        analysis = self._analysis
        stale = self._to_records(analysis, analysis.advance_to(at_us / 1e6), at_us, values_came=False) if analysis else ()
        is_silent = self._contact_us is not None and abs(at_us - self._contact_us) > VALID_US
        return (*stale, *self._lose_contact(at_us)) if is_silent else stale

    def finish(self, at_us: int, *reasons: str) -> tuple[Record, ...]:
        """End all episodes; `reasons` say why."""
        analysis, self._analysis = self._analysis, None
        ended: tuple[Record, ...] = ()
        if analysis is not None:
            ended = self._to_records(analysis, analysis.end(*reasons), at_us)
            self._brief_ends_s = analysis.brief_ends_s
        return (*ended, *self._lose_contact(at_us))

    def is_calm(self, reading: Vital | Intervals) -> bool:
        """Whether a reading cannot begin or end an episode of the rate, so that it may be processed together with later ones.

        That of an irregular pulse is found after half a minute; it does not matter whether some seconds later.
        """
        if self._is_covered(self._last_us):
            return True
        if self._alerts.ongoing_alerts() or self._alerts.waits:
            return False
        low, high = self._normal_bpm
        if isinstance(reading, Vital):
            return reading.kind not in RATE_KINDS or low < reading.value < high
        return all(60 / high < tick / TICKS_PER_SECOND < 60 / low for tick in reading.ticks)

    def state(self) -> Mapping[str, Any]:
        """What must survive a restart, ready for JSON."""
        brief_ends_s = self._analysis.brief_ends_s if self._analysis else self._brief_ends_s
        return {"burden": self._burden.state(), "brief_ends_s": brief_ends_s}

    def _note_rate(self, bpm: float, at_us: int) -> None:
        """Note a rate for the end of a latched alert."""
        if not MIN_BPM <= bpm <= MAX_BPM:
            self._organised_us = None
        elif self._organised_us is None or not 0 <= at_us - self._organised_us[1] <= SILENT_S * 1e6:
            self._organised_us = at_us, at_us
        else:
            self._organised_us = self._organised_us[0], at_us

    def _lose_contact(self, at_us: int) -> tuple[Record, ...]:
        """End the alert about the contact: the sensor says nothing of it any more, or a waveform tells more."""
        said_us, self._contact_us = self._contact_us, None
        return self._to_alerts(self._no_signal.gap(said_us / 1e6), at_us) if said_us is not None else ()

    def _to_alerts(self, findings: Iterator[Finding], at_us: int) -> tuple[Record, ...]:
        return tuple(record for finding in findings for record in self._alerts.on_finding(finding, utc_s_to_us, at_us))

    def _is_covered(self, at_us: int) -> bool:
        return self._waveform_us is not None and abs(at_us - self._waveform_us) <= SILENT_S * 1e6

    def _to_records(
        self, analysis: IntervalAnalysis, findings: Iterator[Finding], at_us: int, *, values_came: bool = True
    ) -> tuple[Record, ...]:
        records = list[Record](self._to_alerts(findings, at_us))
        burden = analysis.take_burden()
        for finding in self._burden.add_total(at_us / 1e6, burden.af_s, burden.observed_s):
            records += self._alerts.on_finding(finding, utc_s_to_us, at_us)
        if values_came:
            records += self._alerts.advance(at_us, at_us, self._organised_us[0] if self._organised_us else None)
        return tuple(records)
