"""Turns findings into alerts: those that a person must see, with their priority, reasons and ECG strip."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from config.limits import DEFAULT_LIMITS, Limits
from models.analysis import EcgAnalysis
from models.beat_labels import LabelledBeat
from models.findings import Finding
from models.rules.rate_limiter import RANKS, AlarmRateLimiter
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
    "buffer_nearly_full": "low",
    "buffer_damaged": "low",
    "pairing_lost": "low",
}
"""The lowest priority of an alert of each kind, by IEC 60601-1-8:2020, table 1: high where harm may come immediately, medium
where it may come within minutes, low for information only. A finding of another kind does not raise an alert."""
SUPPRESSED_REASON: Final = "repeat.held"
"""The reason key of an alert before which others of its kind were suppressed; `measured["held"]` is their number."""
SENSOR_REMOVED_REASON: Final = "ended.sensor_removed"
"""The reason key of an alert that ended because its sensor is no longer in the settings under this name."""
SUBJECT_CHANGED_REASON: Final = "ended.subject_changed"
"""The reason key of an alert that ended because the hub now serves another subject."""
CLOSED_REASON: Final = "ended.closed_by_clinic"
"""The reason key of an alert that ended because the clinic closed it; `measured["command"]` is the number of the command."""
FALSE_REASON: Final = "ended.marked_false"
"""Likewise because the clinic marked it as false."""
MAX_CLOSED: Final = 64
"""Closed alerts of one tracker whose episodes are remembered. Beyond it the oldest would raise alerts again."""
LATE_REASON: Final = "late.received"
"""The reason key of an alert about a result that reached the hub long after it was measured."""
UNKNOWN_TIME_REASON: Final = "late.unknown_time"
"""The reason key of an alert about a stored result whose time is not known."""
UNCONFIRMED_REASON: Final = "person.unconfirmed"
"""The reason key of an alert about a result that may be another person's."""
STRIP_BEFORE_S: Final = 3.0
"""Normal beats before the onset, for comparison: three at 60/min."""
MAX_STRIP_S: Final = 12.0
"""An ECG page shows 10 s a row at 25 mm/s; two more seconds show how the episode continued."""
STRIP_SCALE_MV: Final = 0.001
"""Millivolts per unit of a strip's samples: 1 microvolt, finer than the resolution of any supported sensor."""

ToUtcUs = Callable[[float], int]
"""Converts the seconds of a finding to the hub's UTC time in microseconds."""


def make_alert_id(sensor: str, kind: str, onset_us: int) -> str:
    """The id of an alert: the first 24 hex digits of the SHA-256 of its sensor, kind and onset.

    All records of one episode have the same id, also after a restart. Ids are stored and sent, so this must not change.
    """
    return hashlib.sha256(f"{sensor}|{kind}|{onset_us}".encode()).hexdigest()[:24]


def end_saved_alerts(saved: Mapping[str, Any], now_us: int, reason: str | None = None) -> tuple[AlertRecord, ...]:
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


def alert_priority(finding: Finding, limits: Limits) -> str:
    """The priority of a finding's alert: that of its kind, or a higher one because of what was measured."""
    measured = finding.measured
    escalations = {
        "vt": (measured.get("beats", 0) >= limits.vt_high_beats.value, "high"),
        "bp_crisis": (measured.get("readings", 0) >= limits.crisis_confirmed.value, "high"),
        "fever": (measured.get("limit_celsius", 0) >= limits.high_fever.value, "medium"),
    }
    if finding.kind == "spo2_low":
        limit = measured.get("limit_percent", 100)
        return "high" if limit <= limits.spo2_critical.value else "medium" if limit <= limits.spo2_very_low.value else "low"
    is_escalated, higher_priority = escalations.get(finding.kind, (False, ""))
    return higher_priority if is_escalated else PRIORITIES[finding.kind]


def raises_alert(finding: Finding) -> bool:
    """Whether a person must see the finding: it is conclusive and, for an AF burden, at or above its limit."""
    if finding.inconclusive or finding.kind not in PRIORITIES:
        return False
    measured = finding.measured
    return finding.kind != "af_burden" or measured["af_percent"] >= measured["limit_percent"]


class AlertTracker:
    """Turns the findings of one sensor into finding and alert records, and tracks the episodes that are in progress.

    An episode keeps the id and onset of its first alert and the highest priority that it had. An episode that begins too soon
    after another of its kind is suppressed by the rate limiter: its findings are recorded, and its alert is sent later if the
    episode is then still in progress.

    When the clinic closes an alert, the rest of its episode raises none, unless its priority rises: that is a new alert.
    """

    def __init__(
        self,
        sensor: str,
        limits: Limits = DEFAULT_LIMITS,
        limiter_state: Mapping[str, Any] | None = None,
        closed: Mapping[str, str] | None = None,
    ) -> None:
        """`limiter_state` and `closed` are what an earlier tracker of this sensor returned of itself."""
        self._sensor = sensor
        self._limits = limits
        self._limiter = AlarmRateLimiter(limits, limiter_state)
        self._open: dict[tuple[str, float], AlertRecord] = {}
        self._suppressed: dict[tuple[str, float], AlertRecord] = {}
        self._closed: dict[tuple[str, float], AlertRecord] = {}
        self._closed_ids = dict(closed or {})
        """The ids of the closed alerts whose episodes last, with their priorities; also those of earlier trackers."""

    def ongoing_alerts(self) -> tuple[AlertRecord, ...]:
        """The alerts whose episodes have not ended, without their strips."""
        return tuple(self._open.values())

    @property
    def has_suppressed(self) -> bool:
        """Whether an alert that was not sent waits for `end_suppression`."""
        return bool(self._suppressed)

    def limiter_state(self) -> Mapping[str, Any]:
        """The rate limiter's state, which must survive a restart, ready for JSON."""
        return self._limiter.state()

    def closed(self) -> Mapping[str, str]:
        """The closed alerts whose episodes may last, which must survive a restart, ready for JSON."""
        return dict(self._closed_ids)

    def close(self, id_: str, now_us: int, reason: str, command: int) -> AlertRecord | None:
        """End an open alert because the clinic commands it; None if no alert of this id is open here.

        Args:
            id_: the alert.
            now_us: the hub's UTC time.
            reason: `CLOSED_REASON` or `FALSE_REASON`.
            command: the number of the command, by which the clinic's audit log names the person.
        """
        key = next((key for key, alert in self._open.items() if alert.id == id_), None)
        if key is None:
            return None
        alert = self._open.pop(key)
        end_us = max(alert.onset_us, now_us)
        self._limiter.end_episode(alert.kind, end_us)
        self._closed[key] = alert
        self._closed_ids[id_] = alert.priority
        for oldest in list(self._closed_ids)[:-MAX_CLOSED]:
            del self._closed_ids[oldest]
        measured = {**(alert.measured or {}), "command": float(command)}
        return replace(alert, end_us=end_us, decided_us=now_us, reasons=(*alert.reasons, reason), measured=measured)

    def on_finding(
        self,
        finding: Finding,
        to_utc_us: ToUtcUs,
        decided_us: int,
        analysis: EcgAnalysis | None = None,
        beats: tuple[LabelledBeat, ...] = (),
        marks: tuple[str, ...] = (),
    ) -> tuple[FindingRecord | AlertRecord, ...]:
        """Returns the finding's record and, if there is one to send, its alert.

        `beats` are the latest beats, for the strip. Without an `analysis` the alert has no strip. `decided_us` is explained in
        `AlertRecord`. `marks` are further reason keys; the first alert of an episode with one is never suppressed.
        """
        key = finding.kind, finding.onset_s
        known = self._open.get(key) or self._suppressed.get(key) or self._closed.get(key)
        onset_us = known.onset_us if known else to_utc_us(finding.onset_s)
        end_us = None if finding.end_s is None else max(to_utc_us(finding.end_s), onset_us)
        record = FindingRecord(
            self._sensor,
            finding.kind,
            onset_us,
            end_us,
            finding.source,
            finding.probability,
            finding.inconclusive,
            finding.measured,
        )
        if not raises_alert(finding):
            return (record,)
        alert = AlertRecord(
            id=make_alert_id(self._sensor, finding.kind, onset_us),
            sensor=self._sensor,
            kind=finding.kind,
            priority=alert_priority(finding, self._limits),
            onset_us=onset_us,
            end_us=end_us,
            decided_us=decided_us,
            source=finding.source,
            reasons=(f"{finding.kind}.criterion", *marks),
            probability=finding.probability,
            measured=finding.measured,
            strip=cut_strip(finding, to_utc_us, analysis, beats)
            if analysis and (known is None or _needs_new_strip(finding))
            else None,
        )
        if alert.id in self._closed_ids:
            return (record, *self._on_closed(key, alert))
        return (record, *self._on_alert(key, alert, is_marked=bool(marks)))

    def end_suppression(self, now_us: int, decided_us: int) -> tuple[AlertRecord, ...]:
        """Returns the suppressed alerts that must now be sent, because their episodes still last at `now_us` of the stream.

        Must be called at fixed times of the stream, so the result does not depend on how the stream was divided into chunks.
        """
        if not self._suppressed:
            return ()
        due = [
            key
            for key, alert in self._suppressed.items()
            if not self._limiter.is_suppressed(alert.kind, alert.priority, now_us)
        ]
        return tuple(
            self._send_first(key, replace(self._suppressed.pop(key), decided_us=decided_us), was_suppressed=True) for key in due
        )

    def _on_alert(self, key: tuple[str, float], alert: AlertRecord, *, is_marked: bool) -> tuple[AlertRecord, ...]:
        if key in self._open:
            return (self._update(key, alert),)
        suppressed = self._suppressed.pop(key, None)
        if suppressed is not None:
            alert = replace(alert, priority=_higher_priority(alert, suppressed), strip=alert.strip or suppressed.strip)
        if is_marked and alert.end_us is not None:  # of the past, or of another person: no reason to suppress later ones
            return (alert,)
        if is_marked or not self._limiter.is_suppressed(alert.kind, alert.priority, alert.onset_us):
            return (self._send_first(key, alert, was_suppressed=suppressed is not None),)
        if suppressed is None:
            self._limiter.suppress(alert.kind)
        if alert.end_us is None:
            self._suppressed[key] = alert
        return ()

    def _on_closed(self, key: tuple[str, float], alert: AlertRecord) -> tuple[AlertRecord, ...]:
        """A finding of an episode whose alert was closed: it raises a new alert if it is more urgent than the closed one."""
        if RANKS[alert.priority] <= RANKS[self._closed_ids[alert.id]]:
            if alert.end_us is not None:
                self._forget_closed(key, alert.id)
            return ()
        self._forget_closed(key, alert.id)
        onset_us = max(alert.decided_us, alert.onset_us + 1)  # another id than that of the closed alert
        end_us = None if alert.end_us is None else max(alert.end_us, onset_us)
        new = replace(alert, id=make_alert_id(self._sensor, alert.kind, onset_us), onset_us=onset_us, end_us=end_us)
        return (self._send_first(key, new, was_suppressed=False),)

    def _forget_closed(self, key: tuple[str, float], id_: str) -> None:
        self._closed.pop(key, None)
        self._closed_ids.pop(id_, None)

    def _send_first(self, key: tuple[str, float], alert: AlertRecord, *, was_suppressed: bool) -> AlertRecord:
        """Returns the first alert of an episode. An alert that was suppressed before was also counted, so it is subtracted."""
        count = self._limiter.emit(alert.kind, alert.priority, alert.onset_us) - int(was_suppressed)
        if count:
            measured = {**(alert.measured or {}), "held": float(count)}
            alert = replace(alert, reasons=(*alert.reasons, SUPPRESSED_REASON), measured=measured)
        self._remember(key, alert)
        return alert

    def _update(self, key: tuple[str, float], alert: AlertRecord) -> AlertRecord:
        """A later alert of an episode whose first alert was sent."""
        first = self._open[key]
        count = {"held": first.measured["held"]} if first.measured and "held" in first.measured else {}
        priority = _higher_priority(alert, first)
        alert = replace(alert, priority=priority, reasons=first.reasons, measured={**(alert.measured or {}), **count})
        if priority != first.priority:
            self._limiter.escalate(alert.kind, priority)
        self._remember(key, alert)
        return alert

    def _remember(self, key: tuple[str, float], alert: AlertRecord) -> None:
        if alert.end_us is None:
            self._open[key] = replace(alert, strip=None)
        else:
            self._open.pop(key, None)
            self._limiter.end_episode(alert.kind, alert.end_us)


def _higher_priority(alert: AlertRecord, earlier: AlertRecord) -> str:
    return max(alert.priority, earlier.priority, key=RANKS.__getitem__)


def _needs_new_strip(finding: Finding) -> bool:
    """Whether a strip cut now shows more than the first one: the episode continues, was short, or is a pause."""
    longest_after_onset_s = MAX_STRIP_S - STRIP_BEFORE_S
    return finding.end_s is None or finding.kind == "pause" or finding.end_s - finding.onset_s <= longest_after_onset_s


def cut_strip(finding: Finding, to_utc_us: ToUtcUs, analysis: EcgAnalysis, beats: tuple[LabelledBeat, ...]) -> Strip | None:
    """The latest ECG of a finding, at most 12 s; None if no signal is left in the buffer."""
    until_s = analysis.chain.end_s
    from_s = max(finding.onset_s - STRIP_BEFORE_S, until_s - MAX_STRIP_S)
    start_s, mv = analysis.chain.strip(from_s, until_s)
    if not mv.size:
        return None
    samples = np.round(np.nan_to_num(mv) / STRIP_SCALE_MV).astype(np.int32)
    shown = [beat for beat in beats if beat.t_s >= start_s]
    beats_us, labels = tuple(to_utc_us(beat.t_s) for beat in shown), "".join(beat.label for beat in shown)
    return Strip(to_utc_us(start_s), RATE_HZ, STRIP_SCALE_MV, samples, beats_us, labels)
