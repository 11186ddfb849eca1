"""From findings to alerts: which ones a person must see, how urgently, why, and the strip that shows it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from config.limits import DEFAULT_LIMITS, Limits
from models.analysis import EcgAnalysis
from models.beat_labels import LabelledBeat
from models.findings import Finding
from models.rules.flood import RANKS, FloodGuard
from models.signal.resample import RATE_HZ
from sync.records import AlertRecord, FindingRecord, Strip

PRIORITIES: Final[Mapping[str, str]] = {
    "pause": "high",
    "tachycardia": "medium",
    "bradycardia": "medium",
    "af": "medium",
    "vt": "medium",
    "bp_crisis": "medium",
    "hypotension": "medium",
    "hypothermia": "medium",
    "weight_gain": "medium",
    "short_pause": "low",
    "v_run": "low",
    "bigeminy": "low",
    "trigeminy": "low",
    "irregular_pulse": "low",
    "spo2_low": "low",
    "fever": "low",
    "bp_trend": "low",
    "bp_rise": "low",
    "af_burden": "low",
    "models_refused": "low",
}
"""The least urgent an alert of each kind is. IEC 60601-1-8:2020, table 1: high where harm may come at once, medium where it may
come within minutes, low for what only has to be known. A finding of another kind raises no alert."""
HELD: Final = "repeat.held"
"""The reason that says how many alerts of the kind were held back before this one."""
STRIP_BEFORE_S: Final = 3.0
"""Normal beats before the onset, to compare with: three at 60/min."""
STRIP_LONGEST_S: Final = 12.0
"""An ECG page shows 10 s a row at 25 mm/s; two more tell how it went on."""
STRIP_SCALE: Final = 0.001
"""mV in one unit of a strip's samples: 1 microvolt, finer than any of our sensors."""

ToTime = Callable[[float], int]
"""The seconds of a finding to the hub's UTC time in microseconds."""


def priority(finding: Finding, limits: Limits) -> str:
    """How urgent a finding is: what it measured may make it more urgent than its kind."""
    measured = finding.measured
    urgent = {
        "vt": (measured.get("beats", 0) >= limits.vt_high_beats.value, "high"),
        "bp_crisis": (measured.get("readings", 0) >= limits.crisis_confirmed.value, "high"),
        "fever": (measured.get("limit_celsius", 0) >= limits.high_fever.value, "medium"),
    }
    if finding.kind == "spo2_low":
        limit = measured.get("limit_percent", 100)
        return "high" if limit <= limits.spo2_critical.value else "medium" if limit <= limits.spo2_very_low.value else "low"
    is_urgent, risen = urgent.get(finding.kind, (False, ""))
    return risen if is_urgent else PRIORITIES[finding.kind]


def raises(finding: Finding) -> bool:
    """Whether a person must see it: not what is inconclusive, and no AF burden below its limit."""
    if finding.inconclusive or finding.kind not in PRIORITIES:
        return False
    measured = finding.measured
    return finding.kind != "af_burden" or measured["af_percent"] >= measured["limit_percent"]


class AlertBook:
    """Turns the findings of one sensor into records.

    An episode keeps the id and the onset of its first alert, and the highest priority it had. An episode that begins too soon
    after another of its kind is held back (`FloodGuard`): its findings are recorded, and it is told later if it still goes on.
    """

    def __init__(self, sensor: str, limits: Limits = DEFAULT_LIMITS, flood: Mapping[str, Any] | None = None) -> None:
        """`flood` is what an earlier book of this sensor said last."""
        self._sensor = sensor
        self._limits = limits
        self._guard = FloodGuard(limits, flood)
        self._open: dict[tuple[str, float], AlertRecord] = {}
        self._held: dict[tuple[str, float], AlertRecord] = {}

    def ongoing(self) -> tuple[AlertRecord, ...]:
        """The alerts whose episodes have not ended, without their strips."""
        return tuple(self._open.values())

    def flood(self) -> Mapping[str, Any]:
        """What must outlast a restart, ready for JSON."""
        return self._guard.state()

    def records(
        self,
        finding: Finding,
        to_time: ToTime,
        decided_us: int,
        analysis: EcgAnalysis | None = None,
        beats: tuple[LabelledBeat, ...] = (),
    ) -> tuple[FindingRecord | AlertRecord, ...]:
        """The finding for the record and, where there is one, the alert for the clinician.

        `beats` are the latest, for the strip; without an `analysis` there is none to show.
        """
        key = finding.kind, finding.onset_s
        known = self._open.get(key) or self._held.get(key)
        onset_us = known.onset_us if known else to_time(finding.onset_s)
        end_us = None if finding.end_s is None else max(to_time(finding.end_s), onset_us)
        stated = FindingRecord(
            self._sensor,
            finding.kind,
            onset_us,
            end_us,
            finding.source,
            finding.probability,
            finding.inconclusive,
            finding.measured,
        )
        if not raises(finding):
            return (stated,)
        alert = AlertRecord(
            id=hashlib.sha256(f"{self._sensor}|{finding.kind}|{onset_us}".encode()).hexdigest()[:24],
            sensor=self._sensor,
            kind=finding.kind,
            priority=priority(finding, self._limits),
            onset_us=onset_us,
            end_us=end_us,
            decided_us=decided_us,
            source=finding.source,
            reasons=(f"{finding.kind}.criterion",),
            probability=finding.probability,
            measured=finding.measured,
            strip=strip(finding, to_time, analysis, beats) if analysis and (known is None or _shows(finding)) else None,
        )
        return (stated, *self._told(key, alert))

    def released(self, until_us: int, decided_us: int) -> tuple[AlertRecord, ...]:
        """Alerts that were held back, whose episodes go on, and that may be told now that the stream stands at `until_us`.

        To be asked at fixed times of the stream: what is told must not depend on how it was cut into pieces.
        """
        free = [key for key, alert in self._held.items() if not self._guard.waits(alert.kind, alert.priority, until_us)]
        return tuple(self._tell(key, replace(self._held.pop(key), decided_us=decided_us), 1) for key in free)

    def _told(self, key: tuple[str, float], alert: AlertRecord) -> tuple[AlertRecord, ...]:
        if key in self._open:
            return (self._go_on(key, alert),)
        before = self._held.pop(key, None)
        if before is not None:
            alert = replace(alert, priority=_more_urgent(alert, before), strip=alert.strip or before.strip)
        if not self._guard.waits(alert.kind, alert.priority, alert.onset_us):
            return (self._tell(key, alert, int(before is not None)),)
        if before is None:
            self._guard.hold(alert.kind)
        if alert.end_us is None:
            self._held[key] = alert
        return ()

    def _tell(self, key: tuple[str, float], alert: AlertRecord, itself: int) -> AlertRecord:
        """The first alert of an episode; `itself` is 1 where it is among those that were held back."""
        held = self._guard.tell(alert.kind, alert.priority, alert.onset_us) - itself
        if held:
            alert = replace(alert, reasons=(*alert.reasons, HELD), measured={**(alert.measured or {}), "held": float(held)})
        self._keep(key, alert)
        return alert

    def _go_on(self, key: tuple[str, float], alert: AlertRecord) -> AlertRecord:
        """A later word on an episode that was told."""
        first = self._open[key]
        held = {"held": first.measured["held"]} if first.measured and "held" in first.measured else {}
        urgent = _more_urgent(alert, first)
        alert = replace(alert, priority=urgent, reasons=first.reasons, measured={**(alert.measured or {}), **held})
        if urgent != first.priority:
            self._guard.rise(alert.kind, urgent)
        self._keep(key, alert)
        return alert

    def _keep(self, key: tuple[str, float], alert: AlertRecord) -> None:
        if alert.end_us is None:
            self._open[key] = replace(alert, strip=None)
        else:
            self._open.pop(key, None)
            self._guard.end(alert.kind, alert.end_us)


def _more_urgent(alert: AlertRecord, before: AlertRecord) -> str:
    return max(alert.priority, before.priority, key=RANKS.__getitem__)


def _shows(finding: Finding) -> bool:
    """Whether a strip as of now shows more than an earlier one: while it goes on, and when it was short or a pause."""
    whole_s = STRIP_LONGEST_S - STRIP_BEFORE_S
    return finding.end_s is None or finding.kind == "pause" or finding.end_s - finding.onset_s <= whole_s


def strip(finding: Finding, to_time: ToTime, analysis: EcgAnalysis, beats: tuple[LabelledBeat, ...]) -> Strip | None:
    """The latest stretch of ECG behind a finding, at most 12 s; None where none is left."""
    until_s = analysis.chain.end_s
    from_s = max(finding.onset_s - STRIP_BEFORE_S, until_s - STRIP_LONGEST_S)
    start_s, mv = analysis.chain.strip(from_s, until_s)
    if not mv.size:
        return None
    samples = np.round(np.nan_to_num(mv) / STRIP_SCALE).astype(np.int32)
    shown = [beat for beat in beats if beat.t_s >= start_s]
    marks, labels = tuple(to_time(beat.t_s) for beat in shown), "".join(beat.label for beat in shown)
    return Strip(to_time(start_s), RATE_HZ, STRIP_SCALE, samples, marks, labels)
