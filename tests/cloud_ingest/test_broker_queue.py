"""The broker's queue for a clinic whose connection is dead: what hubs send in that time fits into it."""

import asyncio
import contextlib
from pathlib import Path

from cloud.site import Authority
from cloud.site.mosquitto import INGEST, QUEUED_LIMIT, QUEUED_LIMIT_BYTES
from sync.in_flight import MESSAGES_QUEUED, RECEIVER_DEAD_S
from sync.mqtt import KEEPALIVE_S, Connected, MqttClient
from sync.wire import MESSAGE_LIMIT_BYTES, UP_TOPICS, up_topic
from tests.mosquitto import Broker, now_s

N_HUBS = 3
HUBS_OF_AN_INGEST = 2000
HUBS_WITH_THE_LARGEST_MESSAGES = 180
DROPPED = "Outgoing messages are being dropped for client ingest/1."
"""What mosquitto logs, once, when it drops the first message."""


async def connect(client: MqttClient, running: asyncio.TaskGroup) -> asyncio.Task[None]:
    task: asyncio.Task[None] = running.create_task(client.run())
    while not isinstance(await client.receive(), Connected):
        continue
    return task


async def publish_to_dead_clinic(broker: Broker, per_hub: int, extra: int = 0) -> bool:
    """Let each hub publish so many messages, and the first of them some more; returns whether mosquitto dropped any."""
    async with asyncio.TaskGroup() as tasks:
        ingest = MqttClient(broker.service(INGEST), client_id="ingest/1", subscriptions=UP_TOPICS)
        running = [await connect(ingest, tasks)]
        assert ingest._connection is not None
        await asyncio.to_thread(ingest._connection.client.loop_stop)
        for n in range(N_HUBS):
            hub = MqttClient(broker.hub(f"hub-{n}"), client_id=f"hub-{n}", subscriptions=[])
            running.append(await connect(hub, tasks))
            for _ in range(per_hub + (extra if n == 0 else 0)):
                await hub.publish(up_topic(f"hub-{n}", "vital"), bytes(1000))
            while hub.statistics().published > per_hub + extra or hub._connection.unanswered:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
        for task in running:
            task.cancel()
    return any(DROPPED in line for line in broker.log)


def test_what_hubs_send_to_a_dead_clinic_fits_into_a_queue_of_45_messages_each(tmp_path: Path) -> None:
    broker = Broker(Authority.create(tmp_path / "site", "Testklinik", "DE", "Bayern", now_s()), tmp_path)
    config = tmp_path / "broker" / "mosquitto.conf"
    config.write_text(
        config.read_text().replace(f"max_queued_messages {QUEUED_LIMIT}", f"max_queued_messages {MESSAGES_QUEUED * N_HUBS}")
    )
    with contextlib.ExitStack() as stack:
        stack.callback(broker.kill)
        broker.start()
        assert not asyncio.run(publish_to_dead_clinic(broker, MESSAGES_QUEUED))
        assert asyncio.run(publish_to_dead_clinic(broker, MESSAGES_QUEUED, extra=200))  # the log would have said so


def test_the_site_s_broker_has_room_for_all_hubs_of_an_ingest() -> None:
    assert HUBS_OF_AN_INGEST * MESSAGES_QUEUED <= QUEUED_LIMIT
    assert 1.5 * KEEPALIVE_S == RECEIVER_DEAD_S
    assert HUBS_WITH_THE_LARGEST_MESSAGES * MESSAGES_QUEUED * MESSAGE_LIMIT_BYTES <= QUEUED_LIMIT_BYTES
