"""Actions of a hub in the radio tests: find the sensor and connect to it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from bleak import BleakClient
from bleak.backends.device import BLEDevice

from gateway.radio.radio import Radio

HUB, OTHER_HUB, SENSOR, OTHER_SENSOR = "C2:00:00:00:00:01", "C2:00:00:00:00:02", "C0:DE:00:00:00:01", "C0:DE:00:00:00:02"
OpenTestbed = Callable[[], AbstractAsyncContextManager[Any]]


async def find_sensor(radio: Radio, address: str = SENSOR) -> BLEDevice:
    device = await radio.find(lambda device, _: device.address == address, 5)
    assert device is not None
    return device


def ignore_disconnection(_client: BleakClient) -> None:
    pass


async def connect(radio: Radio, on_disconnect: Callable[[BleakClient], None] = ignore_disconnection) -> BleakClient:
    client = radio.client(await find_sensor(radio), on_disconnect, 10)
    await client.connect()
    return client
