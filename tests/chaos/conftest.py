"""A folder in memory: what is synced there costs nothing, and a database server starts again at once."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql import find_memory


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A new folder in memory, or on the disk if that has no room."""
    path = Path(tempfile.mkdtemp(prefix="pulsegate-chaos-", dir=find_memory()))
    path.chmod(0o711)  # PostgreSQL's user reaches its files there
    yield path
    shutil.rmtree(path)
