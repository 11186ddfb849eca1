"""A proxy between a hub and the broker that breaks the connection in the ways of a bad network."""

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Final

CHUNK_BYTES: Final = 2048
"""About the packets of a link: small enough that a cut falls into the middle of a message."""
HOST: Final = "127.0.0.1"
LOST_SHARE: Final = 0.1
LOSS_DELAY_S: Final = (0.2, 1.5)
"""What TCP makes of a lost packet: everything behind it waits for a retransmission, of which the first comes after 0.2 s."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 s: closing sends a reset, and what is under way is lost."""


@dataclass(slots=True)
class FaultyLink:
    """Passes bytes between a hub and the broker on `port`. Set the fields to break it; `repair` restores it.

    Attributes:
        delay_s: how long each chunk waits.
        is_lossy: whether some chunks wait for a retransmission.
        bytes_per_s: what the link carries; None: no limit.
        is_black_hole: whether it swallows everything and stays open.
        cut_after_bytes: after so many further bytes to the broker the connection is reset, in the middle of a message.
    """

    name: str
    broker_port: int
    rng: random.Random
    host: str = HOST
    port: int = 0
    delay_s: float = 0.0
    is_lossy: bool = False
    bytes_per_s: float | None = None
    is_down: bool = False
    cut_after_bytes: int | None = None
    cuts: int = 0
    _is_passing: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def open(self) -> None:
        """Listen on a free port of `host`."""
        self._is_passing.set()
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.reset()

    def repair(self) -> None:
        """Carry everything again. What waited in a black hole is carried, too, as after a long delay."""
        self.delay_s, self.is_lossy, self.bytes_per_s, self.is_down, self.cut_after_bytes = 0.0, False, None, False, None
        self._is_passing.set()

    def swallow(self) -> None:
        """Become a black hole: connections stay open, and nothing passes."""
        self._is_passing.clear()

    def reset(self) -> None:
        """Reset all connections."""
        self.cuts += bool(self._writers)
        for writer in list(self._writers):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        to_broker: asyncio.StreamWriter | None = None
        try:
            if self.is_down:
                return
            from_broker, to_broker = await asyncio.open_connection(HOST, self.broker_port)
            self._writers.add(to_broker)
            pumps = [
                asyncio.create_task(self._pump(reader, to_broker, is_up=True)),
                asyncio.create_task(self._pump(from_broker, writer, is_up=False)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
        except OSError:
            pass  # the broker does not run
        finally:
            for one in (writer, to_broker):
                if one is not None:
                    one.transport.abort()
                    self._writers.discard(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._wait(len(chunk))
                if is_up and self.cut_after_bytes is not None:
                    passed, self.cut_after_bytes = self.cut_after_bytes, self.cut_after_bytes - len(chunk)
                    if self.cut_after_bytes <= 0:
                        self.cut_after_bytes = None
                        writer.write(chunk[:passed])
                        await writer.drain()
                        self.reset()
                        return
                writer.write(chunk)
                await writer.drain()

    async def _wait(self, size: int) -> None:
        delay_s = self.delay_s + (size / self.bytes_per_s if self.bytes_per_s else 0.0)
        if self.is_lossy and self.rng.random() < LOST_SHARE:
            delay_s += self.rng.uniform(*LOSS_DELAY_S)
        if delay_s:
            await asyncio.sleep(delay_s)
        await self._is_passing.wait()
