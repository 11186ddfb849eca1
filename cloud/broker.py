"""The MQTT broker inside the embedded clinic: amqtt on loopback, for development and demonstrations, not for production."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from amqtt.broker import Broker

SHUTDOWN_TIMEOUT_S: Final = 5.0
"""Time for the broker to close its sessions. Sessions still open after it end with the process."""

_LISTENER: Final = "loopback"
_CONFIG: Final[dict[str, Any]] = {
    # "external": amqtt serves connections that we accept, so that we open the socket ourselves and know its port.
    "listeners": {"default": {"type": "external"}, _LISTENER: {"type": "external"}},
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}


@asynccontextmanager
async def embedded_broker(listener: socket.socket) -> AsyncIterator[None]:
    """Run a broker on `listener`, a bound socket. It accepts every client without authentication."""
    broker = Broker(_CONFIG)
    writers: set[asyncio.StreamWriter] = set()

    async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await broker.stream_connected(reader, writer, listener_name=_LISTENER)
        finally:
            writers.discard(writer)

    await broker.start()
    try:
        server = await asyncio.start_server(serve_client, sock=listener)
        try:
            yield
        finally:
            server.close()
            for writer in writers:  # amqtt would wait without limit for a client that disconnects during the shutdown
                writer.transport.abort()
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                await broker.shutdown()
