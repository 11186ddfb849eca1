"""A cuff that pairs, the fake BlueZ, and the radio of a hub; and other programs on the bus."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bumble.pairing import PairingDelegate
from dbus_fast import Message
from dbus_fast.aio import MessageBus

from gateway.radio import Radio, open_radio
from gateway.radio.virtual import VirtualLink
from tests.bluez.dbus_objects import BLUEZ
from tests.bluez.fake_bluez import ADAPTER_PATH, FakeBlueZ
from tests.bluez.passkey_cuff import CUFF, CUFF_NAME, RESULT, PasskeyCuff, run_cuff
from tests.bluez.testbed import run_bluez, wait_until
from tests.radio.pairing_people import DISPLAY, Answers

CUFF_PATH = f"{ADAPTER_PATH}/dev_{CUFF.replace(':', '_')}"
STRONG, WEAK = -50, -95


@dataclass
class CuffTestbed:
    link: VirtualLink
    cuff: PasskeyCuff
    bluez: FakeBlueZ
    radio: Radio
    answers: Answers
    clients: list[BleakClient] = field(default_factory=list)

    async def find(self) -> BLEDevice:
        device = await self.radio.find(lambda _, advertisement: advertisement.local_name == CUFF_NAME, 5)
        assert device is not None
        return device

    async def pair(self) -> None:
        await self.radio.pair(await self.find(), self.answers)

    async def connect(
        self, rssi_dbm: int = STRONG, losses: list[BleakClient] | None = None, timeout_s: float = 5
    ) -> BleakClient:
        lost = [] if losses is None else losses
        self.clients.append(await self.radio.connect(await self.find(), lost.append, timeout_s, rssi_dbm))
        return self.clients[-1]

    async def disconnect(self) -> None:
        """Disconnect all clients, those too whose link was lost: only this closes their bus."""
        for client in self.clients:
            await client.disconnect()


@asynccontextmanager
async def open_cuff(
    bus: str, folder: Path, capability: PairingDelegate.IoCapability = DISPLAY, answers: Answers | None = None
) -> AsyncIterator[CuffTestbed]:
    link, answers = VirtualLink(), answers or Answers()
    async with (
        run_cuff(link, folder, capability, answers) as cuff,
        run_bluez(link, bus, folder) as bluez,
        open_radio("bluetooth") as radio,
    ):
        testbed = CuffTestbed(link, cuff, bluez, radio, answers)
        try:
            yield testbed
        finally:
            await testbed.disconnect()


async def receive_all(client: BleakClient, cuff: PasskeyCuff) -> None:
    """Subscribe to the pulse and to the results, and receive one value of each, once."""
    values: list[bytes] = []
    for uuid in ("2a37", "2a35"):
        await client.start_notify(uuid, lambda _, value: values.append(bytes(value)))
    await cuff.send_pulse(61)
    await cuff.send_result()
    await wait_until(lambda: len(values) == 2)
    assert values == [bytes([0, 61]), RESULT]


@asynccontextmanager
async def open_bus(address: str) -> AsyncIterator[MessageBus]:
    """Another program on the bus."""
    bus = await MessageBus(bus_address=address).connect()
    try:
        yield bus
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it untyped


async def call(bus: MessageBus, path: str, interface: str, member: str, signature: str = "", *body: Any) -> Message:
    return await bus.call(Message(BLUEZ, path, interface, member, signature=signature, body=list(body)))
