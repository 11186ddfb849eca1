"""One row of an audit log, the hash chain over the rows, and its check. Hub and clinic write the same form.

`docs/audit-log.md` is the reference: it says which field answers what in DiGAV, BSI TR-03161 and EHDS. A row holds ids, roles
and tokens only: no name, no health value, no free text.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from sync.cbor import CborError, decode_cbor, encode_cbor
from sync.errors import PermanentError
from sync.wire import DIGEST_BYTES, FORMAT, is_bytes, is_count, is_name

ROW_LABEL: Final = "pulsegate audit row"
LOG_LABEL: Final = "pulsegate audit log"
ROW_LIMIT_BYTES: Final = 2048
"""Largest row: 20 tokens of 80 characters, two names of 64 and the numbers take less."""
OBJECTS_LIMIT: Final = 16
ROWS: Final = "rows"
"""Kind of the object that a `cut-log` row names: the number of the last row that was cut."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,79}")


class ChainError(PermanentError):
    """A row of an audit log is missing or was changed, moved or inserted. `row` is its number, 0 if it is not known."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


class End(StrEnum):
    """Which end of the protocol keeps a log."""

    HUB = "hub"
    SITE = "site"


class Origin(NamedTuple):
    """Whose log this is: one chain for each hub, one for each site."""

    end: End
    name: str


class Role(StrEnum):
    """Who acts."""

    SERVICE = "service"
    OPERATOR = "operator"
    STAFF = "staff"
    VIEWER = "viewer"
    """Somebody at this computer, as long as viewers have no certificate."""
    HUB = "hub"


class Action(StrEnum):
    """What is done. Other parts add theirs here."""

    START = "start"
    STOP = "stop"
    REGISTER = "register"
    ERASE = "erase"
    INVITE = "invite"
    CANCEL_INVITATION = "cancel-invitation"
    ENROL = "enrol"
    RENEW = "renew"
    ISSUE_CERTIFICATE = "issue-certificate"
    REVOKE = "revoke"
    ROTATE_ROOT = "rotate-root"
    RETIRE_ROOT = "retire-root"
    CREATE_KEY = "create-key"
    DESTROY_KEY = "destroy-key"
    BACK_UP_KEYS = "back-up-keys"
    RESTORE_KEYS = "restore-keys"
    READ = "read"
    OPEN = "open"
    EXPORT = "export"
    REFUSE_MESSAGE = "refuse-message"
    REFUSE_ENDPOINT = "refuse-endpoint"
    CHANGE_SETTINGS = "change-settings"
    CHANGE_REGISTRATION = "change-registration"
    CHANGE_MODELS = "change-models"
    REFUSE_MODELS = "refuse-models"
    PAIR = "pair"
    UNPAIR = "unpair"
    ANSWER_CONSENT = "answer-consent"
    GIVE_CONSENT = "give-consent"
    WITHDRAW_CONSENT = "withdraw-consent"
    SET_HOLD = "set-hold"
    LIFT_HOLD = "lift-hold"
    DELETE_EXPIRED = "delete-expired"
    CONFIRM_ERASURE = "confirm-erasure"
    """A hub says that it has destroyed the keys of an erased subject."""
    CHANGE_CLOCK = "change-clock"
    ASK_COMMAND = "ask-command"
    SEND_COMMAND = "send-command"
    APPLY_COMMAND = "apply-command"
    CUT_LOG = "cut-log"
    FIND_FORK = "find-fork"
    """The other end holds a head of this log that the log does not contain, or shows a head lower than one before."""


class Category(StrEnum):
    """The kind of data or thing that the action is about: EHDS, Annex II 3.2 (c)."""

    SERVICE = "service"
    REGISTRATION = "registration"
    KEYS = "keys"
    CERTIFICATES = "certificates"
    SETTINGS = "settings"
    MODELS = "models"
    SENSORS = "sensors"
    CLOCK = "clock"
    MESSAGES = "messages"
    LOG = "log"
    COMMANDS = "commands"
    CONSENT = "consent"
    OVERVIEW = "overview"
    ALERTS = "alerts"
    VITALS = "vitals"
    WAVEFORMS = "waveforms"
    ALL_RECORDS = "all-records"


class Purpose(StrEnum):
    """Why it is done."""

    CARE = "care"
    OPERATION = "operation"
    SECURITY = "security"
    SUBJECT_REQUEST = "subject-request"


class Outcome(StrEnum):
    """How it ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class Actor(NamedTuple):
    """Who acts: an id that is no name of a person, the role, and the organisation (the site, or the hub's site)."""

    id: str
    role: str
    organisation: str


def account() -> str:
    """Return the account of the system that runs this process, as the log names it: `uid-` and the number of the user.

    With sudo it is the name of the account that called it: sudo sets `SUDO_USER`. Root could set it as well, but root can also
    write the log. A name with other characters than an id may have is left out.
    """
    caller = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    return caller if is_name(caller) else f"uid-{os.getuid()}"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What happened, without time and place in the log.

    Args:
        actor: who did it.
        action: what was done.
        category: the kind of data or thing.
        subject: the pseudonym of the person concerned; None if there is none.
        objects: ids of what it was done to, made by `object_id`.
        purpose: why.
        outcome: how it ended.
        session: id of the actor's session; None if there is none.
        count: how many equal events this one stands for.
    """

    actor: Actor
    action: str
    category: str
    subject: str | None = None
    objects: tuple[str, ...] = ()
    purpose: str = Purpose.OPERATION
    outcome: str = Outcome.DONE
    session: str | None = None
    count: int = 1

    def __post_init__(self) -> None:
        if not _is_event(self):
            raise ValueError("an audit event holds ids and tokens only: see sync.audit.object_id")


class Position(NamedTuple):
    """A place in a log: the number of the last row up to here (0: none), and its hash."""

    number: int
    head: bytes


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An event in a log: the number of its row from 1, its time (microseconds since 1970) and the hash of the row before."""

    origin: Origin
    number: int
    at_us: int
    event: AuditEvent
    previous: bytes

    def to_bytes(self) -> bytes:
        """The row as it is stored and hashed: a list in deterministic CBOR."""
        event = self.event
        actor = [str(part) for part in event.actor]
        tokens = (event.session, str(event.action), str(event.category), event.subject, list(event.objects))
        ending = (str(event.purpose), str(event.outcome), event.count)
        origin = [str(self.origin.end), self.origin.name]
        return encode_cbor([ROW_LABEL, FORMAT, self.number, self.at_us, origin, actor, *tokens, *ending, self.previous])

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`.

        Raises:
            ValueError: not such a row.
        """
        try:
            items = decode_cbor(data, limit_bytes=ROW_LIMIT_BYTES)
        except CborError as error:
            raise ValueError(f"not a row: {error}") from error
        if not isinstance(items, list) or len(items) != _ROW_ITEMS or items[:2] != [ROW_LABEL, FORMAT]:
            raise ValueError("not a row of this version")
        _, _, number, at_us, origin, actor, session, action, category, subject, objects, purpose, outcome, count, previous = (
            items
        )
        if not (_is_row_head(number, at_us, origin, previous) and _is_list(actor, 3) and isinstance(objects, list)):
            raise ValueError("a field of the row is not as defined")
        event = AuditEvent(Actor(*actor), action, category, subject, tuple(objects), purpose, outcome, session, count)
        row = cls(Origin(End(origin[0]), origin[1]), number, at_us, event, previous)
        if row.to_bytes() != data:
            raise ValueError("the row is not deterministic CBOR")
        return row


_ROW_ITEMS: Final = 15


def hash_row(row: bytes) -> bytes:
    """The hash of an encoded row, which begins with its label: SHA-256."""
    return hashlib.sha256(row).digest()


def log_start(origin: Origin) -> Position:
    """The place before the first row."""
    start = encode_cbor([LOG_LABEL, FORMAT, str(origin.end), origin.name])
    return Position(0, hashlib.sha256(start).digest())


def append_events(
    origin: Origin, after: Position, events: Iterable[AuditEvent], at_us: int
) -> Iterator[tuple[AuditRow, bytes]]:
    """Chain events to a log: yields each row with its encoding."""
    number, head = after
    for event in events:
        number += 1
        row = AuditRow(origin, number, at_us, event, head)
        encoded = row.to_bytes()
        head = hash_row(encoded)
        yield row, encoded


def follow_rows(origin: Origin, after: Position, rows: Iterable[tuple[int, bytes]]) -> Iterator[tuple[AuditRow, Position]]:
    """Check stored rows (number, encoded row) that follow `after`; yields each with the place at its end.

    Raises:
        ChainError: a row is missing, or was changed, moved or inserted. The message names it.
    """
    place = after
    for number, encoded in rows:
        expected = place.number + 1
        if number != expected:
            raise ChainError(expected, f"row {expected} is missing: the next row that is there is {number}")
        row = read_row(number, encoded)
        if row.number != number or row.origin != origin:
            raise ChainError(number, f"row {number} is not the row that was written there: it is another one's place or log")
        if row.previous != place.head:
            before = f"row {place.number}" if place.number else "the beginning of the log"
            raise ChainError(number, f"row {number} does not follow {before}: one of the two was changed, removed or inserted")
        place = Position(number, hash_row(encoded))
        yield row, place


def read_row(number: int, encoded: bytes) -> AuditRow:
    """A stored row.

    Raises:
        ChainError: it is not a row.
    """
    try:
        return AuditRow.from_bytes(encoded)
    except ValueError as error:
        raise ChainError(number, f"row {number} was changed: {error}") from error


def object_id(kind: str, value: object) -> str:
    """The id of an object as rows name it: `kind:value`, or a hash of the value if it is not a token."""
    text = f"{kind}:{value}"
    if _is_token(text):
        return text
    return f"{kind}:sha256-{hashlib.sha256(str(value).encode()).hexdigest()[:16]}"


def _is_row_head(number: Any, at_us: Any, origin: Any, previous: Any) -> bool:
    is_origin = _is_list(origin, 2) and origin[0] in list(End) and is_name(origin[1])
    return is_origin and is_count(number) and is_count(at_us) and is_bytes(previous, DIGEST_BYTES)


def _is_event(event: AuditEvent) -> bool:
    tokens = (*event.actor, event.action, event.category, event.purpose, event.outcome, *event.objects)
    return (
        all(map(_is_token, tokens))
        and (event.session is None or _is_token(event.session))
        and (event.subject is None or is_name(event.subject))
        and len(event.objects) <= OBJECTS_LIMIT
        and is_count(event.count)
        and event.count >= 1
    )


def _is_token(value: object) -> bool:
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _is_list(value: object, length: int) -> bool:
    return isinstance(value, list) and len(value) == length
