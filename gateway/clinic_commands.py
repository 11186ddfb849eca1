"""Carries out the clinic's commands: each once, in its time, and only while the hub knows the time.

    down/command ──verify, open (storage thread)──▶ queue ──▶ carry out ──▶ state, number and outcome in one transaction

What a command changes is a state in the buffer, and what runs follows from that state. So a kill at any moment leaves a command
either carried out, with its outcome on the way to the clinic, or not at all: the clinic then sends it again.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from config.contexts import ContextError, Contexts, make_contexts
from config.limit import LimitError
from config.limits import DEFAULT_LIMITS, Limits
from config.settings import Settings, UploadPolicy
from gateway.alerts import CLOSED_REASON, FALSE_REASON
from gateway.audit_events import AgentAudit
from gateway.clock import Clock
from gateway.enrolment.site_clock import Clocks, SiteClock, SiteTimeError
from gateway.hub_alerts import HUB_SENSOR
from gateway.storage import Storage
from sync.audit import Action, AuditEvent, Category, Outcome, Purpose, object_id
from sync.commands import (
    APPLIED_KIND,
    REFUSED_PREFIX,
    Command,
    CommandKey,
    CommandKind,
    CommandRefusedError,
    Refusal,
    check_applicable,
    decode_command,
)
from sync.errors import TransientError
from sync.outbox import Outbox
from sync.records import Record, StatusRecord, Times
from sync.registration import Registration
from sync.wire import ON_REQUEST_LANE, WireError

STATE_KEY: Final = "commands"
"""Name of the state in the buffer."""
MAX_WAITING: Final = 8
"""Commands that wait while one is carried out. The clinic sends one after the other, and each again until it is answered."""
RETRY_S: Final = 2.0
"""Pause after a failed write to the buffer."""
END_REASONS: Final[Mapping[CommandKind, str]] = {
    CommandKind.CLOSE_ALERT: CLOSED_REASON,
    CommandKind.MARK_FALSE: FALSE_REASON,
}
"""The commands that end an alert, and the reason key that its last record gets."""
log: Final = logging.getLogger(__name__)


class AlertCloser(Protocol):
    """What holds open alerts: `gateway.sensor_runner.SensorRunner`."""

    async def close_alert(
        self,
        id_: str,
        reason: str,
        command: int,
        store: Callable[[Sequence[Record], Mapping[str, object]], Awaitable[None]],
    ) -> bool: ...


@dataclass(frozen=True, slots=True)
class CommandState:
    """The number of the last command that was carried out or refused, and what commands have set; None: as the settings say."""

    number: int = 0
    upload: UploadPolicy | None = None
    limits: Mapping[str, float] | None = None
    log_level: str | None = None
    contexts: Mapping[str, bool | int] | None = None

    def limits_or(self, default: Limits) -> Limits:
        """The limits that the clinic has set, or else those of the settings; also if this version does not allow the former."""
        if self.limits is None:
            return default
        try:
            return DEFAULT_LIMITS.with_values(self.limits)
        except LimitError:
            log.error("the limits that the clinic has set are not allowed any more: those of the settings are used")
            return default

    def contexts_or(self, default: Contexts) -> Contexts:
        """Likewise, the contexts that the clinic has set."""
        if self.contexts is None:
            return default
        try:
            return make_contexts(self.contexts)
        except ContextError:
            log.error("the contexts that the clinic has set are not known any more: those of the settings are used")
            return default


def load_command_state(outbox: Outbox) -> CommandState:
    """Read the state of the present subject. The number is that of the last command to this hub, whoever was its subject.

    Call it before the states of earlier subjects are deleted: the number is kept with the present one.
    """
    own = outbox.load_state(STATE_KEY)
    state = CommandState(**json.loads(own)) if own else CommandState()
    numbers = [json.loads(stored.value)["number"] for stored in outbox.stored_states() if stored.name == STATE_KEY]
    last = max([state.number, *numbers])
    if last > state.number:
        state = replace(state, number=last)
        outbox.put_many((), {STATE_KEY: json.dumps(asdict(state)).encode()})
    return state


def trusted_time_s(settings: Settings, registration: Registration, clock: Clock) -> int | None:
    """Seconds since 1970; None while no clock can be trusted.

    A hub that enrolled goes by its site's time. Others have their own clock only, which is wrong before the registration.
    """
    identity: Path | None = settings.clinic.broker.identity
    if identity is None:
        now_s = clock.wall_us() // 1_000_000
        return now_s if now_s >= registration.registered_s else None
    with contextlib.suppress(SiteTimeError):
        site_s = SiteClock(identity, Clocks.of_system()).now_s()
        return None if site_s is None else int(site_s)
    return None


@dataclass(slots=True)
class ClinicCommands:
    """Receives and carries out commands. `restart` asks the agent to start its tasks again."""

    settings: Settings
    registration: Registration
    key: CommandKey
    clock: Clock
    audit: AgentAudit
    state: CommandState
    restart: Callable[[], None]
    closers: Sequence[AlertCloser] = ()
    """The sensors of this run, once they are known."""
    _queue: asyncio.Queue[Command] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def receive(self, payload: bytes) -> None:
        """Verify a message and queue its command. Call it on the storage thread.

        Raises:
            WireError, SignatureError: it is not a command of this clinic to this hub, or the hub cannot verify any.
        """
        key = self.registration.command
        if key is None:
            raise WireError(
                "a command, but the registration names no command key of the clinic: enrol or register this hub again"
            )
        command = decode_command(payload, self.settings.hub, self.key, key)
        self._loop.call_soon_threadsafe(self._put, command)

    def _put(self, command: Command) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # the clinic sends it again
            self._queue.put_nowait(command)

    async def run(self, storage: Storage) -> NoReturn:
        """Carry out commands until cancelled."""
        self._follow_state(storage)
        while True:
            command = await self._queue.get()
            try:
                await self._handle(command, storage)
            except TransientError as error:
                log.warning("cannot carry out command %d now: %s; the clinic sends it again", command.number, error)

    async def _handle(self, command: Command, storage: Storage) -> None:
        now_s = trusted_time_s(self.settings, self.registration, self.clock)
        if command.number <= self.state.number:
            return  # it was answered: the outcome is in the buffer, or at the clinic
        if now_s is None:
            log.warning("command %d waits: this hub does not know the time yet", command.number)
            return
        try:
            check_applicable(command, self.state.number, now_s, frozenset({self.settings.subject}))
            if command.kind in END_REASONS:
                await self._end_alert(command, storage)
            else:
                await self._add(command, APPLIED_KIND, await self._carry_out(command, storage), storage)
        except CommandRefusedError as error:
            log.warning("refused command %d (%s): %s", command.number, command.kind, error)
            await self._add(command, f"{REFUSED_PREFIX}{error.reason}", self.state, storage)
            await self._wait_stored(command, Outcome.REFUSED, storage)
            return
        await self._wait_stored(command, Outcome.DONE, storage)
        log.info("carried out command %d (%s)", command.number, command.kind)
        self._follow_state(storage)
        if command.kind in (CommandKind.LIMITS, CommandKind.CONTEXTS, CommandKind.RESTART):
            self.restart()

    async def _end_alert(self, command: Command, storage: Storage) -> None:
        """End an alert, with the outcome in the same transaction.

        Raises:
            CommandRefusedError: no sensor has such an open alert.
        """
        arguments = (command.arguments["alert"], END_REASONS[command.kind], command.number)
        store = partial(self._add, command, APPLIED_KIND, self.state, storage)
        for closer in self.closers:
            if await closer.close_alert(*arguments, store):
                return
        raise CommandRefusedError(Refusal.ALERT, "no sensor has this alert open, and technical alerts end with their cause")

    async def _carry_out(self, command: Command, storage: Storage) -> CommandState:
        """Return the state that a command leads to. Only a request does something at once; doing it twice changes nothing.

        Raises:
            CommandRefusedError: it is not carried out.
            TransientError: the buffer cannot be written now.
        """
        arguments: Mapping[str, Any] = command.arguments
        match command.kind:
            case CommandKind.UPLOAD:
                return replace(self.state, upload=arguments["policy"])
            case CommandKind.LOG_LEVEL:
                return replace(self.state, log_level=arguments["level"])
            case CommandKind.LIMITS:
                _check_limits(arguments["values"])
                return replace(self.state, limits=arguments["values"])
            case CommandKind.CONTEXTS:
                _check_contexts(arguments["values"])
                return replace(self.state, contexts=arguments["values"])
            case CommandKind.REQUEST if arguments["lane"] == ON_REQUEST_LANE:
                release = storage.outbox.release_archive
                await storage.call(release, self.settings.subject, arguments["from_s"], arguments["to_s"])
                storage.uplink.send_archive()
                return self.state
            case CommandKind.RESTART:
                return self.state
            case _:
                raise CommandRefusedError(Refusal.UNSUPPORTED, "this version does not know what to do")

    async def _add(
        self,
        command: Command,
        kind: str,
        state: CommandState,
        storage: Storage,
        records: Sequence[Record] = (),
        saved: Mapping[str, object] | None = None,
    ) -> None:
        """Give the recorder the outcome, the state, and what else the command changed, for one transaction."""
        self.state = replace(state, number=command.number)
        now_us = self.clock.wall_us()
        outcome = StatusRecord(HUB_SENSOR, kind, Times(now_us, now_us, self.clock.mono_ns()), command.number)
        await storage.recorder.add([*records, outcome], {**(saved or {}), STATE_KEY: asdict(self.state)})

    async def _wait_stored(self, command: Command, outcome: Outcome, storage: Storage) -> None:
        """Wait until the outcome is durable, and log it."""
        while not await storage.recorder.flush():
            await asyncio.sleep(RETRY_S)
        objects = (object_id("command", command.kind.replace("_", "-")), object_id("number", command.number))
        agent = self.audit.log.agent()
        event = AuditEvent(agent, Action.APPLY_COMMAND, Category.COMMANDS, command.subject, objects, Purpose.CARE, outcome)
        await storage.call(self.audit.append, event)

    def _follow_state(self, storage: Storage) -> None:
        """Let what runs follow from the state."""
        storage.recorder.upload.policy = self.state.upload or self.settings.upload
        if self.state.log_level is not None:
            logging.getLogger().setLevel(self.state.log_level.upper())


def _check_limits(values: Mapping[str, float]) -> None:
    try:
        DEFAULT_LIMITS.with_values(values)
    except LimitError as error:
        raise CommandRefusedError(Refusal.VALUES, "its limits are not allowed") from error  # no value in the log


def _check_contexts(values: Mapping[str, bool | int]) -> None:
    try:
        make_contexts(values)
    except ContextError as error:
        raise CommandRefusedError(Refusal.VALUES, "its contexts are not known") from error  # no value in the log
