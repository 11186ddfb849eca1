"""An emulated scale that only advertises: the Xiaomi Mi Body Composition Scale 2, in service data of 0x181B.

A weighing is a stream of advertisements: the weight settles, is stable, gets its impedance seconds later, and is repeated many
times, at last with the mark that the person stepped off. The scale then advertises the last frame for a while, and sleeps.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final, Unpack

from bumble.device import Device

from gateway.simulate.peripherals.encoding import encode_date
from gateway.simulate.peripherals.peripheral import Peripheral, PeripheralOptions
from gateway.simulate.peripherals.services import DeviceClock, encode_advertising_data

NAME: Final = "MIBCS"
SERVICE: Final = 0x181B
NO_IMPEDANCE: Final = 0xFFFD

SETTLING_S: Final = 0.5
"""Time of each of the frames before the weight is stable."""
IMPEDANCE_DELAY_S: Final = 3.0
"""Time from the stable weight to the frame with the impedance."""
STANDING_S: Final = 2.0
REPEATING_S: Final = 15.0
"""How long the last frame is advertised after the person has stepped off."""

_POUNDS: Final = 0x01
_ALWAYS_SET: Final = 0x02
_HAS_IMPEDANCE, _ALSO_SET, _STABLE, _REMOVED = 0x02, 0x04, 0x20, 0x80


class BroadcastScale(Peripheral):
    """A scale that is only heard. `frames` are the service data that it has advertised, each once, oldest first."""

    def __init__(
        self,
        device: Device,
        true_time: Callable[[], datetime],
        *,
        in_pounds: bool = False,
        **options: Unpack[PeripheralOptions],
    ) -> None:
        super().__init__(device, **options)
        self.clock, self._in_pounds = DeviceClock(true_time), in_pounds
        self.frames: list[bytes] = []
        self.add_services([], encode_advertising_data(NAME, (SERVICE,)))

    async def weigh(self, kg: float, *, impedance_ohm: int | None = 503, at: datetime | None = None) -> None:
        """Weigh someone. Without an impedance the person wears socks. Returns when the scale sleeps again."""
        date = encode_date(at or self.clock.now())
        self.wake()
        for share in (0.4, 0.9, 1.02):
            await self._show(self._encode(kg * share, date, 0), SETTLING_S)
        await self._show(self._encode(kg, date, _STABLE), IMPEDANCE_DELAY_S)
        if impedance_ohm is not None:
            await self._show(self._encode(kg, date, _STABLE, impedance_ohm), STANDING_S)
        await self._show(self._encode(kg, date, _STABLE | _REMOVED, impedance_ohm), REPEATING_S)
        self.sleep()

    async def serve(self) -> None:
        """Drop a connection: this sensor has nothing to say there."""
        await self.hang_up()

    def _encode(self, kg: float, date: bytes, state: int, impedance_ohm: int | None = None) -> bytes:
        weight = round(kg / 0.45359237 * 100) if self._in_pounds else round(kg * 200)
        state |= _ALSO_SET | (0 if impedance_ohm is None else _HAS_IMPEDANCE)
        impedance = NO_IMPEDANCE if impedance_ohm is None else impedance_ohm
        unit = _ALWAYS_SET | (_POUNDS if self._in_pounds else 0)
        return bytes((unit, state)) + date + impedance.to_bytes(2, "little") + weight.to_bytes(2, "little")

    async def _show(self, frame: bytes, seconds: float) -> None:
        self.frames.append(frame)
        self._on_event({"event": "advertised", "service_data": frame.hex()})
        await self.advertise_data(encode_advertising_data(NAME, (SERVICE,), service_data={SERVICE: frame}))
        await asyncio.sleep(seconds)
