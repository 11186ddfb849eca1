"""Named values of the caller in the outbox, sealed with the hub key. Each belongs to a subject."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sync.keys import HubKey
from sync.outbox.database import OutboxDatabase


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
        for name, value in values.items():
            sealed = self._hub_key.seal(value, _purpose(subject, name))
            with self._database.overwriting():
                self._database.execute(upsert, subject, name, sealed)

    def load(self, subject: str, name: str) -> bytes | None:
        """A value; None if there is none."""
        row = self._database.row("SELECT sealed FROM state WHERE subject = ? AND name = ?", subject, name)
        return self._hub_key.open(row[0], _purpose(subject, name)) if row else None

    def load_all(self) -> list[StoredState]:
        """The values of all subjects."""
        rows = self._database.rows("SELECT subject, name, sealed FROM state ORDER BY subject, name")
        return [
            StoredState(subject, name, self._hub_key.open(sealed, _purpose(subject, name))) for subject, name, sealed in rows
        ]

    def delete(self, subject: str) -> None:
        """Delete the values of a subject, within a transaction."""
        with self._database.overwriting():
            self._database.execute("DELETE FROM state WHERE subject = ?", subject)


def _purpose(subject: str, name: str) -> bytes:
    return f"state {subject} {name}".encode()
