"""Commands to hubs: make one, and send it until the hub has answered.

    pulsegate-cloud command ──▶ row in the store ──▶ sender ──▶ down/command ──▶ hub
                                row answered ◀── opener ◀── record of the outcome, in a sealed block

Only who makes a command has the key that signs it. The sender has none: it publishes what is in the store.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from cloud.audit_actors import ORIGIN
from cloud.errors import ClinicError
from cloud.receipts import Publish
from cloud.registry import RegisteredHub
from cloud.store import Store
from cloud.store.audit import append_to_log, lock_log
from cloud.store.commands import StoredCommand, add_command, find_requested, list_due, next_number
from config.contexts import ContextError, make_contexts
from config.limit import LimitError
from config.limits import DEFAULT_LIMITS
from sync.audit import Action, Actor, AuditEvent, Category, Purpose, object_id
from sync.commands import SUBJECT_KINDS, Command, CommandKind, encode_command
from sync.errors import TransientError
from sync.signing import SigningKey
from sync.transport import WorkerCall
from sync.wire import WireError, command_topic

LIFE_S: Final = 24 * 3600
"""How long a hub may carry a command out: over a night without network, but not after its sender has forgotten it."""
RESEND_S: Final = 60.0
"""Time between two sendings of an unanswered command: one for each status of the hub."""
LOOK_S: Final = 1.0
"""Time between two looks for commands: what a command waits at most. A look reads one index."""
HEARD_WITHIN_US: Final = 90 * 1_000_000
"""A hub that was heard so lately is connected: it sends a status every 60 s. Nothing is sent to others: it would be lost."""
_US_PER_S: Final = 1_000_000
_log: Final = logging.getLogger(__name__)


def send_command(
    store: Store,
    key: SigningKey,
    hub: RegisteredHub,
    kind: CommandKind,
    arguments: Mapping[str, Any],
    actor: Actor,
    now_us: int,
    request: str | None = None,
) -> StoredCommand:
    """Sign and seal a command, log it, and keep it to be sent. A command that was made for this `request` before is returned.

    Raises:
        ClinicError: the hub takes no commands or has no patient, or an argument is not allowed.
        TransientError, PermanentError: the store failed; no command was made.
    """
    if hub.command_key is None:
        raise ClinicError(
            f"hub {hub.hub} was registered without a command key: update pulsegate there, then enrol it again "
            "(pulsegate-cloud invite), or register it again with --command-key, and bring it the new registration"
        )
    subject, issued_s = _subject_of(hub, kind), now_us // _US_PER_S
    _check_values(kind, arguments)
    with store.transaction() as connection:
        lock_log(connection, ORIGIN)  # and so the number and the request
        if request is not None and (made := find_requested(connection, request)) is not None:
            return made
        number = next_number(connection, hub.hub, issued_s)
        objects = _objects(hub.hub, kind, number)
        event = AuditEvent(actor, Action.SEND_COMMAND, Category.COMMANDS, subject, objects, Purpose.CARE)
        append_to_log(connection, ORIGIN, [event], now_us)
        command = Command(hub.hub, number, issued_s, issued_s + LIFE_S, kind, subject, arguments)
        try:
            payload = encode_command(command, hub.command_key, key)
        except WireError as error:
            raise ClinicError(f"cannot send this command: {error}; correct its arguments") from error
        by = actor.id
        stored = StoredCommand(hub.hub, number, str(kind), subject, issued_s, command.expires_s, payload, by, request=request)
        add_command(connection, stored)
    return stored


def _subject_of(hub: RegisteredHub, kind: CommandKind) -> str | None:
    if kind not in SUBJECT_KINDS:
        return None
    last = hub.assignments[-1] if hub.assignments else None
    if last is None or last.to_s is not None:
        raise ClinicError(f"hub {hub.hub} has no patient now: assign it first (pulsegate-cloud invite or register)")
    return last.subject


def _check_values(kind: CommandKind, arguments: Mapping[str, Any]) -> None:
    """Tell the sender at once what the hub would refuse."""
    try:
        if kind is CommandKind.LIMITS:
            DEFAULT_LIMITS.with_values(arguments["values"])
        elif kind is CommandKind.CONTEXTS:
            make_contexts(arguments["values"])
    except (LimitError, ContextError) as error:
        raise ClinicError(str(error)) from error


def _objects(hub: str, kind: CommandKind, number: int) -> tuple[str, ...]:
    return object_id("hub", hub), object_id("command", kind.replace("_", "-")), object_id("number", number)


class CommandSender:
    """Publishes commands that are not answered yet. Several may run: a hub carries each command out once."""

    def __init__(self, store: Store, publish: Publish, now_us: Callable[[], int]) -> None:
        self._store = store
        self._publish = publish
        self._now_us = now_us
        self._sent_s: dict[tuple[str, int], float] = {}
        """When each unanswered command was sent last, by the event loop's clock."""

    async def run(self, call: WorkerCall = asyncio.to_thread) -> NoReturn:
        """Send commands until cancelled."""
        while True:
            try:
                await self.send_due(call)
            except TransientError as error:
                _log.warning("cannot send commands now, will try again: %s", error)
            await asyncio.sleep(LOOK_S)

    async def send_due(self, call: WorkerCall) -> None:
        """Send what was not sent for `RESEND_S`.

        Raises:
            TransientError: the store cannot be read, or the broker is not there.
        """
        due = {(command.hub, command.number): command for command in await call(self._list_due)}
        self._sent_s = {id_: sent_s for id_, sent_s in self._sent_s.items() if id_ in due}
        for id_, command in due.items():
            now_s = asyncio.get_running_loop().time()
            if now_s - self._sent_s.get(id_, -RESEND_S) >= RESEND_S:
                await self._publish(command_topic(command.hub), command.payload)
                self._sent_s[id_] = now_s

    def _list_due(self) -> list[StoredCommand]:
        now_us = self._now_us()
        with self._store.transaction() as connection:
            return list_due(connection, now_us // _US_PER_S, now_us - HEARD_WITHIN_US)
