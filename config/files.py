"""Replace files atomically: a reader, and a restart after a crash, sees the old content or the new one, never a part."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = False, mode: int = 0o600) -> Iterator[Path]:
    """Yield a new file beside `path`; it takes the place of `path` when the body ends.

    If the body raises, the new file is deleted and `path` is unchanged. A symbolic link is followed. The new file has the
    suffix of `path`, for writers that choose the format by it.

    Args:
        path: the file to replace; it need not exist, its folder must.
        durable: sync the content to the disk before the replacement, so that it also survives a power cut.
        mode: permissions of the new file: by default only its owner may read it.

    Raises:
        OSError: the new file cannot be created, synced or moved.
    """
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
    draft = Path(name)
    try:
        os.fchmod(descriptor, mode)
        os.close(descriptor)
        yield draft
        if durable:
            _sync(draft)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
