"""A running site gets a new root: hubs that know only the old one connect all the time, and get the new one when they renew."""

import asyncio
from pathlib import Path

from cloud.site import Authority, Kind
from cloud.site.authority import ROOT_OVERLAP_S
from config.endpoint import Endpoint
from sync.mqtt import Connected, Disconnected, MqttClient, MqttEvent
from tests.mosquitto import HOST, Broker, make_identity, now_s, run_broker


def first_event(broker: Broker, identity: Path) -> MqttEvent:
    async def connect() -> MqttEvent:
        client = MqttClient(Endpoint(HOST, broker.hubs_port, identity, "DE"), client_id="hub", subscriptions=[])
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.run())
            event = await client.receive()
            running.cancel()
        return event

    return asyncio.run(connect())


def test_old_and_new_hubs_connect_while_two_roots_overlap(tmp_path: Path) -> None:
    with run_broker(tmp_path) as broker:
        site: Authority = broker.authority
        old = make_identity(site, tmp_path / "old", Kind.HUBS, "old")
        service = tmp_path / "identities" / "broker"

        site.rotate_root(now_s())
        new = make_identity(site, tmp_path / "new", Kind.HUBS, "new")
        assert first_event(broker, old) == Connected()  # until the broker starts again, all is as before

        make_identity(site, service, Kind.SERVICES, "broker", hosts=(HOST,))
        broker.kill()
        broker.start()
        assert [first_event(broker, identity) for identity in (old, new)] == [Connected(), Connected()]

        site.retire_root(now_s() + ROOT_OVERLAP_S)
        site.write_crls(now_s())
        make_identity(site, service, Kind.SERVICES, "broker", hosts=(HOST,))
        broker.kill()
        broker.start()
        assert first_event(broker, new) == Connected()
        event = first_event(broker, old)
        assert isinstance(event, Disconnected)
        assert (
            "has a certificate of another site: check host and port; if your site has a new root, enrol again" in event.reason
        )
