"""The MQTT broker inside the embedded clinic: amqtt on loopback, for development and demonstrations, not for production."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from amqtt.broker import Broker

_LISTENER: Final = "ours"
_CONFIG: Final[dict[str, Any]] = {
    # External: the broker serves connections that we accept, so that the socket and its port are ours to know.
    "listeners": {"default": {"type": "external"}, _LISTENER: {"type": "external"}},
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}


@asynccontextmanager
async def embedded_broker(listener: socket.socket) -> AsyncIterator[None]:
    """A broker that takes anyone who reaches `listener`, a bound socket."""
    broker = Broker(_CONFIG)
    await broker.start()
    try:
        server = await asyncio.start_server(partial(broker.stream_connected, listener_name=_LISTENER), sock=listener)
        try:
            yield
        finally:
            server.close()
    finally:
        await broker.shutdown()
