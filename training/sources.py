"""Digests of source code: what was made by other sources is not used again."""

import hashlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any


def code(*sources: ModuleType | Callable[..., Any] | type) -> str:
    """A digest of the sources that decide what is learnt."""
    return hashlib.sha256("".join(inspect.getsource(source) for source in sources).encode()).hexdigest()
