"""What the agent writes to the hub's audit log. A log that cannot be written never stops the agent: the patient needs it."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NoReturn

from config.egress import take_refused_endpoints
from config.settings import Settings
from config.version import VERSION
from gateway.audit_log import AuditLog
from gateway.clock import Clock
from gateway.models import LoadedModels
from sync.audit import Action, AuditEvent, Category, Outcome, Purpose, object_id
from sync.audit_heads import SiteAudit, hub_audit_to_bytes
from sync.cbor import encode_cbor
from sync.errors import SyncError
from sync.refused_endpoints import endpoint_events
from sync.registration import Registration
from sync.signing import SigningKey
from sync.transport import WorkerCall

MAX_WAITING: Final = 100
"""Events that wait while the log cannot be written; later ones are counted. A hub has a few events a day."""
ENDPOINT_INTERVAL_S: Final = 10.0
"""How often refused endpoints are written to the log: a library that tries again and again must not fill it."""
CLOCK_INTERVAL_S: Final = 10.0
"""How often the two clocks are compared."""
CLOCK_JUMP_US: Final = 60 * 1_000_000
"""A wall clock that moves so far against the monotonic one was set. A time server corrects less than a second at once."""
CLOCK_QUIET_S: Final = 3600.0
"""At most one row about the clock in this time: a false time server must not fill the log. The row counts the jumps."""

log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class AgentAudit:
    """Writes the agent's events. Call the methods, except `watch_clock`, on the storage thread."""

    log: AuditLog
    registration: Registration
    _waiting: list[AuditEvent] = field(default_factory=list)
    _left_out: int = 0

    def note_start(self, settings: Settings, models: LoadedModels) -> None:
        """Log the start, and what changed since the last one: settings, registration, models."""
        agent = self.log.agent()
        self._try(self.log.replace_if_damaged)
        events = [AuditEvent(agent, Action.START, Category.SERVICE, None, (object_id("version", VERSION),))]
        if models.refused:
            cause = (object_id("cause", models.cause),)
            refused = AuditEvent(agent, Action.REFUSE_MODELS, Category.MODELS, None, cause, Purpose.SECURITY, Outcome.REFUSED)
            events.append(refused)
        self.append(*events)
        self._note_value("settings", _digest(repr(settings)), Action.CHANGE_SETTINGS, Category.SETTINGS, settings.subject)
        release = str(models.release or models.cause)
        self._note_value("models", release, Action.CHANGE_MODELS, Category.MODELS, settings.subject)
        self.note_registration(self.registration, settings.subject)

    def note_registration(self, registration: Registration, subject: str) -> None:
        """Log that the registration is another one than before, and use its key of the site's audit log."""
        self.registration = registration
        digest = _digest_registration(registration)
        self._note_value("registration", digest, Action.CHANGE_REGISTRATION, Category.REGISTRATION, subject)

    def _note_value(self, name: str, value: str, action: Action, category: Category, subject: str) -> None:
        event = AuditEvent(self.log.agent(), action, category, subject, (object_id(name, value),))
        self._try(partial(self.log.note_value, name, value, event))

    def note_stop(self) -> None:
        self.append(AuditEvent(self.log.agent(), Action.STOP, Category.SERVICE))

    def append(self, *events: AuditEvent) -> None:
        """Append events. If the log cannot be written, they wait in memory for the next call."""
        self._left_out += max(0, len(self._waiting) + len(events) - MAX_WAITING)
        self._waiting = [*self._waiting, *events][:MAX_WAITING]
        if self._try(lambda: self.log.append(*self._waiting)):
            self._waiting = []

    def note_site(self, audit: SiteAudit) -> None:
        """Keep the heads of a new acknowledgement, if the registration has the site's audit key."""
        key = self.registration.audit
        if key is not None:
            self._try(lambda: self.log.note_site(audit, key))

    def read_heads(self, device: SigningKey) -> bytes | None:
        """Return what the hub's status says of the audit logs; None if the log cannot be read."""
        try:
            return hub_audit_to_bytes(self.log.status(device))
        except SyncError as error:
            log.warning("cannot read the audit log now: %s", error)
            return None

    async def watch_clock(self, clock: Clock, call: WorkerCall) -> NoReturn:
        """Log when the wall clock was set by more than a minute, until cancelled."""
        offset_us, moved_us, jumps, last_s = _offset_us(clock), 0, 0, -CLOCK_QUIET_S
        while True:
            await asyncio.sleep(CLOCK_INTERVAL_S)
            before_us, offset_us = offset_us, _offset_us(clock)
            if abs(offset_us - before_us) > CLOCK_JUMP_US:
                jumps, moved_us = jumps + 1, moved_us + offset_us - before_us
            now_s = asyncio.get_running_loop().time()
            if jumps and now_s - last_s >= CLOCK_QUIET_S:
                moved = (object_id("moved-s", f"{round(moved_us / 1e6):+d}"),)
                await call(
                    self.append,
                    AuditEvent(self.log.agent(), Action.CHANGE_CLOCK, Category.CLOCK, None, moved, count=jumps),
                )
                moved_us, jumps, last_s = 0, 0, now_s

    async def watch_endpoints(self, call: WorkerCall) -> NoReturn:
        """Log the endpoints that this process was refused, until cancelled."""
        while True:
            await asyncio.sleep(ENDPOINT_INTERVAL_S)
            refused = take_refused_endpoints()
            if refused:
                await call(self.append, *endpoint_events(self.log.agent(), refused))

    def _try(self, body: Callable[[], None]) -> bool:
        try:
            body()
        except SyncError as error:
            log.warning("cannot write the audit log now: %s", error)
            return False
        return True


def _offset_us(clock: Clock) -> int:
    return clock.wall_us() - clock.mono_ns() // 1000


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_registration(registration: Registration) -> str:
    keys = (registration.acknowledgement, registration.receipt, registration.audit)
    recipients = sorted((subject, key.fingerprint) for subject, key in registration.recipients.items())
    content = [registration.site, [key and key.to_bytes() for key in keys], [list(row) for row in recipients]]
    return hashlib.sha256(encode_cbor(content)).hexdigest()[:16]
