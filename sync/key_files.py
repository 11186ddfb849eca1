"""Key files: a title line that names the kind and version, then one line of hexadecimal digits.

A private key of a hub whose hub key does not lie in a plain file is sealed with the hub key: the title then says so.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from config.files import create_temporary, replacing
from sync.errors import PermanentError

PUBLIC_MODE: Final = 0o644
"""Mode of a public key file: any user may read it. `umask` does not apply to it."""
SEALED: Final = ", sealed with the hub key"
"""What is added to the title of a private key file that is sealed."""
T = TypeVar("T")


class KeyFileError(PermanentError):
    """A key file is missing, damaged, accessible to other users, or cannot be written."""


class Sealer(Protocol):
    """Seals private keys: `sync.keys.HubKey`. `open` is the inverse of `seal`, and raises PermanentError."""

    def seal(self, plaintext: bytes, purpose: bytes) -> bytes: ...

    def open(self, sealed: bytes, purpose: bytes) -> bytes: ...


def write_public_file(path: Path, title: str, key: bytes) -> None:
    """Write a public key; a file of that name is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path, durable=True, mode=PUBLIC_MODE) as draft:
        draft.write_bytes(_format(title, key))


def create_private_file(path: Path, title: str, key: bytes, sealer: Sealer | None = None) -> None:
    """Create a private key file with access for its owner only, sealed if there is a sealer. No existing file is replaced.

    Raises:
        KeyFileError: the file exists, or cannot be written.
    """
    create_secret_file(path, _format(title, key) if sealer is None else _format_sealed(title, key, sealer))


def load_private_file(path: Path, title: str, parse: Callable[[bytes], T], sealer: Sealer | None = None) -> T:
    """Read a private key file, sealed or not; `parse` makes the key of its bytes, or raises ValueError.

    Raises:
        KeyFileError: the file is missing, accessible to other users, of another kind, sealed with another hub key, or damaged.
    """
    check_private_file(path)
    if not is_sealed_file(path):
        return load_public_file(path, title, parse)
    if sealer is None:
        raise KeyFileError(f"{path} is sealed with a hub key that lies elsewhere: restore the hub.key that belongs to it")
    try:
        return load_public_file(path, title + SEALED, lambda sealed: parse(sealer.open(sealed, title.encode())))
    except KeyFileError:
        raise
    except PermanentError as error:
        raise KeyFileError(f"{path} does not open with this hub key: restore both files from one backup") from error


def is_sealed_file(path: Path) -> bool:
    """Whether a private key file is sealed with the hub key.

    Raises:
        KeyFileError: it cannot be read.
    """
    return _read(path).partition(b"\n")[0].endswith(SEALED.encode())


def seal_file_content(content: bytes, sealer: Sealer) -> bytes:
    """Return the sealed form of a private key file's content. Raises ValueError if it is damaged."""
    title, digits = content.decode("ascii").splitlines()
    return _format_sealed(title, bytes.fromhex(digits), sealer)


def unseal_file_content(content: bytes, sealer: Sealer) -> bytes:
    """The inverse of `seal_file_content`. Raises ValueError or PermanentError if it is damaged, or of another hub key."""
    sealed_title, digits = content.decode("ascii").splitlines()
    title = sealed_title.removesuffix(SEALED)
    return _format(title, sealer.open(bytes.fromhex(digits), title.encode()))


def load_public_file(path: Path, title: str, parse: Callable[[bytes], T]) -> T:
    """Read a public key file; `parse` makes the key of its bytes, or raises ValueError.

    Raises:
        KeyFileError: the file is missing, of another kind, or damaged.
    """
    content = _read(path)
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}; check the path and its permissions") from error


def _format_sealed(title: str, key: bytes, sealer: Sealer) -> bytes:
    return _format(title + SEALED, sealer.seal(key, title.encode()))


def _format(title: str, key: bytes) -> bytes:
    return f"{title}\n{key.hex()}\n".encode()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
