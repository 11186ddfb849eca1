"""Files that other processes use too: replaced atomically, locked, and readable by their owner only.

A reader, or a restart after a crash, finds either the old content of a replaced file or the new one, complete.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

PRIVATE_MODE: Final = 0o600
"""Only the owner may read and write."""


@contextmanager
def replacing(path: Path, *, durable: bool = False, mode: int = PRIVATE_MODE) -> Iterator[Path]:
    """Yield a temporary file in the folder of `path`; when the body ends, it replaces `path`.

    If the body raises, the temporary file is deleted and `path` is unchanged. A symbolic link is followed. The temporary
    file has the suffix of `path`, because some writers choose the format by suffix.

    Args:
        path: the file to replace; it may be missing, its folder must exist.
        durable: sync the content to the disk before the replacement, so it survives a power cut.
        mode: permissions of the new file; by default only the owner may read it.

    Raises:
        OSError: the temporary file cannot be created, synced or moved.
    """
    target = path.resolve()
    temporary, descriptor = create_temporary(target)
    try:
        os.fchmod(descriptor, mode)
        os.close(descriptor)
        yield temporary
        if durable:
            sync_path(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create_temporary(path: Path) -> tuple[Path, int]:
    """Create a file beside `path` that only its owner may read, with a name of its own and the same suffix, open for writing.

    `tempfile` does this, too, but loads half a megabyte that a hub has no other use for.

    Raises:
        OSError: the file cannot be created.
    """
    temporary = path.with_name(f".{path.stem}-{os.urandom(8).hex()}{path.suffix}")
    return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE)


def create_private_file(path: Path, text: str) -> None:
    """Create a file that only its owner may read, and its folder if it is missing. A file that cannot be written is removed.

    Raises:
        FileExistsError: the file exists; it is unchanged.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created if it is missing. The lock ends with the process at the latest.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is not set.
        OSError: the file cannot be created.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def make_private(path: Path) -> None:
    """Create an empty file if there is none, and let only the owner access it, and the -wal and -shm files of a database.

    SQLite gives new -wal and -shm files the mode of the database, so this is enough for those that it makes later.

    Raises:
        OSError: the file cannot be created, or belongs to another user.
    """
    path.touch(mode=PRIVATE_MODE)
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        with suppress(FileNotFoundError):  # SQLite deletes these two with the last connection
            if file.stat().st_mode & ~PRIVATE_MODE & 0o777:
                file.chmod(PRIVATE_MODE)


def replace_secret(path: Path, content: bytes) -> None:
    """Replace a file by one with mode 0600, atomically and durably, and then write zeros over what it held before.

    Raises:
        OSError: it is missing or cannot be replaced.
    """
    with path.open("r+b") as former:
        with replacing(path, durable=True) as draft:
            draft.write_bytes(content)
        sync_path(path.parent)
        _overwrite(former)


def destroy_file(path: Path) -> None:
    """Write zeros over a file and delete it. The volume should be encrypted: a flash memory may keep the old bytes elsewhere.

    Raises:
        OSError: the file cannot be written or deleted.
    """
    with path.open("r+b") as file:
        _overwrite(file)
    path.unlink()


def _overwrite(file: BinaryIO) -> None:
    file.write(bytes(os.fstat(file.fileno()).st_size))
    file.flush()
    os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """Return when a file's content, or a folder's list of files, is on the disk.

    Raises:
        OSError: it cannot be opened or synced.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
