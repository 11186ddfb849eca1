"""The MQTT client and the uplink with a broker that is missing, closes, does not read, or delivers too much."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from config.endpoint import Endpoint
from sync.errors import TransientError
from sync.mqtt import RECEIVE_QUEUE_LENGTH, Connected, Disconnected, Message, MqttClient
from sync.mqtt_backoff import BACKOFF_S, USEFUL_AFTER_S, Backoff
from sync.wire import MESSAGE_LIMIT_BYTES, ack_topic

HUB = "hub-1"
TIMEOUT_S = 30.0
CONNECT, PUBLISH, SUBSCRIBE = 1, 3, 8
OnPacket = Callable[[int, bytes, asyncio.StreamWriter], Awaitable[bool]]


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0] >> 4
    length = shift = 0
    more = True
    while more:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift, more = shift + 7, bool(byte & 0x80)
    return kind, await reader.readexactly(length)


@asynccontextmanager
async def mqtt_5_broker(on_packet: OnPacket) -> AsyncIterator[int]:
    """Accepts connections and subscriptions, then calls `on_packet`; closes the connection when that returns False."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                kind, body = await read_packet(reader)
                if kind == CONNECT:
                    writer.write(bytes((0x20, 3, 0, 0, 0)))
                elif kind == SUBSCRIBE:
                    writer.write(bytes((0x90, 4, body[0], body[1], 0, 1)))
                if not await on_packet(kind, body, writer):
                    break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in started:
            task.cancel()


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def call_inline(function: Callable[..., Any], /, *values: Any) -> Any:
    return function(*values)


def make_client(port: int) -> MqttClient:
    return MqttClient(Endpoint("127.0.0.1", port), client_id=HUB, subscriptions=[ack_topic(HUB)])


def test_only_a_connection_that_lasts_resets_the_back_off() -> None:
    shortest, longest = BACKOFF_S
    backoff = Backoff()
    assert [backoff.next_pause_s(0.01) for _ in range(8)] == [min(shortest * 2**n, longest) for n in range(8)]
    assert backoff.next_pause_s(USEFUL_AFTER_S) == shortest
    assert backoff.next_pause_s(0.0) == 2 * shortest


def test_names_a_broker_that_closes_at_a_publish(testbed: Any, caplog: pytest.LogCaptureFixture) -> None:
    closed = 0

    async def close_at_publish(kind: int, _body: bytes, _writer: asyncio.StreamWriter) -> bool:
        nonlocal closed
        closed += kind == PUBLISH
        return kind != PUBLISH

    async def scenario() -> str | None:
        async with mqtt_5_broker(close_at_publish) as port:
            client = make_client(port)
            uplink = testbed.uplink(client, call_inline)
            async with running(client.run(), uplink.run()):
                await wait_until(lambda: closed == 2 and uplink.statistics.problem is not None)
                return uplink.statistics.problem

    testbed.outbox.put_many([("wave", bytes(8000))] * 50)
    problem = asyncio.run(scenario())
    assert problem is not None
    assert "closed the connection after a publish: check that it allows hub-1 to publish" in problem
    assert [record.getMessage() for record in caplog.records] == [f"cannot send to the clinic: {problem}"]


def test_names_a_missing_broker_once(testbed: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.mqtt_backoff.BACKOFF_S", (0.01, 0.01))

    async def scenario() -> tuple[int, str | None]:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        client = make_client(port)
        events = 0
        receive = client.receive

        async def count_events() -> Any:
            nonlocal events
            event = await receive()
            events += 1
            return event

        monkeypatch.setattr(client, "receive", count_events)
        uplink = testbed.uplink(client, call_inline)
        async with running(client.run(), uplink.run()):
            await wait_until(lambda: events == 3)
            return port, uplink.statistics.problem

    port, problem = asyncio.run(scenario())
    assert problem == f"the broker 127.0.0.1:{port} does not answer: check that it runs, and the host and port in the settings"
    assert len(caplog.records) == 1


def test_a_full_queue_drops_messages_and_keeps_the_connected_event() -> None:
    async def deliver(kind: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        if kind == SUBSCRIBE:
            writer.write(b"\x30\x04\x00\x01a\x00" * (RECEIVE_QUEUE_LENGTH + 44))
        return True

    async def scenario() -> None:
        async with mqtt_5_broker(deliver) as port:
            client = make_client(port)
            async with running(client.run()):
                await wait_until(lambda: client.statistics().dropped == 45)
                assert await client.receive() == Connected()
                assert await client.receive() == Message("a", b"")

    asyncio.run(scenario())


def test_a_payload_over_the_limit_is_cut_so_that_it_is_rejected() -> None:
    async def deliver(kind: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        if kind == SUBSCRIBE:
            writer.write(b"\x30\x84\x89\x7a\x00\x01a\x00" + bytes(2_000_000))
        return True

    async def scenario() -> None:
        async with mqtt_5_broker(deliver) as port:
            client = make_client(port)
            async with running(client.run()):
                assert await client.receive() == Connected()
                assert await client.receive() == Message("a", bytes(MESSAGE_LIMIT_BYTES + 1))

    asyncio.run(scenario())


def test_publish_waits_for_a_broker_that_does_not_read_and_ends_with_the_connection() -> None:
    """The kernel takes a few messages, then `publish` waits, so that an alert can be chosen before what is still to be sent."""
    published = 0
    is_blocked = asyncio.Event()

    async def stop_reading(kind: int, _body: bytes, _writer: asyncio.StreamWriter) -> bool:
        if kind == PUBLISH:
            await is_blocked.wait()
        return kind != PUBLISH

    async def publish_all(client: MqttClient) -> None:
        nonlocal published
        with contextlib.suppress(TransientError):
            for _ in range(99):
                await client.publish("a", bytes(60_000))
                published += 1

    async def scenario() -> None:
        async with mqtt_5_broker(stop_reading) as port:
            client = make_client(port)
            async with running(client.run()):
                assert await client.receive() == Connected()
                publishing = asyncio.create_task(publish_all(client))
                await asyncio.wait([publishing], timeout=0.5)
                assert not publishing.done()
                is_blocked.set()
                await publishing
                assert isinstance(await client.receive(), Disconnected)

    asyncio.run(scenario())
    assert published < 90
