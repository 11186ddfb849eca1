"""An emulated thermometer: Health Thermometer service 1.0 (0x1809). It wakes by measuring, indicates and disconnects."""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Unpack

from bumble.device import Device

from gateway.simulate.peripherals.encoding import encode_date, encode_float
from gateway.simulate.peripherals.peripheral import PeripheralOptions
from gateway.simulate.peripherals.services import (
    DeviceClock,
    encode_advertising_data,
    make_battery,
    make_characteristic,
    make_current_time,
    make_device_information,
    make_service,
)
from gateway.simulate.peripherals.spot import ADVERTISING_WINDOW_S, SpotPeripheral, StoredResult

NAME: Final = "Virtual Thermo 0001"
MOUTH: Final = 6
"""A value of Temperature Type."""
_FAHRENHEIT, _DATE, _TYPE = 1, 2, 4


class Thermometer(SpotPeripheral):
    """A thermometer with a memory. With `in_fahrenheit` it sends in that unit; `measure` takes degrees Celsius in any case."""

    def __init__(
        self,
        device: Device,
        true_time: Callable[[], datetime],
        *,
        in_fahrenheit: bool = False,
        **options: Unpack[PeripheralOptions],
    ) -> None:
        super().__init__(device, **options)
        self.clock, self._in_fahrenheit = DeviceClock(true_time), in_fahrenheit
        self._measurement = make_characteristic(device, 0x2A1C, indicate=True, encrypted=True)
        self._intermediate = make_characteristic(device, 0x2A1E, notify=True, encrypted=True)
        services = [
            make_service(
                0x1809, [self._measurement, make_characteristic(device, 0x2A1D, read=bytes((MOUTH,))), self._intermediate]
            ),
            make_device_information(device, manufacturer="pulsegate", model="Virtual Thermo", serial="0001"),
            make_battery(device, 65),
            make_current_time(device, self.clock, encrypted=True),
        ]
        self.add_services(services, encode_advertising_data(NAME, (0x1809,)))

    async def measure(self, celsius: float | None, *, at: datetime | None = None) -> StoredResult:
        """Measure, notify the rising temperature if a hub is connected, store the result, and advertise. None fails."""
        if celsius is not None:
            for below in (2.0, 0.5):
                await self.notify(self._intermediate, self._encode(celsius - below, b""))
        result = self.keep([(self._measurement, self._encode(celsius, encode_date(at or self.clock.now())))])
        self.wake(ADVERTISING_WINDOW_S)
        return result

    def _encode(self, celsius: float | None, date: bytes) -> bytes:
        value = celsius * 9 / 5 + 32 if celsius is not None and self._in_fahrenheit else celsius
        flags = _TYPE | (_FAHRENHEIT if self._in_fahrenheit else 0) | (_DATE if date else 0)
        return bytes((flags,)) + encode_float(value) + date + bytes((MOUTH,))
