"""What a hub may rely on, on each pair of database and broker: SQLite with amqtt, and PostgreSQL with mosquitto."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, closing

import pytest
from sqlalchemy import Engine

from cloud.changes import AlertKey
from cloud.clock import now_us
from cloud.ingest import run_ingest
from cloud.receipts import ReceiptQueue
from cloud.registry import Registry
from cloud.services import SHARED_TOPICS
from cloud.site.mosquitto import INGEST, OPENER
from cloud.store import Store
from cloud.subscribed_transport import SubscribedTransport
from sync.messages import decode_ack, decode_receipt
from sync.mqtt import Connected, Message, MqttClient, MqttEvent
from sync.paho_mqtt import MQTTProtocolVersion
from sync.wire import UP_TOPICS, ack_topic, receipt_topic, up_topic
from tests.brokers import ContractBroker, run_broker_beside, running_clients
from tests.clinic_testbed import Clinic, Hub
from tests.cloud.synthetic import START_US, alert, find_alert, heart_rate
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH
TIMEOUT_S = 60.0
RESEND_S = 0.5
"""A hub sends again what is not acknowledged; after a broker's restart the clinic connects up to a second later."""
Run = Callable[[Callable[[ContractBroker], Awaitable[None]]], None]


@pytest.fixture
def run(databases: Databases, request: pytest.FixtureRequest) -> Run:
    """Runs a scenario with the broker of the pair."""

    async def run_scenario(scenario: Callable[[ContractBroker], Awaitable[None]]) -> None:
        async with asyncio.timeout(TIMEOUT_S), run_broker_beside(databases, request) as broker:
            await scenario(broker)

    return lambda scenario: asyncio.run(run_scenario(scenario))


def make_client(broker: ContractBroker, hub: str, *topics: str) -> MqttClient:
    return MqttClient(broker.hub(hub), client_id=hub, subscriptions=topics)


async def connect(*clients: MqttClient) -> None:
    for client in clients:
        while not isinstance(await client.receive(), Connected):
            continue


@asynccontextmanager
async def running_clinic(broker: ContractBroker, clinic: Clinic, store: Store, engine: Engine) -> AsyncIterator[None]:
    """Run ingest, opener and receipts, as the services do."""
    ingest_client = MqttClient(broker.service(INGEST), client_id="ingest/1", subscriptions=UP_TOPICS)
    opener_client = MqttClient(broker.service(OPENER), client_id="opener/1", subscriptions=())
    transport = SubscribedTransport(ingest_client)
    receipts = ReceiptQueue(store, clinic.signing.receipt, opener_client.publish)
    opener = clinic.opener(store, engine, receipts.put)
    registry = Registry(clinic.folder.hubs, time.monotonic)

    async def on_batch() -> None:
        """The page is no part of this."""

    async with running_clients((ingest_client, opener_client)), asyncio.TaskGroup() as tasks:
        work = (
            run_ingest(store, registry, clinic.signing.acknowledgement, transport, opener.wake, now_us=now_us),
            opener.run(on_batch),
            receipts.run(),
        )
        running = [tasks.create_task(one) for one in work]
        await transport.subscribed.wait()
        yield
        for task in running:
            task.cancel()


async def send_until_receipt(client: MqttClient, clinic: Clinic, hub: Hub, alert_id: str) -> None:
    """Send an alert until it is acknowledged, then until the receipt says that it was opened."""
    message = hub.message(hub.seal_records("alert", alert(id=alert_id)))
    awaited = {ack_topic(hub.name), receipt_topic(hub.name)}
    while awaited:
        await client.publish(message.topic, message.payload)
        while awaited:
            try:
                event = await asyncio.wait_for(client.receive(), RESEND_S)
            except TimeoutError:
                break
            if not isinstance(event, Message):
                continue
            if event.topic == ack_topic(hub.name):
                assert decode_ack(event.payload, clinic.signing.acknowledgement.public).hub == hub.name
            else:
                assert decode_receipt(event.payload, clinic.signing.receipt.public).opened
            awaited.discard(event.topic)


def ignore_work() -> None:
    """No opener waits for work."""


@pytest.mark.parametrize("is_older", [False, True], ids=["newest", "3.1.1"])
def test_an_alert_is_acknowledged_opened_and_receipted_also_after_a_restart_of_the_broker(
    run: Run, clinic: Clinic, hub: Hub, store: Store, engine: Engine, is_older: bool
) -> None:
    async def scenario(broker: ContractBroker) -> None:
        client = make_client(broker, hub.name, ack_topic(hub.name), receipt_topic(hub.name))
        if is_older:
            client._protocol = MQTTProtocolVersion.MQTTv311
        async with running_clinic(broker, clinic, store, engine), running_clients((client,)):
            await connect(client)
            speaks_5 = broker.speaks_mqtt_5 and not is_older
            assert client._protocol == (MQTTProtocolVersion.MQTTv5 if speaks_5 else MQTTProtocolVersion.MQTTv311)
            await send_until_receipt(client, clinic, hub, "one")
            await broker.restart()
            await connect(client)
            await send_until_receipt(client, clinic, hub, "two")

    run(scenario)
    for alert_id in ("one", "two"):
        assert find_alert(engine, AlertKey(hub.subject, hub.name, alert_id)) is not None
    assert store.counts().stored == 2
    assert store.list_quarantined() == store.list_rejected_messages() == []
    with store.transaction() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM work").scalar_one() == 0


class CountingTransport(SubscribedTransport):
    """The transport of an ingest."""

    n_received = 0

    async def receive(self) -> MqttEvent:
        event = await super().receive()
        self.n_received += isinstance(event, Message)
        return event


def test_two_ingests_store_each_block_once(run: Run, clinic: Clinic, hub: Hub, store: Store, databases: Databases) -> None:
    """Where the broker shares a subscription, each message reaches one of them; else both, and one of them stores it."""
    n, key = 40, clinic.signing.acknowledgement

    async def scenario(broker: ContractBroker) -> None:
        topics, n_each = (SHARED_TOPICS, 0) if broker.shares_subscriptions else (UP_TOPICS, n)
        ids = ("ingest/1", "ingest/2")
        ingests = [MqttClient(broker.service(INGEST), client_id=id_, subscriptions=topics) for id_ in ids]
        transports = [CountingTransport(ingest) for ingest in ingests]
        client = make_client(broker, hub.name)
        async with running_clients((*ingests, client)), asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(
                    run_ingest(own, Registry(clinic.folder.hubs, time.monotonic), key, one, ignore_work, now_us=now_us)
                )
                for own, one in zip(stores, transports, strict=True)
            ]
            await connect(client)
            for transport in transports:
                await transport.subscribed.wait()
            for i in range(n):
                message = hub.message(hub.seal_records("vital", heart_rate(START_US + i, 60.0)))
                await client.publish(message.topic, message.payload)
            while store.count_blocks() < n or any(one.n_received < n_each for one in transports):
                await asyncio.sleep(0.01)
            for task in running:
                task.cancel()
        received = [one.n_received for one in transports]
        assert received == [n, n] if n_each else (sum(received) == n and min(received) > 0)

    with ExitStack() as stack:  # closed when no thread uses them any more
        stores = [stack.enter_context(closing(Store.open(databases.location("blocks")))) for _ in range(2)]
        run(scenario)
    assert store.counts().stored == n
    assert store.list_quarantined() == store.list_rejected_messages() == []


def test_nothing_is_retained_and_nothing_waits_for_a_client_that_is_away(run: Run) -> None:
    """Hubs keep every block themselves: what a broker kept would come late or twice."""
    topic = up_topic("hub-1", "vital")

    async def scenario(broker: ContractBroker) -> None:
        hub = make_client(broker, "hub-1")

        def make_ingest() -> MqttClient:
            return MqttClient(broker.service(INGEST), client_id="ingest/1", subscriptions=UP_TOPICS)

        async with running_clients((hub,)):
            await connect(hub)
            first = make_ingest()
            async with running_clients((first,)):
                await connect(first)
                await hub.publish(topic, b"while it is there")
                assert await first.receive() == Message(topic, b"while it is there")
            await hub.publish(topic, b"while it is away")
            while hub._connection is None or hub._connection.unanswered:
                await asyncio.sleep(0.005)
            second = make_ingest()
            async with running_clients((second,)):
                await connect(second)
                await hub.publish(topic, b"after it came back")
                assert await second.receive() == Message(topic, b"after it came back")

    run(scenario)
