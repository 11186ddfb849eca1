"""The two interfaces through which uplink and ingest reach the outside: messages, and a worker thread."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sync.mqtt import Event

T = TypeVar("T")


class Transport(Protocol):
    """Carries messages: `sync.mqtt.Mqtt`, or a link within one process."""

    async def publish(self, topic: str, payload: bytes) -> None: ...

    async def receive(self) -> Event: ...


class Call(Protocol):
    """Runs a function where its database may be used: on a worker thread, or at once on virtual time."""

    async def __call__(self, function: Callable[..., T], /, *values: Any) -> T: ...
