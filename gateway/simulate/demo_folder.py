"""The folders of one demo. They hold private keys, so temporary ones are deleted however the demo ends."""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from config.files import locked

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
        with locked(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _delete_leftovers(parent: Path) -> None:
    """Delete our own user's demo folders that no running demo has locked."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if is_ours and (folder / _LOCK).exists():  # a demo that has just begun has none yet
                with locked(folder / _LOCK):
                    shutil.rmtree(folder)
