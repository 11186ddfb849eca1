"""Copies the buffer while the agent runs. What it holds is sealed, and so is the copy.

The copy is opened like a buffer that was restored: it begins a new epoch, so no number is used twice.
"""

import contextlib
import sqlite3
from pathlib import Path

from config.files import replacing
from sync.errors import PermanentError
from sync.outbox.database import translating_sqlite_errors
from sync.outbox.state import BUSY_TIMEOUT_S


def back_up(path: Path, target: Path) -> int:
    """Write a copy of the buffer, as of one moment, to `target` (mode 0600), which is replaced. Returns its size in bytes.

    The agent goes on meanwhile. The copy has no free pages: nothing that was deleted is in it.

    Raises:
        PermanentError: there is no buffer, it is damaged, or the file cannot be written.
        TransientError: the disk is full.
    """
    if not path.exists():
        raise PermanentError(f"there is no buffer {path}: start the agent with pulsegate run")
    try:
        with replacing(target, durable=True) as draft:
            with translating_sqlite_errors(path), contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as source:
                source.execute("VACUUM INTO ?", (str(draft),))
            return draft.stat().st_size
    except OSError as error:
        raise PermanentError(
            f"cannot write the backup {target} ({error.strerror}): choose a file in a folder that you can write to"
        ) from error
