"""The data keys in the outbox: one for each subject and UTC day, wrapped for the clinic and sealed for the hub itself.

`docs/protocol.md` is the reference. Call the methods that write in a transaction; after a rollback call `load`.
"""

import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from sync.data_keys import DataKey, KeyStatement, WrappedKey, sign_statement, wrap_key
from sync.errors import PermanentError
from sync.keys import HubKeys
from sync.outbox.database import OutboxDatabase, translating_sqlite_errors
from sync.outbox.state import BUSY_TIMEOUT_S
from sync.recipients import RecipientPublicKey
from sync.registration import Registration, RegistrationError
from sync.signing import SignatureError

_SELECT: Final = "SELECT number, id, subject, day, local IS NULL, local IS NOT NULL AND length(local) = 0 FROM keys"


class StoredKey(NamedTuple):
    """A key's number in the tables of blocks, its id, subject and day. After erasure it opens nothing.

    `is_damaged`: the hub cannot open it any more, because its buffer was damaged; the clinic can.
    """

    number: int
    id: bytes
    subject: str
    day: int
    is_erased: bool
    is_damaged: bool = False


@dataclass(frozen=True, slots=True)
class DayKey:
    """The data key of a subject and day, ready to seal."""

    number: int
    id: bytes
    subject: str
    day: int
    cipher: AESGCMSIV = field(repr=False)


class OutboxKeys:
    """The keys of one hub. `stored` has them by number."""

    def __init__(self, database: OutboxDatabase, hub: str, keys: HubKeys, registration: Registration) -> None:
        self._database = database
        self._hub = hub
        self._keys = keys
        self._registered = registration.recipients
        self.erased_subjects: Final = set[str]()
        """Subjects that were erased since the start."""
        self.load()

    def load(self) -> None:
        """Read what is kept in memory."""
        self.stored = {row[0]: StoredKey(*row) for row in self._database.rows(_SELECT)}
        self._day_key: DayKey | None = None

    @property
    def erased(self) -> list[int]:
        """Numbers of the keys of erased subjects."""
        return [key.number for key in self.stored.values() if key.is_erased]

    def register(self, registration: Registration) -> None:
        """Wrap for the recipients of a newer registration from now on: new keys, and those that the buffer has."""
        self._registered = registration.recipients
        self.save_recipients()

    def save_recipients(self) -> None:
        """Keep the registered recipients, for subjects that a later registration omits, and wrap every key for a new one."""
        for subject, recipient in self._registered.items():
            public = recipient.to_bytes()
            if self._database.row("SELECT public FROM recipients WHERE subject = ?", subject) == (public,):
                continue
            self._database.execute("INSERT OR REPLACE INTO recipients VALUES (?, ?)", subject, public)
            for key in self.stored.values():
                if key.subject == subject and not (key.is_erased or key.is_damaged):
                    self._wrap(key.number, self._open_local(key), subject, recipient)

    def sign_again(self) -> None:
        """Sign the statements that do not verify: they were damaged, or are by an earlier device key.

        The clinic accepts another signature of the same statement.
        """
        query = "SELECT id, commitment, subject, day, signature FROM keys WHERE number = ?"
        for key in self.stored.values():
            statement = KeyStatement(*self._database.rows(query, key.number)[0])
            try:
                statement.verify(self._hub, self._keys.device.public)
            except SignatureError:
                if key.is_erased or key.is_damaged:
                    continue
                secret = self._open_local(key)
                new = sign_statement(secret, hub=self._hub, subject=key.subject, day=key.day, device=self._keys.device)
                update = "UPDATE keys SET commitment = ?, signature = ?, held = 0 WHERE number = ?"
                self._database.execute(update, new.commitment, new.signature, key.number)

    def current(self, subject: str, day: int) -> DayKey:
        """The subject's data key of a UTC day, created for the day's first block.

        Raises:
            RegistrationError: the subject was never registered.
        """
        day_key = self._day_key
        if day_key is None or (day_key.subject, day_key.day) != (subject, day):
            usable = [number for number, key in self.stored.items() if key[2:] == (subject, day, False, False)]
            if usable:
                stored = self.stored[max(usable)]  # the newest, if the key was changed on this day
                key = self._open_local(stored)
            else:
                stored, key = self._create(subject, day)
            day_key = DayKey(stored.number, stored.id, subject, day, AESGCMSIV(key.secret))
            self._day_key = day_key
        return day_key

    def rotate(self, subject: str, day: int) -> StoredKey:
        """Create another data key of a UTC day; `current` returns it from now on.

        Raises:
            RegistrationError: the subject was never registered.
        """
        stored, _ = self._create(subject, day)
        self._day_key = None
        return stored

    def for_clinic(self, ids: Iterable[bytes], *, also_held: bool) -> tuple[list[KeyStatement], list[WrappedKey]]:
        """Statements and wrapped keys of these ids. Omits those that the clinic holds, unless `also_held`."""
        statements: list[KeyStatement] = []
        wraps: list[WrappedKey] = []
        statement = """SELECT id, commitment, subject, day, signature FROM keys
                       WHERE id = ? AND local IS NOT NULL AND (held = 0 OR ?)"""
        wrap = """SELECT id, recipient, wrapped FROM wraps JOIN keys ON number = key
                  WHERE id = ? AND (wraps.held = 0 OR ?)"""
        for id_ in dict.fromkeys(ids):
            statements += [KeyStatement(*row) for row in self._database.rows(statement, id_, also_held)]
            wraps += [WrappedKey(*row) for row in self._database.rows(wrap, id_, also_held)]
        return statements, wraps

    def confirm(self, ids: Iterable[bytes], wraps: Iterable[tuple[bytes, bytes]]) -> None:
        """Record that the clinic holds these statements and these wrapped keys (key id, fingerprint)."""
        self._database.execute_many("UPDATE keys SET held = 1 WHERE id = ? AND held = 0", [(id_,) for id_ in ids])
        update = (
            """UPDATE wraps SET held = 1 WHERE key = (SELECT number FROM keys WHERE id = ?) AND recipient = ? AND held = 0"""
        )
        self._database.execute_many(update, wraps)

    def forget_confirmations(self) -> None:
        """Record that the clinic holds nothing, because it has another store."""
        self._database.execute("UPDATE keys SET held = 0")
        self._database.execute("UPDATE wraps SET held = 0")

    def erase(self, subject: str) -> None:
        """Overwrite all that opens the subject's blocks. The rows of the keys stay until their blocks are deleted."""
        self.erased_subjects.add(subject)
        numbers = [(key.number,) for key in self.stored.values() if key.subject == subject]
        with self._database.destroying():
            self._database.execute_many("UPDATE keys SET local = NULL WHERE number = ?", numbers)
            self._database.execute_many("DELETE FROM wraps WHERE key = ?", numbers)
            self._database.execute("DELETE FROM state WHERE subject = ?", subject)
        self.load()

    def delete(self, numbers: Collection[int]) -> None:
        """Overwrite keys that open nothing any more, and the recipients of subjects without keys."""
        with self._database.destroying():
            self._database.execute_many("DELETE FROM keys WHERE number = ?", [(number,) for number in numbers])
            self._database.execute_many("DELETE FROM wraps WHERE key = ?", [(number,) for number in numbers])
        self.load()
        kept = {*self._registered, *(key.subject for key in self.stored.values())}
        for (subject,) in self._database.rows("SELECT subject FROM recipients"):
            if subject not in kept:
                self._database.execute("DELETE FROM recipients WHERE subject = ?", subject)

    def recipient(self, subject: str) -> RecipientPublicKey:
        """The subject's recipient, as registered now or, if the registration omits the subject, as registered before.

        Raises:
            RegistrationError: the subject was never registered.
        """
        if subject in self._registered:
            return self._registered[subject]
        row = self._database.row("SELECT public FROM recipients WHERE subject = ?", subject)
        if row is None:
            raise RegistrationError(
                f"the registration has no subject {subject}: register the subject for hub {self._hub} at the clinic, and bring"
                " the registration file that it writes"
            )
        return RecipientPublicKey.from_bytes(row[0])

    def _create(self, subject: str, day: int) -> tuple[StoredKey, DataKey]:
        recipient = self.recipient(subject)
        key = DataKey.generate()
        statement = sign_statement(key, hub=self._hub, subject=subject, day=day, device=self._keys.device)
        local = self._keys.hub.seal(key.secret, local_purpose(key.id))
        insert = "INSERT INTO keys (id, subject, day, commitment, signature, local) VALUES (?, ?, ?, ?, ?, ?)"
        values = (key.id, subject, day, statement.commitment, statement.signature, local)
        number = self._database.execute(insert, *values).lastrowid or 0
        self._wrap(number, key, subject, recipient)
        self.stored[number] = StoredKey(number, key.id, subject, day, is_erased=False)
        return self.stored[number], key

    def _wrap(self, number: int, key: DataKey, subject: str, recipient: RecipientPublicKey) -> None:
        wrapped = wrap_key(key, hub=self._hub, subject=subject, recipient=recipient)
        insert = "INSERT OR IGNORE INTO wraps (key, recipient, wrapped) VALUES (?, ?, ?)"
        self._database.execute(insert, number, wrapped.recipient, wrapped.wrapped)

    def _open_local(self, key: StoredKey) -> DataKey:
        row = self._database.row("SELECT local FROM keys WHERE number = ? AND local IS NOT NULL", key.number)
        if row is None:
            raise PermanentError(f"the buffer {self._database.path} is damaged: a data key of {key.subject} is missing")
        return DataKey(key.id, self._keys.hub.open(row[0], local_purpose(key.id)))


def read_keys(path: Path) -> list[StoredKey]:
    """Return the keys of a buffer that another process may have open, without their secrets. Changes nothing.

    Raises:
        SyncError: the buffer cannot be read.
    """
    with translating_sqlite_errors(path), closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        connection.execute("PRAGMA query_only = ON")
        return [StoredKey(*row) for row in connection.execute(f"{_SELECT} ORDER BY number")]


def local_purpose(key_id: bytes) -> bytes:
    """What a data key is sealed with the hub key for."""
    return b"data key " + key_id
