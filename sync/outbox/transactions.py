"""Runs transactions of the buffer: again in its reserve on a full disk. After an error, what is in memory is read again."""

from collections.abc import Callable
from typing import TypeVar

from sync.errors import DiskFullError
from sync.outbox.database import OutboxDatabase

T = TypeVar("T")


class Transactions:
    """The transactions of one open buffer."""

    def __init__(self, database: OutboxDatabase, reload: Callable[[], None]) -> None:
        """`reload` reads again what is kept in memory."""
        self._database, self._reload = database, reload

    def run(self, body: Callable[[], T]) -> T:
        """Run a transaction that is on the disk on return."""
        return self._attempt(self._database.run, body)

    def run_in_reserve(self, body: Callable[[], T]) -> T:
        """Run a transaction that may spend a part of the reserve."""
        return self._attempt(self._database.run_in_reserve, body)

    def run_or_use_reserve(self, body: Callable[[], T]) -> T:
        """Run a transaction that frees room or must not fail on a full disk."""
        return self._run_or_use_reserve(self._database.run, body)

    def defer(self, body: Callable[[], T]) -> T:
        """Run a transaction likewise that a crash before the next one may lose."""
        return self._run_or_use_reserve(self._database.defer, body)

    def commit(self) -> None:
        """Make what was deferred durable."""
        self.run_or_use_reserve(lambda: None)

    def _run_or_use_reserve(self, run: Callable[[Callable[[], T]], T], body: Callable[[], T]) -> T:
        try:
            result = self._attempt(run, body)
        except DiskFullError:
            return self.run_in_reserve(body)
        if not self._database.reserve.is_full:
            self._database.reserve.fill()
        return result

    def _attempt(self, run: Callable[[Callable[[], T]], T], body: Callable[[], T]) -> T:
        try:
            return run(body)
        except BaseException:
            self._reload()
            raise
