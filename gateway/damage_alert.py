"""The technical alert that the buffer was damaged. It lasts until the next start that finds no damage."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.hub_alerts import end_hub_alert, hub_alert_state, load_hub_alert, make_hub_alert
from sync.outbox import SALVAGE_STATE
from sync.records import AlertRecord

DAMAGE_ALERT_KIND: Final = "buffer_damaged"
DAMAGE_STATE_KEY: Final = SALVAGE_STATE
"""The key in the buffer's state: after a salvage it holds the report, afterwards the ongoing alert."""


def update_damage_alert(
    saved: Mapping[str, Any] | None, now_us: int
) -> tuple[tuple[AlertRecord, ...], Mapping[str, Any] | None]:
    """Raises the alert after a salvage, and ends it at the next start; called once at each start.

    Args:
        saved: the state under `DAMAGE_STATE_KEY`; None if there is none.
        now_us: the time of the decision, in microseconds since 1970.

    Returns:
        The records for the clinic, and the state to store with them; None if nothing changes.
    """
    report = (saved or {}).get("salvaged")
    if report is not None:
        measured = {"blocks_kept": float(report["kept"]), "blocks_lost": float(report["lost"])}
        alert = make_hub_alert(DAMAGE_ALERT_KIND, f"rule:{DAMAGE_ALERT_KIND}", now_us=now_us, measured=measured)
        return (alert,), hub_alert_state(alert)
    ongoing = load_hub_alert(saved)
    return ((end_hub_alert(ongoing, now_us),), hub_alert_state(None)) if ongoing else ((), None)
