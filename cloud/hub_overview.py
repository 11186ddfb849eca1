"""What the clinic shows of its hubs, to the page (`/api/hubs`) and to the operator (`pulsegate-cloud hubs`)."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloud.outdated import VersionPolicy, find_policy
from cloud.scope import Scope
from cloud.store import Store
from cloud.store.hub_states import HUB_OUTDATED, HUB_SILENT, HubAlarm, HubState, list_ongoing_alarms, list_states
from sync.status import HubStatus, read_verified_status
from sync.wire import WireError

PRIORITIES: Final[Mapping[str, str]] = {HUB_SILENT: "medium", HUB_OUTDATED: "low"}
"""Priorities of the alarms (IEC 60601-1-8). Nobody watches the patient of a silent hub, so that staff must act promptly; of an
outdated one nothing is lost for months."""
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubOverview:
    """A hub with its last status, None without one, what its version allows, and the alarms about it that last."""

    state: HubState
    status: HubStatus | None
    policy: VersionPolicy
    alarms: tuple[HubAlarm, ...]


def list_hubs(store: Store, scope: Scope, now_us: int) -> list[HubOverview]:
    """Return the hubs whose patients the scope contains, in the order of their names.

    Raises:
        TransientError, PermanentError: the store failed.
    """
    with store.transaction() as connection:
        states, alarms = list_states(connection), list_ongoing_alarms(connection)
    visible = [state for state in states if scope.subjects is None or state.subject in scope.subjects]
    return [
        HubOverview(
            state,
            _read_status(state),
            find_policy(state.revision, state.outdated_us, now_us),
            tuple(alarm for alarm in alarms if alarm.hub == state.hub),
        )
        for state in visible
    ]


def hub_as_json(hub: HubOverview) -> dict[str, Any]:
    """Return what programs get of a hub. Times are of the clinic's clock, microseconds since 1970."""
    state, status = hub.state, hub.status
    return {
        "hub": state.hub,
        "subject": state.subject,
        "heard_us": state.heard_us,
        "status_us": state.status_us,
        "update_by_s": hub.policy.update_by_s,
        "is_refused": hub.policy.is_refused,
        "alarms": [_alarm_as_json(alarm) for alarm in hub.alarms],
        "status": None if status is None else _status_as_json(status, state),
    }


def _alarm_as_json(alarm: HubAlarm) -> dict[str, Any]:
    times = {"since_us": alarm.since_us, "raised_us": alarm.raised_us}
    return {"kind": alarm.kind, "priority": PRIORITIES[alarm.kind], **times}


def _status_as_json(status: HubStatus, state: HubState) -> dict[str, Any]:
    backlog = {row.lane: {"blocks": row.blocks, "oldest_s": row.oldest_s} for row in status.backlog}
    return {
        "version": status.version,
        "revision": status.revision,
        "backlog": backlog,
        "battery": status.battery and status.battery._asdict(),
        "clock_offset_us": status.clock_offset_us,
        "clock_difference_us": status.at_us - (state.status_us or 0),
        "certificate_days": status.certificate_days,
        "models": status.models,
        "free_bytes": status.free_bytes,
        "links": dict(status.links),
    }


def _read_status(state: HubState) -> HubStatus | None:
    """Return the last status; None also if it is of a version that this clinic does not read any more."""
    if state.status is None:
        return None
    try:
        return read_verified_status(state.status)
    except WireError as error:
        _log.warning("cannot read the stored status of hub %s: %s", state.hub, error)
        return None
