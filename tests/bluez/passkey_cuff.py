"""A cuff that pairs with a passkey, streams its pulse and indicates its results, both on an encrypted link only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bumble.att import Attribute
from bumble.core import UUID, AdvertisingData
from bumble.device import Device
from bumble.gatt import GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR, Characteristic, Descriptor, Service
from bumble.pairing import PairingDelegate

from gateway.radio.virtual import VirtualLink, make_device
from tests.radio.pairing_people import Answers, SensorDelegate, set_up_pairing

CUFF, CUFF_NAME = "C0:DE:00:00:00:07", "Cuff 7"
RESULT = bytes.fromhex("0078005000640000")
"""A Blood Pressure Measurement: 120/80 mm[Hg], mean 100."""


class PasskeyCuff:
    def __init__(self, device: Device, delegate: SensorDelegate) -> None:
        self.device, self.delegate = device, delegate
        properties = Characteristic.Properties
        self._pulse = self._make_stream(0x2A37, properties.NOTIFY)
        self._result = self._make_stream(0x2A35, properties.INDICATE)
        device.add_services(
            [Service(UUID.from_16_bits(0x180D), [self._pulse]), Service(UUID.from_16_bits(0x1810), [self._result])]
        )
        fields = [(AdvertisingData.FLAGS, b"\x06"), (AdvertisingData.COMPLETE_LOCAL_NAME, device.name.encode())]
        device.advertising_data = bytes(AdvertisingData(fields))

    def _make_stream(self, number: int, mode: Characteristic.Properties) -> Characteristic[bytes]:
        stream = Characteristic(UUID.from_16_bits(number), mode, Attribute.Permissions(0), b"")
        stream.descriptors = [
            Descriptor(
                GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
                Attribute.READABLE | Attribute.WRITEABLE | Attribute.WRITE_REQUIRES_ENCRYPTION,
                self.device.gatt_server.make_descriptor_value(stream),
            )
        ]
        return stream

    async def send_pulse(self, rate: int) -> None:
        await self.device.notify_subscribers(self._pulse, bytes([0, rate]))

    async def send_result(self) -> None:
        """Indicate a result; returns when the hub has confirmed it."""
        await self.device.indicate_subscribers(self._result, RESULT)


@asynccontextmanager
async def run_cuff(
    link: VirtualLink, folder: Path, capability: PairingDelegate.IoCapability, hub: Answers
) -> AsyncIterator[PasskeyCuff]:
    """Run the cuff on the link. Its bonds are stored in the folder."""
    device = make_device(link, CUFF, CUFF_NAME, folder / "cuff-bonds.json")
    cuff = PasskeyCuff(device, set_up_pairing(device, capability, hub))
    await device.power_on()
    await device.start_advertising(auto_restart=True)
    try:
        yield cuff
    finally:
        link.remove_device(CUFF)
