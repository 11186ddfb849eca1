"""What a hub does in the tests of the radio: find the sensor and connect."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from bleak import BleakClient
from bleak.backends.device import BLEDevice

from gateway.radio.radio import Radio

HUB, OTHER_HUB, SENSOR, OTHER_SENSOR = "C2:00:00:00:00:01", "C2:00:00:00:00:02", "C0:DE:00:00:00:01", "C0:DE:00:00:00:02"
Room = Callable[[], AbstractAsyncContextManager[Any]]


async def find(radio: Radio, address: str = SENSOR) -> BLEDevice:
    device = await radio.find(lambda found, _: found.address == address, 5)
    assert device is not None
    return device


def ignore(_client: BleakClient) -> None:
    pass


async def connected(radio: Radio, on_disconnect: Callable[[BleakClient], None] = ignore) -> BleakClient:
    client = radio.client(await find(radio), on_disconnect, 10)
    await client.connect()
    return client
