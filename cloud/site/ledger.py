"""The list of the certificates that a site issued, in a SQLite file. The enrolment and the operator's commands share it."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloud.errors import ClinicError
from cloud.site.certificates import BACKDATE_S, Kind, Revocation
from config.files import make_private

BUSY_TIMEOUT_S: Final = 10.0
"""How long to wait for another process; each of them writes one row."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS certificate (
    serial TEXT PRIMARY KEY, -- hexadecimal: SQLite's integers are too short
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    issued_s INTEGER NOT NULL,
    expires_s INTEGER NOT NULL,
    revoked_s INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS certificate_by_name ON certificate (kind, name);
CREATE TABLE IF NOT EXISTS list (number INTEGER PRIMARY KEY AUTOINCREMENT, written_s INTEGER NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was issued. Times are seconds since 1970; `revoked_s` is None while it is not revoked."""

    serial: int
    kind: Kind
    name: str
    generation: int
    issued_s: int
    expires_s: int
    revoked_s: int | None = None


class Ledger:
    """All certificates of a site by kind and name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, issued: Issued) -> None:
        """Store a certificate before it is handed out.

        Raises:
            ClinicError: the file cannot be written.
        """
        values = (
            *(f"{issued.serial:x}", issued.kind, issued.name),
            *(issued.generation, issued.issued_s, issued.expires_s, issued.revoked_s),
        )
        with self._open() as database:
            database.execute("INSERT INTO certificate VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def revoke(self, kind: Kind, name_or_serial: str, now_s: int) -> int:
        """Mark the certificates of a name, or the one with this serial number in hexadecimal; returns how many changed.

        Raises:
            ClinicError: the file cannot be written.
        """
        statement = (
            "UPDATE certificate SET revoked_s = ?1"
            " WHERE kind = ?2 AND (name = ?3 OR serial = ?4) AND revoked_s IS NULL AND expires_s > ?1"
        )
        with self._open() as database:
            return database.execute(statement, (now_s, kind, name_or_serial, name_or_serial.lower())).rowcount

    def list_issued(self, kind: Kind | None = None, name: str | None = None) -> list[Issued]:
        """Return the certificates, oldest first, of one kind and name if they are given.

        Raises:
            ClinicError: the file cannot be read.
        """
        query = "SELECT * FROM certificate WHERE ?1 IN (kind, '') AND ?2 IN (name, '') ORDER BY issued_s, rowid"
        with self._open() as database:
            return [
                Issued(int(serial, 16), Kind(kind_), *rest)
                for serial, kind_, *rest in database.execute(query, (kind or "", name or ""))
            ]

    def list_revoked(self, kind: Kind, generation: int, now_s: int) -> list[Revocation]:
        """Return what a revocation list of an issuing CA holds: what was revoked and has not expired.

        Raises:
            ClinicError: the file cannot be read.
        """
        return [
            Revocation(one.serial, one.revoked_s)
            for one in self.list_issued(kind)
            if one.revoked_s is not None and one.generation == generation and one.expires_s > now_s
        ]

    @contextlib.contextmanager
    def writing_lists(self, now_s: int) -> Iterator[tuple[int, int]]:
        """Yield number and time of new revocation lists: the number is higher than all before, and the time later.

        Of two lists of the same second a running server would go on to use the first. The time is at most `BACKDATE_S` ahead,
        so that the lists are valid at once. No other process writes to the ledger, or lists, meanwhile: it would replace newer
        lists by older ones.

        Raises:
            ClinicError: the file cannot be written.
        """
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            (last_s,) = database.execute("SELECT coalesce(max(written_s), 0) FROM list").fetchone()
            written_s = min(max(now_s, last_s + 1), now_s + BACKDATE_S)
            number = database.execute("INSERT INTO list (written_s) VALUES (?)", (written_s,)).lastrowid
            assert number is not None
            yield number, written_s

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            make_private(self._path)
            with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S)) as database:
                database.executescript(_SCHEMA)
                with database:
                    yield database
        except (OSError, sqlite3.Error) as error:
            raise ClinicError(
                f"cannot use the list of certificates {self._path} ({error}): check the disk, and run as the clinic's user"
            ) from error
