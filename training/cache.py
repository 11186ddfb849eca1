"""Cached results of training: where they are stored, and digests of the source code that produced them."""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

RUNS: Final = Path(__file__).parent / "runs"
"""Folder of the cached recordings, windows and networks, with one subfolder per model. Git ignores it."""


def source_digest(*sources: ModuleType | Callable[..., Any] | type) -> str:
    """Return a digest of the source code that determines a cached result. A result of other source code is not reused."""
    return hashlib.sha256("".join(inspect.getsource(source) for source in sources).encode()).hexdigest()
