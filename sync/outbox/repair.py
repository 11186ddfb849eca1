"""Opens the buffer. A damaged one is replaced by a new one with all that is readable, and kept beside it.

    buffer.db ──damaged──> buffer.db-salvaging ──────────────────────────> buffer.db-damaged-2026-11-30
                                   └──salvage──> buffer.db-new ──> buffer.db

Each step is one renaming, so that the next start resumes after a kill at any place.
"""

import json
import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config.files import sync_path
from sync.errors import DamagedBufferError, DiskFullError, PermanentError
from sync.keys import HubKeys
from sync.outbox.database import OutboxDatabase
from sync.outbox.integrity import check_integrity
from sync.outbox.pages import is_wal_damaged, read_wal
from sync.outbox.reserve import Reserve, free_bytes
from sync.outbox.schema import NewerBufferError, open_database
from sync.outbox.state import OutboxState

if TYPE_CHECKING:
    from sync.outbox.salvage import Salvaged

SALVAGE_STATE: Final = "salvage"
"""The name of the state that says what a salvage kept and lost; the caller replaces it when it has told a person."""
DAMAGED_SUFFIX: Final = "-damaged-"
KEPT_DAMAGED_BYTES: Final = 64 * 1024 * 1024
"""A damaged file is deleted if the disk has less room: alerts need it."""
_SALVAGING, _NEW = "-salvaging", "-new"
_SQLITE_FILES: Final = ("", "-wal", "-shm")
log: Final = logging.getLogger(__name__)


class BufferOpener:
    """Opens one hub's buffer, for a subject. `subjects` are those of the registration; `clock` returns seconds since 1970."""

    def __init__(
        self,
        path: Path,
        reserve: Reserve,
        hub: str,
        subject: str,
        keys: HubKeys,
        subjects: Collection[str],
        clock: Callable[[], int],
    ) -> None:
        self._path = path
        self._reserve = reserve
        self._hub, self._subject = hub, subject
        self._keys = keys
        self._subjects = subjects
        self._clock = clock

    def open(self, *, is_damaged: bool) -> OutboxDatabase:
        """Open the buffer, or create it; salvage it first if it is damaged. `is_damaged` says that damage was met before.

        Raises:
            PermanentError: the database belongs to another application or hub, or has a newer schema. Nothing was changed.
            SealError: it was sealed with another hub key. Nothing was changed.
            DiskFullError: there is no room for a new buffer. The next call continues.
        """
        if _beside(self._path, _SALVAGING).exists():
            self._resume()
            is_damaged = False
        try:
            if is_damaged:
                raise DamagedBufferError(f"the buffer {self._path} was found damaged while it was in use")
            return self._open_checked()
        except NewerBufferError:
            raise
        except PermanentError as error:
            if not (isinstance(error, DamagedBufferError) or self._is_ours()):
                raise
            log.error("%s", error)
        self._move_aside()
        self._salvage()
        return open_database(self._path, self._reserve, hub=self._hub, hub_key=self._keys.hub)

    def _open_checked(self) -> OutboxDatabase:
        wal = read_wal(self._path)
        if self._path.exists() and not self._path.stat().st_size and (wal or self._reserve.exists):
            raise DamagedBufferError(f"the buffer {self._path} is empty: it was cut off")
        if is_wal_damaged(self._path):
            raise DamagedBufferError(f"the write-ahead log of the buffer {self._path} is damaged")
        database = open_database(self._path, self._reserve, hub=self._hub, hub_key=self._keys.hub)
        try:
            check_integrity(database, self._keys.hub)
        except BaseException:
            database.close()
            raise
        return database

    def _is_ours(self) -> bool:
        """Whether a file that was refused as another's holds keys of this hub: then damage made it look so."""
        from sync.outbox.salvage import is_buffer_of  # noqa: PLC0415  memory that only a damaged buffer needs

        try:
            return is_buffer_of(self._path, self._hub, self._keys)
        except OSError:
            return False

    def _move_aside(self) -> None:
        self._path.replace(_beside(self._path, _SALVAGING))
        self._move_wal()

    def _move_wal(self) -> None:
        wal = _beside(self._path, "-wal")
        if wal.exists():
            wal.replace(_beside(self._path, _SALVAGING + "-wal"))
        _beside(self._path, "-shm").unlink(missing_ok=True)

    def _resume(self) -> None:
        """Continue what a kill interrupted."""
        if self._path.exists():
            self._keep_damaged()
        else:
            self._move_wal()
            self._salvage()

    def _salvage(self) -> None:
        """Make the new buffer and put it in place."""
        try:
            done = self._write_new()
        except DiskFullError:
            if not self._reserve.release():
                raise
            done = self._write_new()
        new = _beside(self._path, _NEW)
        sync_path(new)
        new.replace(self._path)
        sync_path(self._path.parent)
        log.error("the buffer %s was damaged: %d blocks were kept, %d are lost", self._path, done.kept, done.lost)
        self._keep_damaged()

    def _write_new(self) -> "Salvaged":
        from sync.outbox.salvage import salvage  # noqa: PLC0415  as above

        new = _beside(self._path, _NEW)
        for suffix in _SQLITE_FILES:
            _beside(new, suffix).unlink(missing_ok=True)
        database = open_database(new, self._reserve, hub=self._hub, hub_key=self._keys.hub)
        try:
            source = _beside(self._path, _SALVAGING)
            done = salvage(source, database, hub=self._hub, keys=self._keys, subjects=self._subjects)
            report = {"kept": done.kept, "lost": done.lost}
            state = OutboxState(database, self._keys.hub)
            database.run(lambda: state.save(self._subject, {SALVAGE_STATE: json.dumps({"salvaged": report}).encode()}))
        finally:
            database.close()
        if _beside(new, "-wal").exists():  # SQLite deletes it when it has moved all of it into the database
            raise DiskFullError(f"cannot write the buffer {new}: the disk is full; free some disk space")
        return done

    def _keep_damaged(self) -> None:
        """Give the damaged file its last name. Only the last one is kept, and none where the disk is short of room."""
        delete_damaged(self._path)
        day = datetime.fromtimestamp(max(0, self._clock()), UTC).date()
        for suffix in _SQLITE_FILES[:2]:
            file = _beside(self._path, _SALVAGING + suffix)
            if file.exists():
                file.replace(_beside(self._path, f"{DAMAGED_SUFFIX}{day}{suffix}"))
        if free_bytes(self._path) < KEPT_DAMAGED_BYTES:
            delete_damaged(self._path)


def damaged_files(path: Path) -> list[Path]:
    """The damaged buffers that are kept beside a buffer, with their WALs."""
    return sorted(path.parent.glob(f"{path.name}{DAMAGED_SUFFIX}*"))


def delete_damaged(path: Path) -> None:
    """Delete the damaged buffers that are kept beside a buffer: they hold data keys, too."""
    for file in damaged_files(path):
        file.unlink(missing_ok=True)


def delete_old_damaged(path: Path, retention_s: float) -> None:
    """Delete them at the end of the retention, since they hold data keys of their time."""
    for file in damaged_files(path):
        if time.time() - file.stat().st_mtime > retention_s:
            file.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
