"""An emulated optical armband with Polar Measurement Data, as a Verity Sense: PPG, acceleration, PP intervals, heart rate.

Its frames are compressed. It refuses to stream over a small MTU and in its charger, may stop a stream unasked, and after a lost
link may count a stream as running that the hub knows nothing of.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Final, NoReturn, Unpack

import numpy as np
from bumble.device import Connection, Device
from bumble.gatt import Service
from numpy.typing import NDArray

from gateway.simulate import pmd
from gateway.simulate.peripherals.frame_faults import FrameFaults
from gateway.simulate.peripherals.peripheral import Peripheral, PeripheralOptions, now_s, sleep_until
from gateway.simulate.peripherals.services import (
    encode_advertising_data,
    make_battery,
    make_characteristic,
    make_device_information,
    make_service,
    queue_request,
)
from gateway.simulate.playback import ClockError, SensorClock
from gateway.simulate.pmd_compression import encode_compressed_frame

NAME: Final = "Virtual Sense 0A1B"
FRAME_SAMPLES: Final = 20
"""Samples in a frame of PPG or acceleration: with the widest differences it still fits in the smallest MTU, 232."""
PP_FIRST_S: Final = 25.0
"""Time from the start of PP intervals to the first ones, which the algorithm needs to settle."""
PP_INTERVAL_S: Final = 5.0
"""Time between two frames of PP intervals, and of heart rates while they stream."""

_MAX_PENDING_REQUESTS: Final = 4
_FACTOR_ONE: Final = bytes.fromhex("05 01 0000803f")
_BLOCKER, _CONTACT, _CONTACT_SUPPORTED = 1, 2, 4
_RATE_CONTACT_SUPPORTED, _RATE_CONTACT = 4, 2
_LOCATION_OTHER: Final = 0
"""Body Sensor Location has no value for the upper arm."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal of several channels. `sample` returns samples by their numbers, one row a sample."""

    rate_hz: float
    frame_type: int
    reference_bytes: int
    sample: Callable[[NDArray[np.int64]], NDArray[np.int64]]


def _sample_ppg(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Three photodiodes with a pulse of 72/min, and ambient light."""
    phase = 2 * np.pi * 1.2 * numbers / 55
    pulse = -np.sin(phase) - 0.4 * np.sin(2 * phase)
    channels = [420_000 + 2_000 * pulse, 380_000 + 1_800 * pulse, 455_000 + 2_300 * pulse, -8_000 + 20 * np.sin(phase / 7)]
    return _round(np.stack(channels, axis=1))


def _sample_acceleration(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """An arm that swings a little, in mg."""
    phase = 2 * np.pi * 0.9 * numbers / 52
    return _round(np.stack([120 * np.sin(phase), 60 * np.cos(phase), 1_000 + 30 * np.sin(2 * phase)], axis=1))


def _round(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray(np.rint(values), dtype=np.int64)


SIGNALS: Final = {
    pmd.PPG: Signal(55.0, 0, 3, _sample_ppg),
    pmd.ACCELERATION: Signal(52.0, 1, 2, _sample_acceleration),
}


def make_offers(stated_ppg_rate_hz: int = 55) -> pmd.Offers:
    """Return what the armband offers. Firmware before 2.1.0 states a PPG rate of 135 Hz, while the true one is 55 Hz."""
    return {
        pmd.PPG: pmd.Offer({pmd.SAMPLE_RATE: (stated_ppg_rate_hz,), pmd.RESOLUTION: (22,), pmd.CHANNELS: (4,)}, _FACTOR_ONE),
        pmd.ACCELERATION: pmd.Offer(
            {pmd.SAMPLE_RATE: (52,), pmd.RESOLUTION: (16,), pmd.RANGE: (8,), pmd.CHANNELS: (3,)}, _FACTOR_ONE
        ),
        pmd.PP_INTERVAL: pmd.Offer({}),
    }


class Armband(Peripheral):
    """An armband that is worn all the time. `running` are the measurements that it streams."""

    def __init__(
        self,
        device: Device,
        clock: SensorClock,
        *,
        offers: pmd.Offers | None = None,
        **options: Unpack[PeripheralOptions],
    ) -> None:
        super().__init__(device, **options)
        self.clock_error, self._clock, self._offers = ClockError(clock), clock, offers or make_offers()
        self.rate_bpm, self.is_worn, self.is_moving = 72, True, False
        self.running: frozenset[int] = frozenset()
        self.keeps_streams = False
        """Fault: streams count as running after a lost link, so a start is answered by "already in this state"."""
        self.is_charging = False
        self.faults: dict[int, FrameFaults[bytes]] = {measurement: FrameFaults() for measurement in self._offers}
        self._streams: dict[int, asyncio.Task[NoReturn]] = {}
        self._requests: asyncio.Queue[bytes] = asyncio.Queue(_MAX_PENDING_REQUESTS)
        self._rate = make_characteristic(device, 0x2A37, notify=True)
        self._data = make_characteristic(device, pmd.DATA, notify=True, encrypted=True)
        self._control_point = make_characteristic(
            device,
            pmd.CONTROL_POINT,
            read=pmd.encode_features(self._offers),
            write=self._on_request,
            indicate=True,
            encrypted=True,
        )
        self.add_services(self._make_services(), encode_advertising_data(NAME, (0x180D,)))
        self.wake()

    async def stop_unasked(self, *measurements: int) -> None:
        """Fault: end streams, and tell the hub."""
        self.running -= set(measurements)
        self._cancel_stopped()
        await self.indicate(self._control_point, pmd.encode_stop_notice(measurements))

    async def put_in_charger(self) -> None:
        """End all streams, and refuse to start any until `take_out_of_charger`."""
        self.is_charging = True
        if self.running:
            await self.stop_unasked(*sorted(self.running))

    def take_out_of_charger(self) -> None:
        self.is_charging = False

    async def serve(self) -> None:
        """Answer control point requests in order, and run the streams that they start and stop."""
        self._requests, self._streams = asyncio.Queue(_MAX_PENDING_REQUESTS), {}
        if not self.keeps_streams:
            self.running = frozenset()
        async with asyncio.TaskGroup() as tasks:
            self._start_running(tasks)
            while True:
                response = pmd.handle_request(
                    await self._requests.get(), self._offers, self.running, refusal=self._start_refusal()
                )
                self.running = response.running
                self._cancel_stopped()
                self._start_running(tasks)
                await self.indicate(self._control_point, response.indication)

    async def work(self) -> NoReturn:
        """Notify the heart rate every second, or every 5 s while PP intervals stream."""
        next_s = now_s()
        while True:
            next_s += PP_INTERVAL_S if pmd.PP_INTERVAL in self.running else 1.0
            await sleep_until(next_s)
            contact = _RATE_CONTACT if self.is_worn else 0
            rate_bpm = self.rate_bpm if self.is_worn else 0
            await self.notify(self._rate, bytes((_RATE_CONTACT_SUPPORTED | contact, rate_bpm)))

    def _make_services(self) -> list[Service]:
        device = self.device
        location = make_characteristic(device, 0x2A38, read=bytes((_LOCATION_OTHER,)))
        return [
            make_service(0x180D, [self._rate, location]),
            make_service(pmd.SERVICE, [self._control_point, self._data]),
            make_battery(device, 60),
            make_device_information(device, manufacturer="pulsegate", model="Virtual Sense", serial="0A1B"),
        ]

    def _on_request(self, _connection: Connection, request: bytes) -> None:
        queue_request(self._requests, request, is_subscribed=self.is_subscribed(self._control_point))

    def _start_refusal(self) -> int:
        if self.is_charging:
            return pmd.IN_CHARGER
        return pmd.SUCCESS if self.connection and self.connection.att_mtu >= pmd.MIN_MTU else pmd.INVALID_MTU

    def _start_running(self, tasks: asyncio.TaskGroup) -> None:
        for measurement in sorted(self.running - self._streams.keys()):
            stream = self._stream_intervals() if measurement == pmd.PP_INTERVAL else self._stream(measurement)
            self._streams[measurement] = tasks.create_task(stream)

    def _cancel_stopped(self) -> None:
        for measurement in sorted(self._streams.keys() - self.running):
            self._streams.pop(measurement).cancel()

    async def _stream(self, measurement: int) -> NoReturn:
        """Send each frame at the time at which its last sample is measured. Sample 0 is measured at the loop's time 0."""
        signal, faults = SIGNALS[measurement], self.faults[measurement]
        faults.reset()
        first = ceil(now_s() * signal.rate_hz)
        while True:
            last_s = (first + FRAME_SAMPLES - 1) / signal.rate_hz
            await sleep_until(last_s)
            samples = signal.sample(np.arange(first, first + FRAME_SAMPLES))
            last_ns = self._clock.sensor_ns(last_s) + self.clock_error.ns
            frame = encode_compressed_frame(measurement, signal.frame_type, last_ns, samples, signal.reference_bytes)
            for released in faults.release(frame):
                await self.notify(self._data, released)
            first += FRAME_SAMPLES

    async def _stream_intervals(self) -> NoReturn:
        """Send the PP intervals of the last seconds. They carry no time."""
        faults = self.faults[pmd.PP_INTERVAL]
        faults.reset()
        next_s = now_s() + PP_FIRST_S
        while True:
            await sleep_until(next_s)
            for released in faults.release(self._encode_intervals()):
                await self.notify(self._data, released)
            next_s += PP_INTERVAL_S

    def _encode_intervals(self) -> bytes:
        flags = _CONTACT_SUPPORTED | (_CONTACT if self.is_worn else 0) | (_BLOCKER if self.is_moving else 0)
        mean_ms, error_ms = 60_000 / self.rate_bpm, 30 if self.is_moving else 10
        intervals_ms = [round(mean_ms + sway_ms) for sway_ms in (-12, 0, 12, 0, -12, 12)][
            : int(PP_INTERVAL_S * self.rate_bpm / 60)
        ]
        samples = b"".join(
            bytes((self.rate_bpm,)) + ms.to_bytes(2, "little") + error_ms.to_bytes(2, "little") + bytes((flags,))
            for ms in intervals_ms
        )
        return bytes((pmd.PP_INTERVAL,)) + bytes(8) + bytes((0,)) + samples
