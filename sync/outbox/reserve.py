"""A file that holds disk space for the moment when the disk is full.

On a full disk SQLite cannot even delete: the deletion is written to the WAL first. The outbox then releases this file, deletes,
moves the WAL into the database, which frees its space, and fills the file again.
"""

import os
from pathlib import Path
from typing import Final

RESERVE_BYTES: Final = 2 * 1024 * 1024
"""Twice the WAL (`sync.outbox.database.WAL_BYTES`): moving a WAL of new pages into the database takes its size once more, and
the transaction that needed the room extends it."""
ALERT_KEEPS_BYTES: Final = RESERVE_BYTES // 2
"""Alerts may spend the reserve down to this; the rest is for deleting."""
STEP_BYTES: Final = 64 * 1024
"""If there is no room for the whole file, it is filled to the largest multiple of this that fits."""


class Reserve:
    """The reserve file of one buffer, used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = 0

    @property
    def exists(self) -> bool:
        """Whether the file is there: then a buffer was open before."""
        return self._path.exists()

    @property
    def is_full(self) -> bool:
        return self._bytes == RESERVE_BYTES

    @property
    def has_room_for_alerts(self) -> bool:
        return self._bytes > ALERT_KEEPS_BYTES

    def fill(self) -> None:
        """Allocate the file (mode 0600) as far as the disk has room.

        Best effort: without it the buffer works until the disk is full.
        """
        self._bytes = 0
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            disk = os.fstatvfs(descriptor)
            room = os.fstat(descriptor).st_blocks * 512 + disk.f_bavail * disk.f_frsize
            largest = min(RESERVE_BYTES, room // STEP_BYTES * STEP_BYTES)
            self._bytes = next((size for size in range(largest, 0, -STEP_BYTES) if _allocate(descriptor, size)), 0)
        finally:
            os.close(descriptor)

    def release(self) -> bool:
        """Delete the file. Returns whether that freed room."""
        try:
            is_held = self._path.stat().st_blocks > 0
            self._path.unlink()
        except OSError:
            return False
        self._bytes = 0
        return is_held


def _allocate(descriptor: int, size: int) -> bool:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.ftruncate(descriptor, 0)  # a failed allocation may have taken a part
        return False
    return True


def free_bytes(path: Path) -> int:
    """Room on the disk of a file."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize
