"""An emulated chest strap that sends heart rate and RR intervals only (0x180D), as most straps of sports brands do."""

from typing import Final, NoReturn, Unpack

from bumble.device import Device

from gateway.simulate.peripherals.peripheral import Peripheral, PeripheralOptions, now_s, sleep_until
from gateway.simulate.peripherals.services import (
    encode_advertising_data,
    make_battery,
    make_characteristic,
    make_device_information,
    make_service,
)

NAME: Final = "Virtual HRM 0001"
RATE_INTERVAL_S: Final = 1.0
_CONTACT_AND_RR: Final = 0x16
"""Flags: rate in one octet, contact supported and detected, RR intervals follow."""
_TICKS_PER_MINUTE: Final = 60 * 1024


class HeartRateStrap(Peripheral):
    """A strap that is worn all the time and sends its rate every second. It needs no bond."""

    def __init__(self, device: Device, **options: Unpack[PeripheralOptions]) -> None:
        super().__init__(device, **options)
        self.rate_bpm = 64
        self._rate = make_characteristic(device, 0x2A37, notify=True)
        services = [
            make_service(0x180D, [self._rate]),
            make_battery(device, 80),
            make_device_information(device, manufacturer="pulsegate", model="Virtual HRM", serial="0001"),
        ]
        self.add_services(services, encode_advertising_data(NAME, (0x180D,)))
        self.wake()

    async def work(self) -> NoReturn:
        """Notify the rate and one interval every second."""
        next_s = now_s()
        while True:
            next_s += RATE_INTERVAL_S
            await sleep_until(next_s)
            await self.notify(self._rate, encode_rate_and_interval(self.rate_bpm))


def encode_rate_and_interval(rate_bpm: int) -> bytes:
    """Encode a Heart Rate Measurement with skin contact and one RR interval that agrees with the rate."""
    return bytes((_CONTACT_AND_RR, rate_bpm)) + round(_TICKS_PER_MINUTE / rate_bpm).to_bytes(2, "little")
