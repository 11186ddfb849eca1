"""The priority of each kind of alert, and which findings raise one."""

from collections.abc import Mapping
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.rules.burden import BURDEN_KEYS

PRIORITIES: Final[Mapping[str, str]] = {
    "vf": "high",
    "asystole": "high",
    "pause": "high",
    "no_beats": "medium",
    "tachycardia": "medium",
    "bradycardia": "medium",
    "af": "medium",
    "vt": "medium",
    "bp_crisis": "medium",
    "hypotension": "medium",
    "hypothermia": "medium",
    "weight_gain": "medium",
    "no_signal": "low",
    "short_pause": "low",
    "v_run": "low",
    "bigeminy": "low",
    "trigeminy": "low",
    "irregular_pulse": "low",
    "spo2_low": "low",
    "fever": "low",
    "bp_trend": "low",
    "bp_rise": "low",
    "weight_trend": "low",
    "af_burden": "low",
    "irregular_pulse_burden": "low",
    "pacing_not_visible": "low",
    "models_refused": "low",
    "buffer_nearly_full": "low",
    "buffer_damaged": "low",
    "pairing_lost": "low",
}
"""The lowest priority of an alert of each kind, by IEC 60601-1-8:2020, table 1: high where harm may come immediately, medium
where it may come within minutes, low for information only. A finding of another kind does not raise an alert."""

RANKS: Final[Mapping[str, int]] = {"low": 0, "medium": 1, "high": 2}
"""Priorities (IEC 60601-1-8), least urgent first."""


def alert_priority(finding: Finding, limits: Limits, *, is_after_high: bool = False) -> str:
    """Return the priority of a finding's alert: that of its kind, or a higher one because of what was measured.

    `is_after_high`: an alert of high priority is open, or ended a short time ago (`limits.no_signal_after_high`).
    """
    measured = finding.measured
    seconds, rate_bpm = measured.get("seconds", 0), measured.get("rate_bpm", 0)
    escalations = {
        "vt": (measured.get("beats", 0) >= limits.vt_high_beats.value or "origin_unknown" in measured, "high"),
        "tachycardia": (rate_bpm >= limits.tachycardia_critical.value, "high"),
        "bradycardia": (rate_bpm <= limits.bradycardia_critical.value and "rate_bpm" in measured, "high"),
        "no_beats": (seconds >= limits.no_beats_high.value, "high"),
        "no_signal": (is_after_high or seconds >= limits.no_signal_medium.value, "medium"),
        "bp_crisis": (measured.get("readings", 0) >= limits.crisis_confirmed.value, "high"),
        "fever": (measured.get("limit_celsius", 0) >= limits.high_fever.value, "medium"),
    }
    if finding.kind == "spo2_low":
        limit = measured.get("limit_percent", 100)
        return "high" if limit <= limits.spo2_critical.value else "medium" if limit <= limits.spo2_very_low.value else "low"
    is_escalated, higher_priority = escalations.get(finding.kind, (False, ""))
    return higher_priority if is_escalated else PRIORITIES[finding.kind]


def higher_priority(one: str, other: str) -> str:
    """Return the more urgent of two priorities."""
    return max(one, other, key=RANKS.__getitem__)


def raises_alert(finding: Finding) -> bool:
    """Return whether a person must see the finding: it is conclusive and, for a burden, at or above its limit."""
    if finding.inconclusive or finding.kind not in PRIORITIES:
        return False
    share = BURDEN_KEYS.get(finding.kind)
    return share is None or finding.measured[share] >= finding.measured["limit_percent"]
