"""A device that the fake BlueZ knows."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bumble import hci
from bumble.device import Connection


@dataclass
class RemoteDevice:
    """A device that was seen in a scan, or that has a bond."""

    address: hci.Address
    connection: Connection | None = None
    connecting: asyncio.Task[Any] | None = None
    pairing: asyncio.Task[Any] | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Tasks that use the connection; they are cancelled when it ends."""
    notifying: set[tuple[str, str]] = field(default_factory=set)
    """The paths of the characteristics that notify, each with the program that it notifies."""

    @contextmanager
    def using_connection(self) -> Iterator[None]:
        """Cancel the task when the connection ends: Bumble would wait forever for the answer to its next request."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            yield
        finally:
            self.tasks.discard(task)
