"""Uplink and ingest over amqtt with SQLite, and over mosquitto with TLS and PostgreSQL; the in-process link behaves alike."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cloud.ingest import run_ingest
from cloud.site.mosquitto import INGEST
from config.endpoint import Endpoint
from sync.errors import TransientError
from sync.mqtt import IN_FLIGHT_LIMIT, Connected, Disconnected, Message, MqttClient
from sync.wire import UP_TOPICS, ack_topic, up_topic
from tests.brokers import run_amqtt, run_broker_beside, running_clients
from tests.cloud_ingest.ingest_testbed import ACK_KEY, HUB, NOW_US
from tests.databases import ON_BOTH, Databases
from tests.mosquitto import free_port

DATABASES = ON_BOTH
TIMEOUT_S = 30.0
Interrupt = Callable[[], Awaitable[None]]


async def call_inline(function: Callable[..., Any], /, *values: Any) -> Any:
    return function(*values)


@asynccontextmanager
async def over_link(link: Any) -> AsyncIterator[tuple[Any, Any, Interrupt]]:
    async def interrupt() -> None:
        link.cut()
        await asyncio.sleep(0.01)
        link.connect()

    link.connect()
    yield link.hub, link.clinic, interrupt


@asynccontextmanager
async def over_mqtt(
    databases: Databases, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[MqttClient, MqttClient, Interrupt]]:
    async with run_broker_beside(databases, request) as broker:
        hub = MqttClient(broker.hub(HUB), client_id=HUB, subscriptions=[ack_topic(HUB)])
        clinic = MqttClient(broker.service(INGEST), client_id="ingest/1", subscriptions=UP_TOPICS)
        async with running_clients((hub, clinic)):
            yield hub, clinic, broker.restart


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.sqlite_only
def test_the_link_of_the_other_tests_behaves_like_mqtt(testbed: Any, make_link: Callable[[], Any]) -> None:
    check_that_every_block_arrives_once(testbed, lambda: over_link(make_link()))


def test_every_block_arrives_once_despite_a_broker_restart(
    testbed: Any, databases: Databases, request: pytest.FixtureRequest
) -> None:
    check_that_every_block_arrives_once(testbed, lambda: over_mqtt(databases, request))


def check_that_every_block_arrives_once(testbed: Any, transport: Any) -> None:
    async def scenario() -> int:
        committed = 0

        def on_committed() -> None:
            nonlocal committed
            committed += 1

        async with transport() as (hub, clinic, interrupt):
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
        async with run_amqtt() as port:
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


def test_more_messages_than_the_window_arrive_in_order(databases: Databases, request: pytest.FixtureRequest) -> None:
    topic, n = up_topic(HUB, "wave"), 2 * IN_FLIGHT_LIMIT

    async def scenario() -> list[Any]:
        async with asyncio.timeout(TIMEOUT_S), over_mqtt(databases, request) as (sender, receiver, _):
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
            async with run_amqtt(port):
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
