"""An emulated watch as a heart-rate sensor: InfiniTime on a PineTime.

Its heart rate (0x180D) has neither contact nor RR intervals, and is 0 while no pulse is found. It also has battery, clock
and InfiniTime's motion service. After a while out of range, some versions advertise no more until the wearer acts.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, NoReturn, Unpack

from bumble.device import Device
from bumble.gatt import Service

from gateway.simulate.peripherals.peripheral import Peripheral, PeripheralOptions, now_s, sleep_until
from gateway.simulate.peripherals.services import (
    DeviceClock,
    encode_advertising_data,
    make_characteristic,
    make_current_time,
    make_device_information,
    make_service,
)

NAME: Final = "InfiniTime"
MOTION_SERVICE: Final = "00030000-78FC-48FE-8E23-433B3A1942D0"
STEPS: Final = "00030001-78FC-48FE-8E23-433B3A1942D0"
MOTION: Final = "00030002-78FC-48FE-8E23-433B3A1942D0"
"""Steps are an unsigned 32-bit number, motion is three signed 16-bit ones in 1/1024 g: InfiniTime, doc/MotionService.md."""

RATE_INTERVAL_S: Final = 1.0
FAST_STEPS_PER_S: Final = 1.8
"""A walk."""
_RESTING: Final = (0, 0, 1024)
_WALKING: Final = (150, -80, 1100)


class Watch(Peripheral):
    """A watch that measures all the time. `clock` is its clock, which the hub may set."""

    def __init__(
        self,
        device: Device,
        true_time: Callable[[], datetime],
        **options: Unpack[PeripheralOptions],
    ) -> None:
        super().__init__(device, **options)
        self.clock = DeviceClock(true_time)
        self.rate_bpm = 0
        """What it measures now; 0 without a pulse."""
        self.battery_percent = 80
        self.steps = 0
        self.is_walking = False
        self.is_screen_off = False
        """Fault: with the screen off, the heart rate is notified no more, as by apps that the system suspends."""
        self._rate = make_characteristic(device, 0x2A37, read=lambda: encode_rate(self.rate_bpm), notify=True)
        self._battery = make_characteristic(device, 0x2A19, read=lambda: bytes((self.battery_percent,)), notify=True)
        self._steps = make_characteristic(device, STEPS, read=lambda: encode_steps(self.steps), notify=True)
        self._motion = make_characteristic(device, MOTION, read=self._encode_motion, notify=True)
        self.add_services(self._make_services(), encode_advertising_data(NAME, (0x180D,)))
        self.wake()

    def find_pulse(self, rate_bpm: int) -> None:
        """Measure this rate from now on; 0: the pulse is lost."""
        self.rate_bpm = rate_bpm

    async def use_battery(self, percent: int) -> None:
        """Let the battery fall to a level, and tell the hub."""
        self.battery_percent = percent
        await self.notify(self._battery, bytes((percent,)))

    async def fall_silent(self) -> None:
        """Fault: drop the link, and advertise no more until `toggle_bluetooth`."""
        self.sleep()
        await self.hang_up()

    def toggle_bluetooth(self) -> None:
        """Advertise again, as after the wearer has switched Bluetooth off and on."""
        self.wake()

    async def work(self) -> NoReturn:
        """Count steps, and notify rate, steps and motion every second."""
        next_s, walked = now_s(), 0.0
        while True:
            next_s += RATE_INTERVAL_S
            await sleep_until(next_s)
            if not self.is_screen_off:
                await self.notify(self._rate, encode_rate(self.rate_bpm))
            if self.is_walking:
                walked += FAST_STEPS_PER_S * RATE_INTERVAL_S
                self.steps, walked = self.steps + int(walked), walked % 1
                await self.notify(self._steps, encode_steps(self.steps))
            await self.notify(self._motion, self._encode_motion())

    def _make_services(self) -> list[Service]:
        device = self.device
        return [
            make_service(0x180D, [self._rate]),
            make_service(0x180F, [self._battery]),
            make_current_time(device, self.clock),
            make_service(MOTION_SERVICE, [self._steps, self._motion]),
            make_device_information(device, manufacturer="PINE64", model="PineTime", serial="0001", firmware="1.14.0"),
        ]

    def _encode_motion(self) -> bytes:
        axes = _WALKING if self.is_walking else _RESTING
        return b"".join(axis.to_bytes(2, "little", signed=True) for axis in axes)


def encode_rate(rate_bpm: int) -> bytes:
    """Encode a Heart Rate Measurement with nothing but a rate of one octet: contact is not supported."""
    return bytes((0, rate_bpm))


def encode_steps(steps: int) -> bytes:
    return steps.to_bytes(4, "little")
