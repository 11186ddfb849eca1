"""Technical alerts, which stay ongoing across restarts: refused models, a buffer that is nearly full, a lost pairing."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from gateway.alerts import make_alert_id
from gateway.priorities import PRIORITIES
from sync.records import AlertRecord

HUB_SENSOR: Final = "hub"
"""The `sensor` of the alerts that concern the hub itself."""


def make_hub_alert(
    kind: str,
    source: str,
    *,
    now_us: int,
    onset_us: int | None = None,
    reasons: tuple[str, ...] = (),
    measured: Mapping[str, float] | None = None,
    sensor: str = HUB_SENSOR,
) -> AlertRecord:
    """An ongoing technical alert.

    Args:
        kind: a key of `PRIORITIES`.
        source: the rule that raised it.
        now_us: the time of the decision, in microseconds since 1970.
        onset_us: the onset; by default `now_us`.
        reasons: further reason keys, after that of the criterion.
        measured: the numbers behind the reasons.
        sensor: the sensor that it concerns; by default the hub itself.
    """
    onset_us = now_us if onset_us is None else onset_us
    return AlertRecord(
        id=make_alert_id(sensor, kind, onset_us),
        sensor=sensor,
        kind=kind,
        priority=PRIORITIES[kind],
        onset_us=onset_us,
        end_us=None,
        decided_us=now_us,
        source=source,
        reasons=(f"{kind}.criterion", *reasons),
        measured=measured,
    )


def end_hub_alert(alert: AlertRecord, now_us: int, *reasons: str) -> AlertRecord:
    """The end of an ongoing alert, with additional reason keys."""
    end_us = max(alert.onset_us, now_us)
    return replace(alert, end_us=end_us, decided_us=now_us, reasons=(*alert.reasons, *reasons))


def hub_alert_state(alert: AlertRecord | None) -> Mapping[str, Any]:
    """The state from which `load_hub_alert` restores the ongoing alert, ready for JSON."""
    return {"alert": asdict(alert) if alert else None}


def load_hub_alert(saved: Mapping[str, Any] | None) -> AlertRecord | None:
    """The ongoing alert in a stored state; None if there is none."""
    ongoing = (saved or {}).get("alert")
    return replace(AlertRecord(**ongoing), reasons=tuple(ongoing["reasons"])) if ongoing else None
