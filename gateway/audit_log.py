"""The hub's audit log: a small SQLite database in the data folder, to which the agent and the commands append.

Every row is signed in its transaction: the log never has a tail without a signed head. A row is on the disk when `append`
returns, and a kill -9 leaves whole rows. A reserve file keeps room on a full disk. A damaged database is moved away, and a new
log begins: the clinic notices, because it holds a higher head of the old one.

`sync.audit` has the form of a row, and docs/audit-log.md the whole.
"""

import errno
import logging
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from config.files import make_private
from config.settings import RegionSettingsError, Settings
from gateway.hub_key import unlock_hub_key
from sync.audit import (
    ROWS,
    Action,
    Actor,
    AuditEvent,
    Category,
    End,
    Origin,
    Outcome,
    Position,
    Purpose,
    Role,
    account,
    append_events,
    hash_row,
    log_start,
    object_id,
)
from sync.audit_heads import (
    CutNote,
    HubAudit,
    SignedHead,
    SiteAudit,
    certify_audit_key,
    check_head,
    cut_from_bytes,
    cut_to_bytes,
    head_from_bytes,
    head_to_bytes,
    sign_cut,
    sign_head,
)
from sync.errors import DiskFullError, PermanentError, SyncError
from sync.keys import HubKey
from sync.outbox.database import translating_sqlite_errors
from sync.outbox.reserve import Reserve
from sync.refused_endpoints import endpoint_events
from sync.registration import Registration, RegistrationError
from sync.signing import SignatureError, SigningKey, Use, VerifyingKey

if TYPE_CHECKING:
    from sync.audit_check import LogReport

AUDIT_FILE: Final = "audit.db"
AUDIT_KEY_FILE: Final = "audit.key"
DAMAGED_FILE: Final = "audit-damaged.db"
MAX_ROWS: Final = 20_000
"""Rows that a hub keeps, some 8 MB: many years of an ordinary hub. A flood of events must not fill its disk."""
KEPT_ROWS: Final = 18_000
"""Rows that are left after a cut, so that not every row cuts."""
BUSY_TIMEOUT_S: Final = 2.0
"""How long an append waits for that of another process: longer than any of them."""
OWN_LOG_CHANGED: Final = "own-log-changed"
SITE_LOG_CHANGED: Final = "site-log-changed"
LOG_DAMAGED: Final = "own-log-damaged"
UNREGISTERED: Final = "unregistered"
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SCHEMA: Final = 1
_APPLICATION_ID: Final = int.from_bytes(b"PGAL", "big")
_TABLES: Final = (
    "CREATE TABLE rows (number INTEGER PRIMARY KEY, row BLOB NOT NULL) STRICT",
    "CREATE TABLE log (signed BLOB, cut BLOB, held BLOB, site BLOB, own_fork INTEGER NOT NULL, site_fork INTEGER NOT NULL)",
    "CREATE TABLE known (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "INSERT INTO log VALUES (NULL, NULL, NULL, NULL, 0, 0)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA}",
)
"""`log` has one row: the last signed head, the note of the last cut, the highest head of this log that the site holds, the
highest head of the site's log; then whether the site holds a head that this log does not contain, and whether the site's own
heads contradict each other. `known` are values whose change is an event."""

log: Final = logging.getLogger(__name__)
T = TypeVar("T")


class LogState(NamedTuple):
    """The row of the table `log`."""

    signed: SignedHead | None
    cut: CutNote | None
    held: SignedHead | None
    site: SignedHead | None
    own_fork: bool
    site_fork: bool


class AuditLog:
    """The audit log of one hub. Every process may use it; each call opens the database and closes it again."""

    def __init__(self, folder: Path, hub: str, site: str, now_us: Callable[[], int], hub_key: HubKey | None = None) -> None:
        """Load the audit key in the data folder, or create it. `site` is the organisation of whoever acts on this hub.

        `hub_key` seals the audit key, where key files are sealed.

        Raises:
            KeyFileError: the key file is damaged or accessible to other users, or cannot be written.
        """
        self._path = folder / AUDIT_FILE
        self._key = SigningKey.load_or_create(folder / AUDIT_KEY_FILE, Use.AUDIT, hub_key)
        self._origin = Origin(End.HUB, hub)
        self._site = site
        self._now_us = now_us
        self._reserve = Reserve(folder / f"{AUDIT_FILE}-reserve")

    def agent(self) -> Actor:
        """The agent as an actor."""
        return Actor("agent", Role.SERVICE, self._site)

    def operator(self) -> Actor:
        """The person who runs a command, by their account."""
        return Actor(account(), Role.OPERATOR, self._site)

    def replace_if_damaged(self) -> None:
        """Move a damaged database away and begin a new log, whose first row says so. The agent calls this at its start.

        Raises:
            TransientError, PermanentError: as `append`.
        """
        if self._is_damaged():
            log.error("the audit log %s is damaged: it is kept as %s, and a new one begins", self._path, DAMAGED_FILE)
            self._path.replace(self._path.with_name(DAMAGED_FILE))
            self._run(lambda connection: self._append_fork(connection, LOG_DAMAGED))

    def append(self, *events: AuditEvent) -> None:
        """Append events in one transaction, which is on the disk on return.

        Raises:
            TransientError: the disk is full, or another process locks the log. Nothing was logged.
            PermanentError: the log cannot be written.
        """
        self._run(lambda connection: self._append(connection, events))

    def note_value(self, name: str, value: str, event: AuditEvent) -> None:
        """Append an event if a value differs from what it was at the last call; the first value is noted without an event."""

        def note(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT value FROM known WHERE name = ?", (name,)).fetchone()
            if row is None or row[0] != value:
                connection.execute("INSERT OR REPLACE INTO known VALUES (?, ?)", (name, value))
            if row is not None and row[0] != value:
                self._append(connection, [event])

        self._run(note)

    def note_site(self, audit: SiteAudit, key: VerifyingKey) -> None:
        """Keep the heads of an acknowledgement that is newer than all before: the site's, and the one it holds of this hub.

        A contradiction is appended as a row, once. The higher head stays as the evidence.

        Raises:
            SignatureError: the site's head is not signed by its audit key.
            TransientError, PermanentError: as `append`.
        """
        check_head(key, Origin(End.SITE, self._site), audit.head)
        self._run(lambda connection: self._note_site(connection, audit))

    def status(self, device: SigningKey) -> HubAudit:
        """What the hub's status says of this log. `device` certifies the audit key.

        Raises:
            TransientError, PermanentError: as `append`.
        """
        state = self._run(_read_state)
        head = state.signed or sign_head(self._key, self._origin, log_start(self._origin))
        certificate = certify_audit_key(device, self._origin.name, self._key.public)
        return HubAudit(head, self._key.public.to_bytes(), certificate, state.site, state.own_fork)

    def state(self) -> LogState:
        """What the log holds besides its rows."""
        return self._run(_read_state)

    def rows(self) -> list[tuple[int, bytes]]:
        """All rows (number, encoded row): at most `MAX_ROWS`, some 8 MB."""
        return self._run(_read_rows)

    def check(self) -> "LogReport":
        """Check the whole log."""
        from sync.audit_check import StoredLog, check_log  # noqa: PLC0415  memory that the agent does not need

        rows, state = self._run(lambda connection: (_read_rows(connection), _read_state(connection)))
        held = {"the clinic": state.held} if state.held else {}
        return check_log(StoredLog(self._origin, rows, state.cut, state.signed, held), self._key.public)

    def _is_damaged(self) -> bool:
        try:
            return bool(self._run(lambda connection: connection.execute("PRAGMA quick_check").fetchone() != ("ok",)))
        except PermanentError as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.DatabaseError) and cause.sqlite_errorcode & 0xFF in _DAMAGED:
                return True
            raise

    def _append(self, connection: sqlite3.Connection, events: Iterable[AuditEvent]) -> None:
        state, place = _read_state(connection), self._end(connection)
        is_changed = place != (state.signed.position if state.signed else log_start(self._origin))
        rows = [(row.number, encoded) for row, encoded in append_events(self._origin, place, events, self._now_us())]
        connection.executemany("INSERT INTO rows VALUES (?, ?)", rows)
        if is_changed:
            self._report_change(connection, state)
        elif rows:
            self._sign(connection, Position(rows[-1][0], hash_row(rows[-1][1])))
            self._cut_if_long(connection, rows[-1][0])

    def _report_change(self, connection: sqlite3.Connection, state: LogState) -> None:
        """Rows were changed since they were signed. What follows is kept, but gets no signature: the signed head stays."""
        if not state.own_fork:
            log.error("the audit log %s was changed from outside: run pulsegate audit verify", self._path)
            connection.execute("UPDATE log SET own_fork = 1")

    def _sign(self, connection: sqlite3.Connection, place: Position) -> None:
        head = sign_head(self._key, self._origin, place)
        connection.execute("UPDATE log SET signed = ?", (head_to_bytes(head),))

    def _cut_if_long(self, connection: sqlite3.Connection, last: int) -> None:
        """Delete the oldest rows of a log that is too long, and sign a note of it."""
        ((n_rows,),) = connection.execute("SELECT count(*) FROM rows")
        if n_rows <= MAX_ROWS:
            return
        number = last - KEPT_ROWS
        ((row,),) = connection.execute("SELECT row FROM rows WHERE number = ?", (number,))
        note = sign_cut(self._key, self._origin, Position(number, hash_row(row)), self._now_us())
        connection.execute("UPDATE log SET cut = ?", (cut_to_bytes(note),))
        connection.execute("DELETE FROM rows WHERE number <= ?", (number,))
        self._append(connection, [AuditEvent(self.agent(), Action.CUT_LOG, Category.LOG, None, (object_id(ROWS, number),))])

    def _end(self, connection: sqlite3.Connection) -> Position:
        found = connection.execute("SELECT number, row FROM rows ORDER BY number DESC LIMIT 1").fetchone()
        if found is not None:
            return Position(found[0], hash_row(found[1]))
        cut = _read_state(connection).cut
        return cut.position if cut else log_start(self._origin)

    def _note_site(self, connection: sqlite3.Connection, audit: SiteAudit) -> None:
        state = _read_state(connection)
        known, seen = state.site, audit.seen
        if known is None or audit.head.number > known.number:
            connection.execute("UPDATE log SET site = ?", (head_to_bytes(audit.head),))
        elif audit.head.position != known.position and not state.site_fork:
            connection.execute("UPDATE log SET site_fork = 1")
            self._append_fork(connection, SITE_LOG_CHANGED)
        if seen is not None and self._is_own(seen) and (state.held is None or seen.number > state.held.number):
            connection.execute("UPDATE log SET held = ?", (head_to_bytes(seen),))
            if not self._contains(connection, seen, state.cut) and not state.own_fork:
                connection.execute("UPDATE log SET own_fork = 1")
                self._append_fork(connection, OWN_LOG_CHANGED)

    def _append_fork(self, connection: sqlite3.Connection, problem: str) -> None:
        log.error("the audit logs of this hub and its clinic do not agree: %s; run pulsegate audit verify", problem)
        objects = (object_id("problem", problem),)
        event = AuditEvent(self.agent(), Action.FIND_FORK, Category.LOG, None, objects, Purpose.SECURITY, Outcome.FAILED)
        self._append(connection, [event])

    def _is_own(self, head: SignedHead) -> bool:
        """Whether this log's key signed a head. The site may hold one of the device that had this hub's name before."""
        try:
            check_head(self._key.public, self._origin, head)
        except SignatureError:
            return False
        return True

    def _contains(self, connection: sqlite3.Connection, head: SignedHead, cut: CutNote | None) -> bool:
        if head.number <= (cut.number if cut else 0):
            return True
        row = connection.execute("SELECT row FROM rows WHERE number = ?", (head.number,)).fetchone()
        return row is not None and hash_row(row[0]) == head.head

    def _run(self, body: Callable[[sqlite3.Connection], T]) -> T:
        """Run a transaction; on a full disk, in the room of the reserve."""
        if not self._reserve.is_full:
            self._reserve.fill()
        try:
            return self._run_once(body)
        except DiskFullError:
            if not self._reserve.release():
                raise
        try:
            return self._run_once(body)
        finally:
            self._reserve.fill()

    def _run_once(self, body: Callable[[sqlite3.Connection], T]) -> T:
        self._make_private()
        with translating_sqlite_errors(self._path), closing(self._connect()) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            _create_or_check_tables(connection, self._path)
            result = body(connection)
            connection.execute("COMMIT")
            return result

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)

    def _make_private(self) -> None:
        try:
            make_private(self._path)
        except OSError as error:
            full = error.errno == errno.ENOSPC
            message = (
                f"cannot create the audit log {self._path} ({error.strerror}): check that its folder is writable and has room"
            )
            raise (DiskFullError if full else PermanentError)(message) from error


def open_audit_log(settings: Settings, now_us: Callable[[], int]) -> AuditLog:
    """The log of the hub of these settings. Before the hub is registered, its organisation is `UNREGISTERED`.

    Raises:
        KeyFileError: as `AuditLog`.
        HubKeyError: the hub key that seals the audit key cannot be opened.
    """
    try:
        site = Registration.load(settings.clinic.registration, settings.hub).site
    except RegistrationError:
        site = UNREGISTERED
    return AuditLog(settings.data, settings.hub, site, now_us, unlock_hub_key(settings.data))


def log_refused_endpoint(error: RegionSettingsError, now_us: Callable[[], int]) -> None:
    """Log that the settings name an endpoint that is not allowed, if the hub has a data folder. The agent does not start."""
    if not error.data.is_dir():
        return
    try:
        audit = AuditLog(error.data, error.hub, UNREGISTERED, now_us, unlock_hub_key(error.data))
        audit.append(*endpoint_events(audit.agent(), {error.endpoint: 1}))
    except SyncError as problem:
        log.warning("cannot write to the audit log that %s was refused: %s", error.endpoint, problem)


def _create_or_check_tables(connection: sqlite3.Connection, path: Path) -> None:
    ((version,),) = connection.execute("PRAGMA user_version")
    if version > _SCHEMA:
        raise PermanentError(f"the audit log {path} was written by a newer pulsegate: update pulsegate")
    if version == 0:
        for statement in _TABLES:
            connection.execute(statement)


def _read_state(connection: sqlite3.Connection) -> LogState:
    query = "SELECT signed, cut, held, site, own_fork, site_fork FROM log"
    ((signed, cut, held, site, own_fork, site_fork),) = connection.execute(query)
    heads = head_from_bytes(signed), cut_from_bytes(cut), head_from_bytes(held), head_from_bytes(site)
    return LogState(*heads, bool(own_fork), bool(site_fork))


def _read_rows(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
    return connection.execute("SELECT number, row FROM rows ORDER BY number").fetchall()
