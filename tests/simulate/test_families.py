"""Every family that `pulsegate simulate` offers: it advertises, and a plain hub that follows its profile gets readings."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from bumble.core import AdvertisingData

from gateway import virtual_time
from gateway.arguments import SIMULATED
from gateway.radio.virtual import VirtualLink, make_device
from gateway.simulate.families import FAMILIES, World, run_family
from gateway.simulate.peripherals.peripheral import BondedSubscriptions
from gateway.simulate.peripherals.services import follow_loop
from gateway.simulate.standalone import STRAP
from tests.simulate.plain_hub import HUB, SENSOR, START, PlainHub, run_device

RESULTS = {
    "cuff": "2A35",
    "cuff-and": "2A35",
    "cuff-medisana": "2A35",
    "oximeter": "2A5F",
    "scale": "2A9D",
    "thermometer": "2A1C",
    "watch": "2A37",
    "armband": "2A37",
}


@asynccontextmanager
async def run_testbed(family: str) -> AsyncIterator[tuple[PlainHub, list[dict[str, Any]]]]:
    link, events = VirtualLink(), list[dict[str, Any]]()
    unix_ns, rng, subscriptions = 1_764_000_000 * 10**9, random.Random(1), BondedSubscriptions()
    world = World(follow_loop(START), unix_ns, 60.0, rng, lambda event: events.append(dict(event)), subscriptions)
    device = make_device(link, SENSOR, "sensor")
    async with run_device(link, device, lambda: run_family(FAMILIES[family], device, world)) as hub:
        yield hub, events


def test_the_command_line_offers_every_family_and_each_has_an_address_of_its_own() -> None:
    assert (STRAP, *FAMILIES) == SIMULATED
    addresses = [family.address for family in FAMILIES.values()]
    assert len({*addresses, HUB}) == len(addresses) + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_advertises_its_name_again_and_again(family: str) -> None:
    async def run() -> None:
        async with run_testbed(family) as (hub, _):
            for _ in range(2):
                advertisement = await hub.wait_advertisement(timeout_s=60)
                assert advertisement.data.get(AdvertisingData.Type.COMPLETE_LOCAL_NAME) == FAMILIES[family].name
                await asyncio.sleep(35)

    virtual_time.run(run())


@pytest.mark.parametrize(("family", "characteristic"), RESULTS.items())
def test_a_hub_that_follows_the_profile_gets_readings(family: str, characteristic: str) -> None:
    async def run() -> None:
        async with run_testbed(family) as (hub, events):
            connection = await hub.connect(discover=False)
            if family != "cuff-medisana":
                await connection.pair()
            await hub.discover()
            await hub.subscribe(characteristic)
            if family == "scale":
                await hub.subscribe("2A9F")
                await hub.write("2A9F", bytes.fromhex("0201a80e"))
            await asyncio.sleep(10)
            assert hub.values(characteristic)
            sent = [event["payload"] for event in events if event["event"] == "sent"]
            assert {value.hex() for value in hub.values(characteristic)} <= set(sent)

    virtual_time.run(run())


def test_the_broadcast_scale_reports_what_it_advertises() -> None:
    async def run() -> None:
        async with run_testbed("scale-broadcast") as (_, events):
            await asyncio.sleep(60)
            assert len({event["service_data"] for event in events if event["event"] == "advertised"}) == 6

    virtual_time.run(run())
