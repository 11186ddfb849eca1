"""Checks that the agent can start with its settings, and prepares its data folder.

`pulsegate check-config` makes the same checks. They change nothing, so a start that fails leaves nothing behind.
"""

import os
import stat
from pathlib import Path
from typing import Final

from config.settings import Settings
from sync.errors import PermanentError
from sync.seal import ClinicPublicKey

PRIVATE_FILES: Final = ("bonds.json", "buffer.db", "buffer.db-shm", "buffer.db-wal", "models.json", "status.json")
"""The files in the data folder that earlier versions left readable for other users. The hub key is not listed: if others could
read it, that must be seen (`sync.seal.check_private_file`)."""


def check_startup(settings: Settings) -> None:
    """Check the clinic's public key and the data folder.

    Raises:
        PermanentError: the agent cannot start with these settings.
    """
    ClinicPublicKey.load(settings.clinic.public_key)
    check_data_folder(settings.data)


def check_data_folder(folder: Path) -> None:
    """Check that the folder is our own and writable or, if it does not exist, can be created.

    Raises:
        PermanentError: it is neither.
    """
    remedy = "set `data` to a folder that you can write to"
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        status = existing.stat()
    except OSError as error:
        raise PermanentError(f"cannot use the data folder {folder} ({error.strerror}): {remedy}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise PermanentError(f"cannot create the data folder {folder}, because {existing} is a file: {remedy}")
    if existing == folder and status.st_uid != os.geteuid():
        raise PermanentError(
            f"the data folder {folder} belongs to another user (id {status.st_uid}, this is {os.geteuid()}):"
            " run pulsegate as that user, or set `data` to a folder of your own"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermanentError(f"cannot write to {existing}, which holds the agent's data: {remedy}")


def prepare_data_folder(folder: Path) -> None:
    """Create the folder if it does not exist, and make its files readable only by their owner.

    Raises:
        PermanentError: the folder cannot be created, or a file in it cannot be changed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in map(folder.joinpath, PRIVATE_FILES):
            _make_private(path)
    except OSError as error:
        raise PermanentError(
            f"cannot create the data folder {folder} ({error.strerror}): set `data` to a folder that you can write to"
        ) from error


def _make_private(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode) and mode & 0o077:
        path.chmod(mode & 0o700)
