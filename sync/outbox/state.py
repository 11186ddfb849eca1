"""Named values of the caller in the outbox, sealed with the hub key. Each belongs to a subject."""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sync.keys import HubKey
from sync.outbox.database import OutboxDatabase, translating_sqlite_errors

BUSY_TIMEOUT_S: Final = 2.0
"""How long to wait for the agent's transaction: longer than any of them (tens of ms on an SD card)."""
_SELECT: Final = "SELECT subject, name, sealed FROM state ORDER BY subject, name"


@dataclass(frozen=True, slots=True)
class StoredState:
    """A named value of the caller and the subject that it belongs to."""

    subject: str
    name: str
    value: bytes


class OutboxState:
    """Stores, reads and deletes the values."""

    def __init__(self, database: OutboxDatabase, hub_key: HubKey) -> None:
        self._database: Final = database
        self._hub_key: Final = hub_key

    def save(self, subject: str, values: Mapping[str, bytes]) -> None:
        """Replace named values, within a transaction."""
        upsert = "INSERT INTO state VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sealed = excluded.sealed"
        if not values:
            return
        rows = [(subject, name, self._hub_key.seal(value, state_purpose(subject, name))) for name, value in values.items()]
        with self._database.overwriting():
            self._database.execute_many(upsert, rows)

    def load(self, subject: str, name: str) -> bytes | None:
        """A value; None if there is none."""
        row = self._database.row("SELECT sealed FROM state WHERE subject = ? AND name = ?", subject, name)
        return self._hub_key.open(row[0], state_purpose(subject, name)) if row else None

    def load_all(self) -> list[StoredState]:
        """The values of all subjects."""
        return _open_states(((subject, name, sealed) for subject, name, sealed in self._database.rows(_SELECT)), self._hub_key)

    def delete(self, subject: str) -> None:
        """Delete the values of a subject, within a transaction."""
        with self._database.overwriting():
            self._database.execute("DELETE FROM state WHERE subject = ?", subject)


def read_states(path: Path, hub_key: HubKey) -> list[StoredState]:
    """Return the values of all subjects from a buffer that another process may have open. Changes nothing.

    Raises:
        SyncError: the buffer cannot be read, or was sealed with another hub key.
    """
    with translating_sqlite_errors(path), contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        connection.execute("PRAGMA query_only = ON")
        rows = connection.execute(_SELECT).fetchall()
    return _open_states(rows, hub_key)


def _open_states(rows: Iterable[tuple[str, str, bytes]], hub_key: HubKey) -> list[StoredState]:
    return [StoredState(subject, name, hub_key.open(sealed, state_purpose(subject, name))) for subject, name, sealed in rows]


def state_purpose(subject: str, name: str) -> bytes:
    return f"state {subject} {name}".encode()
