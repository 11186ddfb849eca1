"""The folder of one demo. It holds private keys, so a temporary one is deleted however the demo ends."""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "pulsegate-demo-"
_LOCK: Final = "lock"
"""The file in a temporary folder that a running demo locks."""


@contextmanager
def demo_folder(chosen: Path | None) -> Iterator[Path]:
    """Yield `chosen`, created if it is missing, or else a temporary folder, which is deleted at the end.

    Also deletes the temporary folders of demos that were killed before they could do so.

    Raises:
        OSError: the folder cannot be created.
    """
    if chosen is not None:
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield chosen
        return
    _delete_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _delete_leftovers(parent: Path) -> None:
    """Delete our own user's demo folders that no running demo has locked."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not _is_locked(folder / _LOCK):
                shutil.rmtree(folder)


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
