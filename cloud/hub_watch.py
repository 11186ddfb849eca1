"""Raises the clinic's alarms about hubs that are silent or outdated, and ends them.

Silence is measured by a monotonic clock, so that a step of the clinic's clock raises no alarm and hides none. What outlives a
restart is in the store: when each hub was last heard, and the alarms that last. A restart therefore raises no alarm twice.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from sqlalchemy import Connection

from cloud.check_message import Registry, subjects_now
from cloud.metrics import HUBS
from cloud.store import Store
from cloud.store.erasure import list_erased
from cloud.store.hub_states import (
    HUB_OUTDATED,
    HUB_SILENT,
    HubAlarm,
    HubState,
    end_alarm,
    list_ongoing_alarms,
    list_states,
    note_known,
    note_outdated,
    raise_alarm,
)
from sync.errors import TransientError
from sync.transport import WorkerCall

SILENT_AFTER_S: Final = 300.0
"""A hub is silent after so long without anything new: five statuses are missing. A router that restarts takes two minutes."""
CHECK_INTERVAL_S: Final = 10.0
"""How often the hubs are looked at: an alarm comes at most so much later."""
RETURN_S: Final = 90.0
"""After its start the clinic waits so long for a hub that is silent already: a hub connects again within 30 s
(`sync.mqtt_backoff`), and sends a status at once or within another 60 s. While the clinic was down, no hub could be heard."""
_US_PER_S: Final = 1_000_000
_log: Final = logging.getLogger(__name__)


class HubRegistry(Registry, Protocol):
    """The registered hubs, with a list of them."""

    def hubs(self) -> tuple[str, ...]: ...


@dataclass(slots=True)
class _Watched:
    """A hub: when it was last heard by the clinic's clock, and when it is silent or outdated by the monotonic one."""

    sign_us: int
    silent_at_s: float
    status_due_s: float | None = None
    """When a hub that sends blocks and never sent a status is outdated; None if it has sent a status or no block yet."""


class HubWatch:
    """Watches the registered hubs that have a patient now. `clock_s` is monotonic; one thread at a time may call `check`."""

    def __init__(self, store: Store, registry: HubRegistry, clock_s: Callable[[], float], now_us: Callable[[], int]) -> None:
        self._store = store
        self._registry = registry
        self._clock_s = clock_s
        self._now_us = now_us
        self._watched: dict[str, _Watched] = {}

    async def run(self, call: WorkerCall = asyncio.to_thread) -> NoReturn:
        """Check the hubs until cancelled.

        Raises:
            PermanentError: the store is damaged.
        """
        while True:
            try:
                await call(self.check)
            except TransientError as error:
                _log.warning("cannot check whether hubs are silent, will try again: %s", error)
            await asyncio.sleep(CHECK_INTERVAL_S)

    def check(self) -> None:
        """Raise and end alarms.

        Raises:
            TransientError, PermanentError: the store failed; the next call makes up for it.
        """
        now_us, now_s = self._now_us(), self._clock_s()
        subjects = {hub: subjects_now(hub, self._registry, now_us // _US_PER_S) for hub in self._registry.hubs()}
        with self._store.transaction() as connection:
            erased = list_erased(connection)
            subjects = {hub: found - erased for hub, found in subjects.items()}
            states = {state.hub: state for state in list_states(connection)}
            for hub, found in subjects.items():
                subject = min(found, default=None)
                if hub not in states or states[hub].subject != subject:
                    note_known(connection, hub, subject, now_us)
            active = [state for state in list_states(connection) if subjects.get(state.hub)]
            ongoing = {(alarm.hub, alarm.kind): alarm for alarm in list_ongoing_alarms(connection)}
            self._forget(active)
            for state in active:
                watched = self._watch(state, now_s, now_us)
                self._check_silence(connection, state, ongoing.pop((state.hub, HUB_SILENT), None), watched, now_s, now_us)
                self._check_version(connection, state, ongoing.pop((state.hub, HUB_OUTDATED), None), watched, now_s, now_us)
            for alarm in ongoing.values():  # hubs that are not registered any more, or have no patient
                end_alarm(connection, alarm, now_us)
            alarms = Counter(alarm.kind for alarm in list_ongoing_alarms(connection))
        HUBS.labels("registered").set(len(active))
        HUBS.labels("silent").set(alarms[HUB_SILENT])
        HUBS.labels("outdated").set(alarms[HUB_OUTDATED])

    def _forget(self, active: Iterable[HubState]) -> None:
        names = {state.hub for state in active}
        self._watched = {hub: watched for hub, watched in self._watched.items() if hub in names}

    def _watch(self, state: HubState, now_s: float, now_us: int) -> _Watched:
        """Return when the hub is silent: counted from the first sight of what was last heard of it."""
        watched, sign_us = self._watched.get(state.hub), state.last_sign_us
        if watched is None:
            age_s = max(0.0, (now_us - sign_us) / _US_PER_S)
            watched = _Watched(sign_us, now_s + max(RETURN_S, SILENT_AFTER_S - age_s))
        elif watched.sign_us != sign_us:
            watched.sign_us, watched.silent_at_s = sign_us, now_s + SILENT_AFTER_S
        if state.status is not None or state.heard_us is None:
            watched.status_due_s = None
        elif watched.status_due_s is None:
            watched.status_due_s = now_s + SILENT_AFTER_S
        self._watched[state.hub] = watched
        return watched

    def _check_silence(
        self,
        connection: Connection,
        state: HubState,
        alarm: HubAlarm | None,
        watched: _Watched,
        now_s: float,
        now_us: int,
    ) -> None:
        if alarm is not None and alarm.since_us != state.last_sign_us:  # it was heard since
            end_alarm(connection, alarm, now_us)
            _log.info("hub %s is heard again", state.hub)
        elif (
            alarm is None
            and now_s >= watched.silent_at_s
            and raise_alarm(connection, state.hub, HUB_SILENT, state.last_sign_us, now_us)
        ):
            _log.warning(
                "hub %s is silent: nothing came for %d minutes; check its power, its network and its agent",
                state.hub,
                SILENT_AFTER_S // 60,
            )

    def _check_version(
        self,
        connection: Connection,
        state: HubState,
        alarm: HubAlarm | None,
        watched: _Watched,
        now_s: float,
        now_us: int,
    ) -> None:
        since_us = state.outdated_us
        if since_us is None and watched.status_due_s is not None and now_s >= watched.status_due_s:
            note_outdated(connection, state.hub, now_us)
            since_us = now_us
        if since_us is None and alarm is not None:
            end_alarm(connection, alarm, now_us)
        if since_us is not None and alarm is None and raise_alarm(connection, state.hub, HUB_OUTDATED, since_us, now_us):
            _log.warning("hub %s runs an outdated pulsegate: update it", state.hub)
