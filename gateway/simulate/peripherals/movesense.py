"""An emulated Movesense sensor with the firmware that serves its measurements over GATT (GATT SensorData protocol).

A hub subscribes to a resource by its path, under a reference of its choice. Each answer and each packet names the reference. A
subscription outlives the connection. The clock counts milliseconds since the sensor was switched on.
"""

import asyncio
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn, Unpack

from bumble.device import Connection, Device

from gateway.simulate.peripherals.frame_faults import FrameFaults
from gateway.simulate.peripherals.peripheral import Peripheral, PeripheralOptions, now_s, sleep_until
from gateway.simulate.peripherals.services import (
    encode_advertising_data,
    make_battery,
    make_characteristic,
    make_device_information,
    make_service,
)

NAME: Final = "Movesense 000000000001"
SERVICE: Final = "34802252-7185-4D5D-B431-630E7050E8F0"
COMMAND: Final = "34800001-7185-4D5D-B431-630E7050E8F0"
DATA: Final = "34800002-7185-4D5D-B431-630E7050E8F0"

SUBSCRIBE, UNSUBSCRIBE = 1, 2
RESULT, PACKET, REST = 1, 2, 3
OK, BAD_REQUEST, NOT_FOUND, NO_SLOT = 200, 400, 404, 507
"""Results are status codes of HTTP."""
MAX_SUBSCRIPTIONS: Final = 4

GRAVITY_MS2: Final = 9.81
_HEADER_BYTES: Final = 2
_CLOCK_LIMIT: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Resource:
    """A measurement: how many packets it sends a second, and the content of packet `number`, without the time."""

    packets_per_s: float
    encode: Callable[[int], bytes]
    has_time: bool = True


def ecg_microvolts(sample: int) -> int:
    """Return the ECG at 200 Hz by the sample's number: a narrow R wave every 0.8 s on a slow wave."""
    return round(1000 * math.exp(-(((sample % 160 - 80) / 3) ** 2)) + 50 * math.sin(sample / 100))


def _encode_ecg(number: int) -> bytes:
    return struct.pack("<16h", *(ecg_microvolts(sample) for sample in range(16 * number, 16 * number + 16)))


def _acceleration(sample: int) -> tuple[float, float, float]:
    return 0.5 * math.sin(sample / 9), 0.25 * math.cos(sample / 9), GRAVITY_MS2


def _rotation(sample: int) -> tuple[float, float, float]:
    return 10 * math.cos(sample / 9), 0.0, -1.5


def _encode_motion(*quantities: Callable[[int], tuple[float, float, float]]) -> Callable[[int], bytes]:
    """Return an encoder of four samples a packet: all of the first quantity, then all of the next."""

    def encode(number: int) -> bytes:
        axes = [axis for quantity in quantities for sample in range(4 * number, 4 * number + 4) for axis in quantity(sample)]
        return struct.pack(f"<{len(axes)}f", *axes)

    return encode


def _encode_heart_rate(_number: int) -> bytes:
    """Return the mean rate and one RR interval in ms."""
    return struct.pack("<fH", 75.0, 800)


RESOURCES: Final = {
    "Meas/Ecg/200/mV": Resource(200 / 16, _encode_ecg),
    "Meas/HR": Resource(1.25, _encode_heart_rate, has_time=False),
    "Meas/Acc/52": Resource(52 / 4, _encode_motion(_acceleration)),
    "Meas/Gyro/52": Resource(52 / 4, _encode_motion(_rotation)),
    "Meas/IMU6/52": Resource(52 / 4, _encode_motion(_acceleration, _rotation)),
}
"""The resources by path, without the leading slash. This model has no magnetometer, so no IMU9."""


class Movesense(Peripheral):
    """A Movesense sensor that is worn all the time. `subscriptions` are the paths by reference."""

    def __init__(
        self,
        device: Device,
        *,
        booted_ms: int = 0,
        **options: Unpack[PeripheralOptions],
    ) -> None:
        """`booted_ms` is the sensor's clock when the event loop's time is 0. It wraps after 49.7 days."""
        super().__init__(device, **options)
        self.booted_ms = booted_ms
        self.subscribed: dict[int, str] = {}
        self.faults: FrameFaults[bytes] = FrameFaults()
        self._streams: dict[int, asyncio.Task[NoReturn]] = {}
        self._commands: asyncio.Queue[bytes] = asyncio.Queue()
        self._command = make_characteristic(device, COMMAND, write=self._on_command)
        self._data = make_characteristic(device, DATA, notify=True)
        services = [
            make_service(SERVICE, [self._command, self._data]),
            make_battery(device, 95),
            make_device_information(
                device, manufacturer="Movesense", model="Movesense", serial="000000000001", firmware="2.3.1"
            ),
        ]
        self.add_services(services, encode_advertising_data(NAME))
        self.wake()

    def restart(self) -> None:
        """Fault: forget subscriptions and count time from 0 again, as after a change of the battery."""
        self.subscribed.clear()
        self._cancel_stopped()
        self.booted_ms = -round(now_s() * 1000)

    async def serve(self) -> None:
        """Follow commands in order, and stream what is subscribed."""
        self._commands, self._streams = asyncio.Queue(), {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._start_subscribed(tasks)
                command = await self._commands.get()
                reference, status = self._follow(command)
                self._cancel_stopped()
                await self.notify(self._data, bytes((RESULT, reference)) + status.to_bytes(2, "little"))

    def _on_command(self, _connection: Connection, command: bytes) -> None:
        self._commands.put_nowait(command)

    def _follow(self, command: bytes) -> tuple[int, int]:
        """Follow a command: its number, a reference, and a path. Return the reference and the status."""
        if len(command) < _HEADER_BYTES:
            return 0, BAD_REQUEST
        op, reference, path = command[0], command[1], command[2:].decode("ascii", "replace")
        if op == UNSUBSCRIBE:
            return reference, OK if self.subscribed.pop(reference, None) is not None else NOT_FOUND
        if op != SUBSCRIBE or reference in self.subscribed:
            return reference, BAD_REQUEST
        if path not in RESOURCES:
            return reference, NOT_FOUND
        if len(self.subscribed) == MAX_SUBSCRIPTIONS:
            return reference, NO_SLOT
        self.subscribed[reference] = path
        return reference, OK

    def _start_subscribed(self, tasks: asyncio.TaskGroup) -> None:
        for reference in sorted(self.subscribed.keys() - self._streams.keys()):
            self._streams[reference] = tasks.create_task(self._stream(reference, RESOURCES[self.subscribed[reference]]))

    def _cancel_stopped(self) -> None:
        for reference in sorted(self._streams.keys() - self.subscribed.keys()):
            self._streams.pop(reference).cancel()

    async def _stream(self, reference: int, resource: Resource) -> NoReturn:
        """Send each packet when its last sample is measured, with the time of its first one."""
        number = math.ceil(now_s() * resource.packets_per_s)
        while True:
            await sleep_until((number + 1) / resource.packets_per_s)
            time_ms = self.booted_ms + round(number / resource.packets_per_s * 1000)
            time = (time_ms % _CLOCK_LIMIT).to_bytes(4, "little") if resource.has_time else b""
            for packet in self.faults.release(time + resource.encode(number)):
                await self._send(reference, packet)
            number += 1

    async def _send(self, reference: int, packet: bytes) -> None:
        """Send a packet, in two values where it does not fit in one."""
        if self.connection is not None:
            room = self.connection.att_mtu - 3 - _HEADER_BYTES
            await self.notify(self._data, bytes((PACKET, reference)) + packet[:room])
            if len(packet) > room:
                await self.notify(self._data, bytes((REST, reference)) + packet[room:])
