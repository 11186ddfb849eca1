"""The two interfaces that uplink and ingest depend on: a message transport and a worker thread."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sync.mqtt import MqttEvent

T = TypeVar("T")


class Transport(Protocol):
    """Carries messages: `sync.mqtt.MqttClient`, or a link within one process."""

    async def publish(self, topic: str, payload: bytes) -> None: ...

    async def receive(self) -> MqttEvent: ...


class WorkerCall(Protocol):
    """Runs a function on the worker thread that owns its database, or inline on virtual time. Returns the result."""

    async def __call__(self, function: Callable[..., T], /, *values: Any) -> T: ...
