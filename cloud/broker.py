"""The MQTT broker inside the embedded clinic: amqtt on loopback, for development and demonstrations, not for production."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from amqtt.broker import Broker

SHUTDOWN_S: Final = 5.0
"""For the broker to end its sessions; what it has not ended then dies with the process."""

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
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await broker.stream_connected(reader, writer, listener_name=_LISTENER)
        finally:
            writers.discard(writer)

    await broker.start()
    try:
        server = await asyncio.start_server(serve, sock=listener)
        try:
            yield
        finally:
            server.close()
            for writer in writers:  # amqtt waits for ever for a client that leaves while it shuts down
                writer.transport.abort()
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                await broker.shutdown()
