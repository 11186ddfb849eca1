"""Key files: a title line that names the kind and version, then one line of hexadecimal digits."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from config.files import create_temporary, replacing
from sync.errors import PermanentError

PUBLIC_MODE: Final = 0o644
"""Mode of a public key file: any user may read it. `umask` does not apply to it."""
T = TypeVar("T")


class KeyFileError(PermanentError):
    """A key file is missing, damaged, accessible to other users, or cannot be written."""


def write_public_file(path: Path, title: str, key: bytes) -> None:
    """Write a public key; a file of that name is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path, durable=True, mode=PUBLIC_MODE) as draft:
        draft.write_bytes(_format(title, key))


def create_private_file(path: Path, title: str, key: bytes) -> None:
    """Create a private key file with access for its owner only. An existing file is never replaced.

    Raises:
        KeyFileError: the file exists, or cannot be written.
    """
    create_secret_file(path, _format(title, key))


def load_private_file(path: Path, title: str, parse: Callable[[bytes], T]) -> T:
    """Read a private key file; `parse` makes the key of its bytes, or raises ValueError.

    Raises:
        KeyFileError: the file is missing, accessible to other users, of another kind, or damaged.
    """
    check_private_file(path)
    return load_public_file(path, title, parse)


def load_public_file(path: Path, title: str, parse: Callable[[bytes], T]) -> T:
    """Read a public key file; `parse` makes the key of its bytes, or raises ValueError.

    Raises:
        KeyFileError: the file is missing, of another kind, or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}; check the path and its permissions") from error
    title_line = title.encode() + b"\n"
    if not content.startswith(title_line):
        raise KeyFileError(f"{path} does not begin with '{title}': give the path of a file of that kind")
    try:
        return parse(bytes.fromhex(content[len(title_line) :].decode()))
    except ValueError as error:
        raise KeyFileError(f"{path} is damaged: its second line is not such a key; restore it from a backup") from error


def create_secret_file(path: Path, content: bytes) -> None:
    """Create a file with mode 0600, complete and on the disk, or not at all: on a full disk or after a crash it does not exist.

    Raises:
        KeyFileError: the file exists, or cannot be written.
    """
    try:
        draft, descriptor = create_temporary(path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # unlike a rename, it never replaces an existing file
        finally:
            draft.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise KeyFileError(
            f"cannot create the key file {path}: {error.strerror}; check that its folder exists, is writable, has room and"
            " holds no such file"
        ) from error


def check_private_file(path: Path) -> None:
    """Raise KeyFileError if the file is missing or accessible to users other than its owner."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}; check the path and its permissions") from error
    if mode & 0o077:
        raise KeyFileError(f"the key file {path} is accessible to other users (mode {mode:04o}): run chmod 600 on it")


def _format(title: str, key: bytes) -> bytes:
    return f"{title}\n{key.hex()}\n".encode()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
