"""The MQTT broker inside the embedded clinic: amqtt on loopback, for development and demonstrations, not for production.

amqtt itself limits neither the number of connections, nor the time to the first packet, nor the size of a packet.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker

from cloud.sockets import ConnectionLimit
from sync.wire import MESSAGE_LIMIT_BYTES

SHUTDOWN_TIMEOUT_S: Final = 5.0
"""Time for the broker to close its sessions. Sessions still open after it end with the process."""

CONNECT_TIMEOUT_S: Final = 10.0
"""Time for a client's CONNECT packet. Clients send it at once; on a slow link it takes a second."""
IDLE_TIMEOUT_S: Final = 90.0
"""Time for the next bytes of a connected client: one and a half times the keep-alive of our clients (paho's 60 s)."""
PACKET_LIMIT_BYTES: Final = MESSAGE_LIMIT_BYTES + 1024
"""Largest part of a packet that the broker reads: a payload, with room for a topic. A client that sends more is cut."""

_LISTENER: Final = "loopback"
_CONFIG: Final[dict[str, Any]] = {
    # "external": amqtt serves connections that we accept, so that we open the socket ourselves and know its port.
    "listeners": {"default": {"type": "external"}, _LISTENER: {"type": "external"}},
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}


class _BoundedReader(StreamReaderAdapter):  # type: ignore[misc]
    """Reads a client's packets for amqtt. Cuts the connection if they stop coming, or if one is too large."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader)
        self._transport = writer.transport
        self._loop = asyncio.get_running_loop()
        self._deadline_s = self._loop.time() + CONNECT_TIMEOUT_S
        self._is_connected = False

    def connected(self) -> None:
        """The broker has answered the client's CONNECT packet."""
        self._is_connected = True
        self._deadline_s = self._loop.time() + IDLE_TIMEOUT_S

    async def read(self, n: int = -1) -> bytes:
        """Read `n` bytes.

        Raises:
            ConnectionResetError: the connection was cut.
        """
        if n > PACKET_LIMIT_BYTES:
            self._transport.abort()
            raise ConnectionResetError(f"{n} bytes in a packet, over the limit of {PACKET_LIMIT_BYTES}")
        try:
            async with asyncio.timeout_at(self._deadline_s):  # amqtt cancels a read after each keep-alive and reads again
                data: bytes = await super().read(n)
        except TimeoutError as error:
            self._transport.abort()
            raise ConnectionResetError("the client sends nothing") from error
        if self._is_connected:
            self._deadline_s = self._loop.time() + IDLE_TIMEOUT_S
        return data


class _AnnouncingWriter(StreamWriterAdapter):  # type: ignore[misc]
    """Calls `on_first_write` at the first packet to the client: the answer to its CONNECT packet."""

    def __init__(self, writer: asyncio.StreamWriter, on_first_write: Callable[[], None]) -> None:
        super().__init__(writer)
        self._on_first_write: Callable[[], None] | None = on_first_write

    def write(self, data: bytes) -> None:
        super().write(data)
        if self._on_first_write is not None:
            self._on_first_write()
            self._on_first_write = None


@asynccontextmanager
async def embedded_broker(listener: socket.socket) -> AsyncIterator[None]:
    """Run a broker on `listener`, a bound socket. It accepts every client without authentication."""
    broker = Broker(_CONFIG)
    writers: set[asyncio.StreamWriter] = set()
    limit = ConnectionLimit("broker")

    async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not limit.allows(len(writers) + 1):
            writer.transport.abort()
            return
        writers.add(writer)
        try:
            bounded = _BoundedReader(reader, writer)
            await broker.external_connected(bounded, _AnnouncingWriter(writer, bounded.connected), _LISTENER)
        finally:
            writer.transport.abort()  # amqtt leaves some connections open that it no longer reads
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
