"""One scenario over the in-process link, amqtt and mosquitto with TLS: the link of the other tests must behave like MQTT."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from amqtt.broker import Broker

from cloud.ingest import run_ingest
from cloud.site.mosquitto import INGEST
from config.endpoint import Endpoint
from sync.errors import TransientError
from sync.mqtt import IN_FLIGHT_LIMIT, Connected, Disconnected, Message, MqttClient
from sync.wire import UP_TOPICS, ack_topic, up_topic
from tests.cloud_ingest.ingest_testbed import ACK_KEY, HUB, NOW_US
from tests.databases import ON_BOTH
from tests.mosquitto import Broker as Mosquitto

DATABASES = ON_BOTH
TIMEOUT_S = 30.0
Interrupt = Callable[[], Awaitable[None]]


@asynccontextmanager
async def broker(port: int = 0) -> AsyncIterator[int]:
    """Run amqtt on this port, or on a free one. All connections are aborted at the end, because amqtt may hang on them."""
    listener = {"type": "external"}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    amqtt = Broker({"listeners": {"default": listener, "test": listener}, "plugins": plugins})
    await amqtt.start()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await amqtt.stream_connected(reader, writer, "test")

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await amqtt.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def call_inline(function: Callable[..., Any], /, *values: Any) -> Any:
    return function(*values)


@asynccontextmanager
async def over_link(link: Any, _request: pytest.FixtureRequest) -> AsyncIterator[tuple[Any, Any, Interrupt]]:
    async def interrupt() -> None:
        link.cut()
        await asyncio.sleep(0.01)
        link.connect()

    link.connect()
    yield link.hub, link.clinic, interrupt


@asynccontextmanager
async def running_clients(*clients: MqttClient) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(client.run()) for client in clients]
        yield
        for task in running:
            task.cancel()


@asynccontextmanager
async def over_amqtt(_link: Any, _request: pytest.FixtureRequest) -> AsyncIterator[tuple[MqttClient, MqttClient, Interrupt]]:
    port = free_port()
    async with AsyncExitStack() as running:
        await running.enter_async_context(broker(port))

        async def interrupt() -> None:
            await running.aclose()
            await running.enter_async_context(broker(port))

        hub = MqttClient(Endpoint("127.0.0.1", port), client_id=HUB, subscriptions=[ack_topic(HUB)])
        clinic = MqttClient(Endpoint("127.0.0.1", port), client_id="ingest", subscriptions=UP_TOPICS)
        async with running_clients(hub, clinic):
            yield hub, clinic, interrupt


@asynccontextmanager
async def over_mosquitto(_link: Any, request: pytest.FixtureRequest) -> AsyncIterator[tuple[MqttClient, MqttClient, Interrupt]]:
    """With TLS on both sides, and a broker that is killed."""
    mosquitto: Mosquitto = request.getfixturevalue("broker")

    async def interrupt() -> None:
        await asyncio.to_thread(mosquitto.kill)
        await asyncio.to_thread(mosquitto.start)

    hub = MqttClient(mosquitto.hub(HUB), client_id=HUB, subscriptions=[ack_topic(HUB)])
    clinic = MqttClient(mosquitto.service(INGEST), client_id="ingest/1", subscriptions=UP_TOPICS)
    async with running_clients(hub, clinic):
        yield hub, clinic, interrupt


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("transport", [over_link, over_amqtt])
def test_every_block_arrives_once_despite_a_broker_restart(
    testbed: Any, make_link: Callable[[], Any], transport: Any, request: pytest.FixtureRequest
) -> None:
    check_that_every_block_arrives_once(testbed, make_link(), transport, request)


def test_every_block_arrives_once_although_mosquitto_is_killed(
    testbed: Any, make_link: Callable[[], Any], request: pytest.FixtureRequest
) -> None:
    check_that_every_block_arrives_once(testbed, make_link(), over_mosquitto, request)


def check_that_every_block_arrives_once(testbed: Any, link: Any, transport: Any, request: pytest.FixtureRequest) -> None:
    async def scenario() -> int:
        committed = 0

        def on_committed() -> None:
            nonlocal committed
            committed += 1

        async with transport(link, request) as (hub, clinic, interrupt):
            uplink = testbed.uplink(hub, call_inline)
            async with asyncio.TaskGroup() as tasks:
                receiver = testbed.clinic
                ingest = run_ingest(receiver.store, receiver.registry, ACK_KEY, clinic, on_committed, now_us=lambda: NOW_US)
                running = [tasks.create_task(uplink.run()), tasks.create_task(ingest)]
                for i in range(60):
                    testbed.outbox.put_many([("vital", b"v%d" % i), ("wave", b"w%d" % i + bytes(4000)), ("alert", b"a%d" % i)])
                    uplink.wake()
                    await asyncio.sleep(0.002)
                    if i == 30:
                        await wait_until(lambda: testbed.clinic.store.count_blocks() > 20)
                        await interrupt()
                await wait_until(testbed.is_drained)
                for task in running:
                    task.cancel()
        assert committed > 0
        return int(uplink.statistics.blocks_acked)

    threads = set(threading.enumerate())
    blocks_acked = asyncio.run(scenario())
    opened = testbed.opened_plaintexts()
    assert len(opened) == len(set(opened)) == 180
    assert testbed.outbox.statistics().acknowledged == blocks_acked == 180
    store = testbed.clinic.store
    assert (store.list_quarantined(), store.list_rejected_messages()) == ([], [])
    assert store.counts().copied_hubs == 0
    assert [t.name for t in set(threading.enumerate()) - threads if t.name.startswith("paho")] == []


def test_the_client_falls_back_to_mqtt_3_1_1() -> None:
    """amqtt rejects MQTT 5 with the return code of 3.1.1 and closes the connection."""

    async def scenario() -> None:
        async with broker() as port:
            client = MqttClient(Endpoint("127.0.0.1", port), client_id="a", subscriptions=["there/#"])
            async with asyncio.TaskGroup() as tasks, asyncio.timeout(TIMEOUT_S):
                running = tasks.create_task(client.run())
                assert await client.receive() == Connected()
                await client.publish("there/and/back", b"\x00\xff" * 30_000)
                assert await client.receive() == Message("there/and/back", b"\x00\xff" * 30_000)
                await client.publish("elsewhere", b"")
                running.cancel()
            assert client.statistics().connections == 1
            assert client.statistics().published == 2
            assert await client.receive() == Disconnected("stopped")

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", [over_amqtt, over_mosquitto])
def test_more_messages_than_the_window_arrive_in_order(transport: Any, request: pytest.FixtureRequest) -> None:
    topic, n = up_topic(HUB, "wave"), 2 * IN_FLIGHT_LIMIT

    async def scenario() -> list[Any]:
        async with asyncio.timeout(TIMEOUT_S), transport(None, request) as (sender, receiver, _):
            assert [await client.receive() for client in (sender, receiver)] == [Connected(), Connected()]
            for i in range(n):
                await sender.publish(topic, b"%d" % i)
            return [await receiver.receive() for _ in range(n)]

    assert asyncio.run(scenario()) == [Message(topic, b"%d" % i) for i in range(n)]


def test_the_client_waits_for_a_broker_and_reports_the_missing_connection() -> None:
    async def scenario() -> None:
        port = free_port()
        client = MqttClient(Endpoint("127.0.0.1", port), client_id="a", subscriptions=[])
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(TIMEOUT_S):
            running = tasks.create_task(client.run())
            with pytest.raises(TransientError, match=f"no connection to the broker 127.0.0.1:{port}"):
                await client.publish("a", b"")
            async with broker(port):
                assert await client.receive() == Connected()
            assert isinstance(await client.receive(), Disconnected)
            running.cancel()

    asyncio.run(scenario())


def test_cancelling_leaves_no_thread_when_the_broker_does_not_respond() -> None:
    """The listener accepts the connection and sends nothing."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            client = MqttClient(Endpoint("127.0.0.1", silent.getsockname()[1]), client_id="a", subscriptions=[])
            async with asyncio.TaskGroup() as tasks, asyncio.timeout(TIMEOUT_S):
                running = tasks.create_task(client.run())
                accepted, _ = await asyncio.to_thread(silent.accept)
                running.cancel()
            accepted.close()

    asyncio.run(scenario())
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("paho")] == []
