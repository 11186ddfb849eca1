"""Pairing on the virtual link: each method of the security manager, the bonds, and bonds that one side has forgotten."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from bleak import BleakClient
from bleak.exc import BleakError
from bumble.keys import MemoryKeyStore
from bumble.pairing import PairingDelegate

from gateway import virtual_time
from gateway.radio import Bond, PairingError, Radio, StaleBondError
from gateway.radio.pairing import PAIRING_TIMEOUT_S
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device, open_in_process_radio
from tests.radio.hub_actions import SENSOR, find_sensor, ignore_disconnection
from tests.radio.pairing_people import (
    DISPLAY,
    KEYBOARD,
    NOTHING,
    YES_NO,
    AbsentPerson,
    Answers,
    SensorDelegate,
    set_up_pairing,
)


@dataclass
class PairingTestbed:
    link: VirtualLink
    sensor: Any
    radio: Radio
    answers: Answers
    delegate: SensorDelegate

    async def pair(self) -> None:
        await self.radio.pair(await find_sensor(self.radio), self.answers)

    async def connect(self, rssi_dbm: int = -50) -> BleakClient:
        return await self.radio.connect(await find_sensor(self.radio), ignore_disconnection, 5, rssi_dbm)


@asynccontextmanager
async def run_sensor(
    minimal_sensor: Any, capability: PairingDelegate.IoCapability, answers: Answers | None = None
) -> AsyncIterator[PairingTestbed]:
    link, answers = VirtualLink(), answers or Answers()
    device = make_device(link, SENSOR, "cuff")
    delegate = set_up_pairing(device, capability, answers)
    await minimal_sensor(device).start()
    async with open_in_process_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
        yield PairingTestbed(link, device, radio, answers, delegate)
    link.remove_device(SENSOR)


async def is_authenticated(testbed: PairingTestbed) -> bool:
    """Whether the bond protects against a stranger between the two, which only passkey and comparison do."""
    ((_, keys),) = await testbed.sensor.keystore.get_all()
    return bool(keys.ltk.authenticated)


@pytest.mark.parametrize("capability", [NOTHING, DISPLAY, KEYBOARD, YES_NO])
def test_a_sensor_is_paired_by_the_method_that_it_can_do(minimal_sensor: Any, capability: PairingDelegate.IoCapability) -> None:
    async def main() -> None:
        async with run_sensor(minimal_sensor, capability) as testbed:
            await testbed.pair()
            answers = testbed.answers
            assert answers.asked == (capability is DISPLAY)
            assert len(answers.shown) == (capability is KEYBOARD)
            assert (len(answers.compared) == 1) == (capability is YES_NO)
            assert answers.compared == testbed.delegate.compared
            assert await is_authenticated(testbed) == (capability is not NOTHING)
            assert await testbed.radio.bonds() == [Bond(SENSOR)]
            assert await testbed.radio.is_bonded(SENSOR.lower())
            assert not testbed.sensor.connections
            client = await testbed.connect()
            assert await client.read_gatt_char("2a49") == b"\x1f\x00"  # needs encryption
            assert answers.asked + len(answers.shown) + len(answers.compared) == (capability is not NOTHING)

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("capability", "answers", "message"),
    [
        (DISPLAY, Answers(passkey=654_321), "refused the pairing: check the six digits"),
        (DISPLAY, Answers(passkey=None), "was cancelled"),
        (YES_NO, Answers(is_equal=False), "was cancelled"),
        (DISPLAY, AbsentPerson(), r"not finished within \d+ s"),
    ],
)
def test_a_failed_pairing_leaves_no_bond_and_the_next_one_works(
    minimal_sensor: Any, capability: PairingDelegate.IoCapability, answers: Answers, message: str
) -> None:
    async def main() -> None:
        async with run_sensor(minimal_sensor, capability, answers) as testbed:
            with pytest.raises(PairingError, match=message):
                await testbed.pair()
            assert await testbed.radio.bonds() == []
            assert not testbed.sensor.connections
            testbed.answers = Answers()
            await testbed.pair()
            assert await testbed.radio.bonds() == [Bond(SENSOR)]

    virtual_time.run(main())


def test_a_pairing_can_be_cancelled_from_outside(minimal_sensor: Any) -> None:
    async def main() -> None:
        async with run_sensor(minimal_sensor, DISPLAY, AbsentPerson()) as testbed:
            pairing = asyncio.create_task(testbed.pair())
            while not testbed.answers.asked:
                await asyncio.sleep(0.1)
            pairing.cancel()
            await asyncio.wait({pairing}, timeout=PAIRING_TIMEOUT_S / 2)
            assert pairing.cancelled()
            assert isinstance(testbed.answers, AbsentPerson)
            assert testbed.answers.cancelled == 1
            assert not testbed.sensor.connections

    virtual_time.run(main())


def test_a_bond_is_not_replaced_unless_it_is_removed(minimal_sensor: Any) -> None:
    async def main() -> None:
        async with run_sensor(minimal_sensor, NOTHING) as testbed:
            await testbed.pair()
            with pytest.raises(PairingError, match="paired already"):
                await testbed.pair()
            assert await testbed.radio.unpair(SENSOR)
            assert not await testbed.radio.unpair(SENSOR)
            assert await testbed.radio.bonds() == []
            await testbed.pair()

    virtual_time.run(main())


def test_removing_a_bond_ends_the_connection(minimal_sensor: Any) -> None:
    async def main() -> None:
        async with run_sensor(minimal_sensor, NOTHING) as testbed:
            await testbed.pair()
            client = await testbed.connect()
            await testbed.radio.unpair(SENSOR)
            assert not client.is_connected

    virtual_time.run(main())


def test_a_sensor_that_forgot_the_bond_is_told_from_a_bad_link_and_paired_again(minimal_sensor: Any) -> None:
    async def main() -> None:
        async with run_sensor(minimal_sensor, NOTHING) as testbed:
            await testbed.pair()
            testbed.sensor.keystore = MemoryKeyStore()
            with pytest.raises(StaleBondError, match=f"{SENSOR} no longer knows this hub .* pulsegate pair {SENSOR}"):
                await testbed.connect(rssi_dbm=-95)  # the virtual radio sees the HCI error itself
            testbed.link.out_of_range.add(SENSOR)
            device = await find_known(testbed)
            with pytest.raises(TimeoutError):
                await testbed.radio.connect(device, ignore_disconnection, 0.5, -50)
            testbed.link.out_of_range.clear()
            await testbed.radio.unpair(SENSOR)
            await testbed.pair()
            assert (await testbed.connect()).is_connected

    virtual_time.run(main())


async def find_known(testbed: PairingTestbed) -> Any:
    testbed.link.out_of_range.clear()
    device = await find_sensor(testbed.radio)
    testbed.link.out_of_range.add(SENSOR)
    return device


def test_a_hub_that_lost_its_bonds_pairs_again_without_a_removal(minimal_sensor: Any) -> None:
    async def main() -> None:
        async with run_sensor(minimal_sensor, DISPLAY) as testbed:
            await testbed.pair()
            await testbed.radio.unpair(SENSOR)
            await testbed.pair()
            assert await is_authenticated(testbed)

    virtual_time.run(main())


def test_a_power_cycle_ends_connections_and_the_radio(minimal_sensor: Any) -> None:
    async def main() -> None:
        async with run_sensor(minimal_sensor, NOTHING) as testbed:
            client = await testbed.connect()
            await testbed.radio.power_cycle()
            assert not client.is_connected
            assert testbed.radio.lost.is_set()
            with pytest.raises(BleakError, match="open it again"):
                await find_sensor(testbed.radio)

    virtual_time.run(main())
