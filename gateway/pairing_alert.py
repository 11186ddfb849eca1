"""The technical alert that a sensor has forgotten its pairing, ongoing until it is paired again, also after a restart."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.hub_alerts import end_hub_alert, hub_alert_state, load_hub_alert, make_hub_alert
from sync.records import AlertRecord

PAIRING_ALERT_KIND: Final = "pairing_lost"
PAIRING_STATE_PREFIX: Final = "pairing "
"""The name of a sensor follows it; see `pairing_key`."""


def pairing_key(sensor: str) -> str:
    """The key in the buffer's state under which a sensor's ongoing alert is stored."""
    return f"{PAIRING_STATE_PREFIX}{sensor}"


def update_pairing_alert(
    sensor: str, saved: Mapping[str, Any] | None, now_us: int, *, is_forgotten: bool
) -> tuple[tuple[AlertRecord, ...], Mapping[str, Any]]:
    """Begin or end the alert of a sensor. Call it at a `StaleBondError`, and at each start with what `paired_sensors` knows.

    Args:
        sensor: its name in the settings.
        saved: the state that was last stored under `pairing_key(sensor)`; None if there is none.
        now_us: the time of the decision, in microseconds since 1970.
        is_forgotten: whether the sensor has forgotten its pairing and was not paired again.

    Returns:
        The records for the clinic, and the state to store with them.
    """
    ongoing = load_hub_alert(saved)
    if is_forgotten and ongoing is None:
        alert = make_hub_alert(PAIRING_ALERT_KIND, f"rule:{PAIRING_ALERT_KIND}", now_us=now_us, sensor=sensor)
        return (alert,), hub_alert_state(alert)
    if not is_forgotten and ongoing is not None:
        return (end_hub_alert(ongoing, now_us),), hub_alert_state(None)
    return (), hub_alert_state(ongoing)
