"""A minimal sensor (a Bumble GATT server), and a testbed with this sensor and the hub's radio."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
from bumble.att import ATT_Error, Attribute
from bumble.core import UUID, AdvertisingData
from bumble.device import Device
from bumble.gatt import (
    GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
    Characteristic,
    CharacteristicValue,
    Descriptor,
    Service,
)

from gateway.radio.radio import Radio
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device, open_in_process_radio

SENSOR = "C0:DE:00:00:00:01"


class MinimalSensor:
    """A sensor with Heart Rate and Blood Pressure services.

    Reading `feature` and subscribing to `guarded` require an encrypted link.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.pairings = 0
        self.written: list[bytes] = []
        names = ("READ", "NOTIFY", "INDICATE", "WRITE")
        read, notify, indicate, write = (getattr(Characteristic.Properties, name) for name in names)
        encrypted = Attribute.READABLE | Attribute.READ_REQUIRES_ENCRYPTION
        no_access = Attribute.Permissions(0)
        self.rate = Characteristic(UUID.from_16_bits(0x2A37), notify, no_access, b"")
        self.location = Characteristic(UUID.from_16_bits(0x2A38), read, Attribute.READABLE, b"\x01")
        self.control = Characteristic(
            UUID.from_16_bits(0x2A39), write, Attribute.WRITEABLE, CharacteristicValue(write=self._on_control_write)
        )
        self.pressure = Characteristic(UUID.from_16_bits(0x2A35), indicate, no_access, b"")
        self.feature = Characteristic(UUID.from_16_bits(0x2A49), read, encrypted, b"\x1f\x00")
        self.guarded = Characteristic(UUID.from_16_bits(0x2A5F), notify, no_access, b"")
        self.guarded.descriptors = [
            Descriptor(
                GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
                Attribute.READABLE | Attribute.WRITEABLE | Attribute.WRITE_REQUIRES_ENCRYPTION,
                device.gatt_server.make_descriptor_value(self.guarded),
            )
        ]
        device.add_services(
            [
                Service(UUID.from_16_bits(0x180D), [self.rate, self.location, self.control]),
                Service(UUID.from_16_bits(0x1810), [self.pressure, self.feature, self.guarded]),
            ]
        )
        device.advertising_data = bytes(
            AdvertisingData(
                [
                    (AdvertisingData.FLAGS, b"\x06"),
                    (AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, b"\x0d\x18\x10\x18"),
                    (AdvertisingData.COMPLETE_LOCAL_NAME, device.name.encode()),
                    (AdvertisingData.TX_POWER_LEVEL, b"\xfc"),
                    (AdvertisingData.MANUFACTURER_SPECIFIC_DATA, b"\x6b\x00\x01\x02"),
                ]
            )
        )
        device.on(device.EVENT_CONNECTION, lambda connection: connection.on(connection.EVENT_PAIRING, self._on_pairing))

    async def start(self) -> None:
        await self.device.power_on()
        await self.device.start_advertising(auto_restart=True)

    async def notify_heart_rate(self, rate_bpm: int) -> None:
        await self.device.notify_subscribers(self.rate, bytes([0, rate_bpm]))

    def _on_pairing(self, _keys: object) -> None:
        self.pairings += 1

    def _on_control_write(self, _connection: object, value: bytes) -> None:
        if value != b"\x01":
            raise ATT_Error(0x80)  # Heart Rate Service 1.0, 3.3.1: Control Point Not Supported
        self.written.append(bytes(value))


@dataclass
class RadioTestbed:
    """A sensor and the hub's radio on one virtual link."""

    link: VirtualLink
    sensor: MinimalSensor
    radio: Radio


@asynccontextmanager
async def run_testbed() -> AsyncIterator[RadioTestbed]:
    link = VirtualLink()
    sensor = MinimalSensor(make_device(link, SENSOR, "small"))
    await sensor.start()
    async with open_in_process_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
        yield RadioTestbed(link, sensor, radio)
    link.remove_device(SENSOR)


@pytest.fixture
def open_testbed() -> Callable[[], AbstractAsyncContextManager[RadioTestbed]]:
    return run_testbed


@pytest.fixture
def minimal_sensor() -> type[MinimalSensor]:
    return MinimalSensor
