"""The outbox's SQLite connection: transactions, the translation of SQLite's errors, and the reserve for a full disk."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sync.errors import DamagedBufferError, DiskFullError, PermanentError, SyncError, TransientError
from sync.outbox.reserve import Reserve

PAGE_BYTES: Final = 512
"""Of a new database. Each commit writes whole pages: at 10 s a commit, a one-channel ECG with vital signs and state
writes 92 MB a day with pages of 512 bytes, and half as much again with pages of 1 KiB (`benchmarks.disk_writes`)."""
WAL_BYTES: Final = 1024 * 1024
"""Size of the WAL after which SQLite moves it into the database. The reserve for a full disk must be twice as large."""
SECURE_DELETE: Final = "PRAGMA secure_delete = FAST"
"""Zeros replace what is deleted from a page that stays in use. To overwrite each deleted block would double what is written."""
DEFERRED_LIMIT: Final = 16
"""Bodies that wait for a commit. It bounds the answers of the clinic that a crash loses, for which the hub sends again."""
_UNDECODABLE: Final = "Could not decode to UTF-8"
"""The error of the sqlite3 module for a damaged text, which has no code."""
T = TypeVar("T")


class OutboxDatabase:
    """The open database, used by one thread at a time.

    Changes that need not survive a crash are deferred: they stay in an open transaction until the next durable one and
    write no pages of their own. A crash loses them together; an error only delays them.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, reserve: Reserve) -> None:
        self.connection: Final = connection
        self.path: Final = path
        self.reserve: Final = reserve
        self._must_shrink_wal = True
        """After a kill the WAL may hold what was destroyed just before."""
        self._deferred: list[Callable[[], object]] = []
        """The bodies in the open transaction, or those to run again because it was rolled back."""

    def close(self) -> None:
        """Commit what was deferred, if possible, and close the connection."""
        with contextlib.suppress(SyncError):
            if self._deferred:
                self.run(lambda: None)
        self.connection.close()

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        with translating_sqlite_errors(self.path):
            return self.connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with translating_sqlite_errors(self.path):
            self.connection.executemany(statement, rows)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with translating_sqlite_errors(self.path):
            return self.connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of the result; None if there is none."""
        rows = self.rows(query, *values)
        return rows[0] if rows else None

    def run(self, body: Callable[[], T]) -> T:
        """Run the body's statements, after those that were deferred, in one transaction. It is on the disk on return.

        After an error it is rolled back, and the next transaction runs the deferred bodies again.
        """
        with self._in_transaction():
            result = body()
            self.connection.execute("COMMIT")
        self._deferred.clear()
        if self._must_shrink_wal:
            self.shrink_wal()
        return result

    def defer(self, body: Callable[[], T]) -> T:
        """Run the body's statements now, and commit them with the next transaction that `run` is called for.

        At most `DEFERRED_LIMIT` bodies wait, and none after an error. The body must be one that may run again.
        """
        was_rolled_back = self._deferred and not self.connection.in_transaction
        if was_rolled_back or len(self._deferred) >= DEFERRED_LIMIT:
            return self.run(body)
        changes = self.connection.total_changes
        with self._in_transaction():
            result = body()
            if self.connection.total_changes > changes:
                self._deferred.append(body)
            elif not self._deferred:
                self.connection.execute("COMMIT")
        return result

    @contextmanager
    def _in_transaction(self) -> Iterator[None]:
        """Begin a transaction, or continue the open one; roll it back if the body fails."""
        with translating_sqlite_errors(self.path):
            try:
                if not self.connection.in_transaction:
                    self.connection.execute("BEGIN IMMEDIATE")
                    for deferred in self._deferred:
                        deferred()
                yield
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def run_in_reserve(self, body: Callable[[], T]) -> T:
        """Like `run`, in the room of the reserve; fills the reserve again."""
        self.reserve.release()
        try:
            return self.run(body)
        finally:
            self.shrink_wal()
            self.reserve.fill()

    @contextmanager
    def overwriting(self) -> Iterator[None]:
        """Overwrite with zeros all that the body deletes or replaces, also on pages that become free."""
        self.execute("PRAGMA secure_delete = ON")
        try:
            yield
        finally:
            self.execute(SECURE_DELETE)

    @contextmanager
    def destroying(self) -> Iterator[None]:
        """Overwrite what the body deletes. After the transaction, the WAL goes, too: it holds the pages as they were before."""
        self._must_shrink_wal = True
        with self.overwriting():
            yield

    def shrink_wal(self) -> None:
        """Move the WAL into the database and free its space. Best effort: a full disk may have no room for its pages."""
        with contextlib.suppress(sqlite3.DatabaseError):  # the next transaction reports damage
            is_busy, _, _ = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._must_shrink_wal = self._must_shrink_wal and bool(is_busy)

    def count_free_bytes(self) -> int:
        """Space of deleted blocks in the database file, which new ones can use."""
        values = [self.rows(f"PRAGMA {name}")[0][0] for name in ("freelist_count", "page_size")]
        return int(values[0]) * int(values[1])


@contextmanager
def translating_sqlite_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors in the body as TransientError or PermanentError, with a message that says what to do."""
    try:
        yield
    except UnicodeDecodeError as error:  # a damaged text, or SQLite's message about one
        raise _translate(sqlite3.DatabaseError("text is not UTF-8"), sqlite3.SQLITE_CORRUPT, path) from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None and str(error).startswith(_UNDECODABLE):
            raise _translate(error, sqlite3.SQLITE_CORRUPT, path) from error
        if code is None:  # misuse of the sqlite3 module: a defect in our code
            raise
        raise _translate(error, code & 0xFF, path) from error


def _translate(error: sqlite3.DatabaseError, code: int, path: Path) -> SyncError:
    match code:
        case sqlite3.SQLITE_FULL:
            return DiskFullError(
                f"cannot write the buffer {path}: the disk is full; free some disk space. Stored blocks are kept."
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return TransientError(f"the buffer {path} is locked by another process: stop the second agent if one is running")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            return TransientError(f"cannot read or write the buffer {path} ({error}): check the disk")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DamagedBufferError(
                f"the buffer {path} is damaged: check the disk; the agent's next start keeps what is readable in a new buffer"
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_AUTH:
            return PermanentError(f"cannot write to the buffer {path} ({error}): check that its folder exists and is writable")
        case _:
            return PermanentError(f"SQLite rejected an operation on the buffer {path} ({error}): report this as a defect")
