"""Random faults for hours of virtual time: the sensors survive them, and deliver every result to a patient hub."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from bumble.core import BaseBumbleError
from bumble.device import Connection, Device, Peer
from bumble.hci import Address

from gateway import virtual_time
from gateway.radio.virtual import VirtualLink, make_device
from gateway.simulate.peripherals.cuff import MEDISANA_CUFF, Cuff
from gateway.simulate.peripherals.peripheral import Peripheral, format_uuid
from gateway.simulate.peripherals.scale import Scale
from gateway.simulate.peripherals.sent_values import audit_values
from gateway.simulate.peripherals.services import follow_loop
from gateway.simulate.peripherals.thermometer import Thermometer
from gateway.simulate.scenario import Stage, draw_faults, play_scenario
from tests.simulate.plain_hub import HUB, SENSOR, START

HOURS = 2
FAULTS = 60
ERRORS = (BaseBumbleError, TimeoutError, asyncio.CancelledError)


@dataclass
class PatientHub:
    """A central that connects whenever it can, pairs again after a lost bond, and keeps each value that it gets."""

    device: Device
    characteristic: str
    consent: bytes = b""
    listens_late: bool = False
    """Whether it takes values only after its own subscription: a bonded sensor sends them before."""
    stored: set[bytes] = field(default_factory=set)
    _handle: int | None = None

    def _store(self, value: bytes) -> None:
        self.stored.add(bytes(value))

    async def run(self) -> None:
        while True:
            try:
                connection = await self.device.connect(Address(SENSOR), timeout=10.0)
            except ERRORS:
                _raise_if_cancelled()
                continue
            ended = asyncio.Event()
            connection.on("disconnection", lambda _reason, ended=ended: ended.set())
            try:
                async with asyncio.timeout(20):
                    await self._use(connection, ended)
            except ERRORS:
                _raise_if_cancelled()
            if not ended.is_set():
                with suppress(*ERRORS):
                    async with asyncio.timeout(5):
                        await connection.disconnect()
                _raise_if_cancelled()
            await asyncio.sleep(1)

    async def _use(self, connection: Connection, ended: asyncio.Event) -> None:
        if self._handle is not None and not self.listens_late:
            connection.gatt_client.indication_subscribers[self._handle] = {self._store}
        if await self.device.keystore.get(str(connection.peer_address)) is None:
            await connection.pair()
        else:
            try:
                await connection.encrypt()
            except BaseBumbleError:
                await self.device.keystore.delete(str(connection.peer_address))
                return
        peer = Peer(connection)
        await peer.discover_services()
        await peer.discover_characteristics()
        found = {format_uuid(each): each for service in peer.services for each in service.characteristics}
        if self.consent:
            await found["2A9F"].subscribe(lambda _value: None)
        self._handle = found[self.characteristic].handle
        await found[self.characteristic].subscribe(self._store)
        if self.consent:
            await found["2A9F"].write_value(self.consent, with_response=True)
        await ended.wait()


def _raise_if_cancelled() -> None:
    """Bumble cancels what waits for a peer that is gone; a cancellation of this task itself must pass."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def make_cuff(device: Device) -> Cuff:
    return Cuff(device, follow_loop(START))


def make_medisana(device: Device) -> Cuff:
    return Cuff(device, follow_loop(START), MEDISANA_CUFF)


def make_thermometer(device: Device) -> Thermometer:
    return Thermometer(device, follow_loop(START))


def make_scale(device: Device) -> Scale:
    return Scale(device, follow_loop(START), {1: 3752})


async def live(
    make: Callable[[Device], Peripheral], measure: Callable[[Any, int], Any], make_hub: Callable[[Device], PatientHub]
) -> tuple[Any, PatientHub]:
    """Measure every ten minutes, with faults in between; at last let the sensor send what is left."""
    link = VirtualLink()
    device, central = make_device(link, SENSOR, "sensor"), make_device(link, HUB, "hub")
    await device.power_on()
    await central.power_on()
    sensor: Any = make(device)
    hub = make_hub(central)
    running, connecting = asyncio.create_task(sensor.run()), asyncio.create_task(hub.run())
    sensors = {"sensor": sensor}
    faults = draw_faults(sensors, seconds=HOURS * 3600, count=FAULTS, seed=7, without=["adapter_gone", "flood", "nan_bp"])
    playing = asyncio.create_task(play_scenario(faults, Stage(link, sensors, lambda: None)))
    rng = random.Random(3)
    for number in range(HOURS * 6):
        await asyncio.sleep(rng.uniform(300, 900))
        await measure(sensor, number)
    await playing
    for _ in range(3):
        sensor.press_button()
        await asyncio.sleep(120)
    for task in (running, connecting):
        assert not task.done(), task
        task.cancel()
        await asyncio.wait([task])
    return sensor, hub


@pytest.mark.parametrize(
    ("make", "characteristic", "measure", "consent"),
    [
        (make_cuff, "2A35", lambda cuff, number: cuff.measure(100 + number, 80, 70), b""),
        (make_medisana, "2A35", lambda cuff, number: cuff.measure(100 + number, 80, 70), b""),
        (make_thermometer, "2A1C", lambda thermometer, number: thermometer.measure(36 + number / 10), b""),
        (make_scale, "2A9D", lambda scale, number: scale.weigh(70 + number / 5), bytes.fromhex("0201a80e")),
    ],
)
def test_every_result_arrives_in_spite_of_faults(
    make: Callable[[Device], Peripheral], characteristic: str, measure: Callable[[Any, int], Any], consent: bytes
) -> None:
    sensor, hub = virtual_time.run(live(make, measure, lambda device: PatientHub(device, characteristic, consent)))
    assert audit_values(sensor.sent, characteristic, hub.stored).passed
    assert len(hub.stored) == len(sensor.memory) == HOURS * 6
    assert all(result.is_confirmed for result in sensor.memory)
    assert any(value.confirmed_s is None for value in sensor.sent.values)  # faults did hit indications


def test_the_audit_notices_a_hub_that_listens_only_after_its_own_subscription() -> None:
    def make_hub(device: Device) -> PatientHub:
        return PatientHub(device, "2A35", listens_late=True)

    cuff, hub = virtual_time.run(live(make_cuff, lambda cuff, number: cuff.measure(100 + number, 80, 70), make_hub))
    audit = audit_values(cuff.sent, "2A35", hub.stored)
    assert not audit.passed
    assert len(audit.missing) == HOURS * 6 - len(hub.stored)
