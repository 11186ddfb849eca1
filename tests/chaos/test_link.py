"""The proxy between a hub and the broker: what it cuts, holds back and carries."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.chaos.link import HOST, FaultyLink

MESSAGE = bytes(range(256)) * 20


class EchoBroker:
    """Sends back what it receives, and keeps it."""

    def __init__(self) -> None:
        self.received = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(4096):
                self.received += chunk
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[EchoBroker, FaultyLink, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A broker, a link to it, and a connection of a hub through the link."""
    broker = EchoBroker()
    server = await asyncio.start_server(broker.serve, HOST, 0)
    link = FaultyLink("hub-1", server.sockets[0].getsockname()[1], random.Random(1))
    await link.open()
    reader, writer = await asyncio.open_connection(HOST, link.port)
    try:
        yield broker, link, reader, writer
    finally:
        writer.close()
        await link.close()
        server.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_link_carries_everything_in_both_directions() -> None:
    async def scenario() -> None:
        async with linked() as (broker, _link, reader, writer):
            writer.write(MESSAGE)
            assert await reader.readexactly(len(MESSAGE)) == MESSAGE
            assert broker.received == MESSAGE

    run(scenario)


def test_a_cut_passes_the_begin_of_a_message_and_ends_the_connection() -> None:
    async def scenario() -> None:
        async with linked() as (broker, link, reader, writer):
            link.cut_after_bytes = 3000
            writer.write(MESSAGE)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(len(MESSAGE))
            assert MESSAGE.startswith(broker.received)
            assert len(broker.received) <= 3000
            assert link.cut_after_bytes is None

    run(scenario)


def test_a_black_hole_keeps_the_connection_and_carries_what_waited_when_it_ends() -> None:
    async def scenario() -> None:
        async with linked() as (broker, link, reader, writer):
            link.swallow()
            writer.write(MESSAGE)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.1)
            assert not broker.received
            link.repair()
            assert await reader.readexactly(len(MESSAGE)) == MESSAGE

    run(scenario)


def test_a_link_that_is_down_accepts_nobody() -> None:
    async def scenario() -> None:
        async with linked() as (broker, link, reader, writer):
            link.is_down = True
            link.reset()
            writer.write(MESSAGE)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            again, new = await asyncio.open_connection(HOST, link.port)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await again.readexactly(1)
            new.close()
            assert not broker.received

    run(scenario)


def test_a_slow_link_takes_as_long_as_its_rate_says() -> None:
    async def scenario() -> None:
        async with linked() as (_broker, link, reader, writer):
            link.bytes_per_s = 100_000.0
            began_s = asyncio.get_running_loop().time()
            writer.write(MESSAGE)
            await reader.readexactly(len(MESSAGE))
            assert asyncio.get_running_loop().time() - began_s >= len(MESSAGE) / link.bytes_per_s

    run(scenario)
