"""A virtual chest strap: advertises, bonds, and sends heart rate, ECG and acceleration as a Polar H10 does. It plays a script
or a recording.

The ECG starts (time 0) at the first subscription to the heart rate or the first start of the ECG since the process began. It
continues during disconnections; data without a subscriber is lost, as on a real strap. All timing uses the event loop's clock,
so the strap also runs on virtual time.
"""

import argparse
import asyncio
import logging
import math
import secrets
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, Service

from captures import RecordingError, open_recording
from gateway.errors import RadioError
from gateway.radio.virtual_radio_server import open_device
from gateway.simulate import pmd, wearer
from gateway.simulate.heart import RepeatingEcg, from_recording, from_script
from gateway.simulate.journal import Journal
from gateway.simulate.peripherals.frame_faults import FrameFaults
from gateway.simulate.peripherals.peripheral import BondedSubscriptions, OnEvent, Peripheral, now_s, sleep_until
from gateway.simulate.peripherals.services import (
    encode_advertising_data,
    make_battery,
    make_characteristic,
    make_device_information,
    make_service,
    queue_request,
)
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script, script_names
from gateway.simulate.sensor_process import keep_running, print_event, run_until_stopped
from models.signal.chain import EcgChain

log = logging.getLogger(__name__)

NAME: Final = "Virtual H10 0A1B2C3D"
ADDRESS: Final = "C0:DE:0A:1B:2C:3D"
"""A static random address: its two highest bits are set (Core Specification 5.4, volume 6, part B, 1.3.2.1)."""

OFF_AFTER_S: Final = 45.0
"""Time from taking an H10 off the skin to its switching off."""
_RATE_INTERVALS: Final = 5
"""The heart rate is the mean over this many RR intervals."""
_MAX_RR_INTERVALS: Final = 9
"""RR intervals that fit in a heart rate measurement at the minimum MTU (Heart Rate Service 1.0, 3.1.1.4)."""
_FLAGS_CONTACT_AND_RR: Final = 0x16
"""Flags: rate in one byte, contact supported and detected, RR intervals follow."""
_LOCATION_CHEST: Final = 1
"""A value of Body Sensor Location (0x2A38)."""
_BATTERY_PERCENT: Final = 87
_MAX_PENDING_REQUESTS: Final = 4


class Strap(Peripheral):
    """The strap on one Bumble device."""

    def __init__(
        self, device: Device, playback: Playback, on_event: OnEvent, subscriptions: BondedSubscriptions | None = None
    ) -> None:
        """`device` is powered on, and pairs without user input (see `gateway.radio.virtual.make_hci_device`)."""
        super().__init__(device, on_event=on_event, subscriptions=subscriptions)
        self._playback = playback
        self.faults: FrameFaults[tuple[int, int]] = FrameFaults()
        self.clock_error = playback.clock_error
        self.is_walking = False
        """Whether the wearer walks; the acceleration shows it."""
        self._requests: asyncio.Queue[bytes] = asyncio.Queue(_MAX_PENDING_REQUESTS)
        self._leaves_s = math.inf
        self._heart_rate = make_characteristic(device, 0x2A37, notify=True)
        self._heart_rate.on(Characteristic.EVENT_SUBSCRIPTION, self._on_rate_subscription)
        self._data = make_characteristic(device, pmd.DATA, notify=True)
        self._control_point = self._make_control_point()
        self.add_services(self._make_services(), encode_advertising_data(device.name, (0x180D,)))
        self.wake()

    def take_off(self) -> None:
        """Take the strap off: it measures no heart rate, and after 45 s drops the link and switches itself off."""
        self._leaves_s = now_s() + OFF_AFTER_S

    def put_on(self) -> None:
        """Wear the strap, which switches it on."""
        self._leaves_s = math.inf
        self.wake()

    def _make_services(self) -> list[Service]:
        device = self.device
        location = make_characteristic(device, 0x2A38, read=bytes((_LOCATION_CHEST,)))
        return [
            make_service(0x180D, [self._heart_rate, location]),
            make_service(pmd.SERVICE, [self._control_point, self._data]),
            make_battery(device, _BATTERY_PERCENT),
            make_device_information(device, manufacturer="pulsegate", model="Virtual H10", serial=device.name.split()[-1]),
        ]

    def _make_control_point(self) -> Characteristic[bytes]:
        """Reads and writes require an encrypted link, so a hub must bond before it can start the ECG."""
        control_point = make_characteristic(
            self.device,
            pmd.CONTROL_POINT,
            read=pmd.encode_features(pmd.H10),
            write=self._on_request,
            indicate=True,
            encrypted=True,
        )
        control_point.descriptors = []  # the subscription itself needs no encryption
        return control_point

    async def serve(self) -> None:
        """Answer control point requests in order, and run the streams that they start and stop."""
        connection = self.connection
        assert connection is not None  # this task is cancelled when the connection ends
        self._requests = asyncio.Queue(_MAX_PENDING_REQUESTS)
        streams: dict[int, asyncio.Task[NoReturn]] = {}
        running: frozenset[int] = frozenset()
        async with asyncio.TaskGroup() as tasks:
            while True:
                request = await self._requests.get()
                response = pmd.handle_request(request, pmd.H10, running)
                running = response.running
                for measurement in running - streams.keys():
                    if measurement == pmd.ECG:
                        stream = self._stream(connection)
                    else:
                        stream = self._stream_acceleration(connection, pmd.setting_of(request, pmd.SAMPLE_RATE))
                    streams[measurement] = tasks.create_task(stream)
                for measurement in streams.keys() - running:
                    streams.pop(measurement).cancel()
                await self.indicate(self._control_point, response.indication)

    async def work(self) -> NoReturn:
        """Send a heart rate with the RR intervals since the last one, every second. Leave when it is not worn."""
        next_s, sent_until_s = now_s(), 0.0
        recent: deque[float] = deque(maxlen=_RATE_INTERVALS)
        while True:
            next_s += 1.0
            await sleep_until(next_s)
            if next_s >= self._leaves_s:
                self.sleep()
                await self.hang_up()
            elapsed_s = self._playback.elapsed_s(next_s)
            if self.connection is None:
                sent_until_s = max(sent_until_s, elapsed_s)
                continue
            intervals = self._playback.ecg.rr_intervals(sent_until_s, elapsed_s)
            sent_until_s = max(sent_until_s, elapsed_s)
            recent.extend(intervals)
            if recent and self._leaves_s == math.inf:
                rate = encode_heart_rate(tuple(recent), intervals)
                await self.device.notify_subscriber(self.connection, self._heart_rate, rate)

    def _on_request(self, _connection: Connection, request: bytes) -> None:
        """Queue a write to the control point. The response follows as an indication."""
        queue_request(self._requests, request, is_subscribed=self.is_subscribed(self._control_point))

    def _on_rate_subscription(self, _connection: Connection, notify: bool, _indicate: bool) -> None:
        if notify:
            self._playback.start(now_s())

    async def _stream_acceleration(self, connection: Connection, rate_hz: int) -> NoReturn:
        """Send frames of the acceleration from now on, each at the time of its last sample."""
        next_s = now_s()
        count = min(pmd.MAX_ACCELERATION_SAMPLES, (connection.att_mtu - 13) // 6)
        while True:
            times_s = next_s + np.arange(count) / rate_hz
            next_s += count / rate_hz
            last_s = float(times_s[-1])
            await sleep_until(last_s)
            samples = wearer.accelerate(times_s, is_walking=self.is_walking)
            frame = pmd.encode_acceleration(self._playback.clock.sensor_ns(last_s) + self.clock_error.ns, samples)
            if self.is_subscribed(self._data):
                await self.device.notify_subscriber(connection, self._data, frame)

    async def _stream(self, connection: Connection) -> NoReturn:
        """Send each frame at the time at which its last sample is measured."""
        start_ns = self._playback.start(now_s())
        self._on_event({"event": "streaming", "script_start_us": (start_ns + pmd.EPOCH_UNIX_NS) // 1000})
        first = self._playback.next_sample(now_s())
        self.faults.reset()
        while True:
            count = pmd.samples_per_frame(connection.att_mtu)
            await sleep_until(self._playback.sample_time_s(first + count - 1))
            for released in self.faults.release((first, count)) if self.is_subscribed(self._data) else ():
                frame = self._playback.take_frame(*released)
                # Before it is sent: what the agent has received is never more than what was reported.
                self._on_event({"event": "frames", "sent_samples": self._playback.sent_samples})
                await self.device.notify_subscriber(connection, self._data, frame)
            first += count


def encode_heart_rate(recent_s: tuple[float, ...], intervals_s: tuple[float, ...]) -> bytes:
    """Encode a Heart Rate Measurement (0x2A37): the mean rate over `recent_s`, and the new RR intervals, oldest first."""
    rate = min(255, round(60 * len(recent_s) / sum(recent_s)))
    ticks = [min(0xFFFF, round(interval * 1024)) for interval in intervals_s[-_MAX_RR_INTERVALS:]]
    flags = _FLAGS_CONTACT_AND_RR if ticks else _FLAGS_CONTACT_AND_RR & ~0x10
    return struct.pack(f"<BB{len(ticks)}H", flags, rate, *ticks)


async def run_strap(socket: Path, ecg: RepeatingEcg, journal: Path, on_event: OnEvent) -> NoReturn:
    """Run the strap on the virtual radio at `socket` until cancelled. Its bonds and
    the subscriptions of bonded hubs are stored in files beside the journal.

    Raises:
        RadioError: there was no virtual radio for ten seconds.
    """
    subscriptions = BondedSubscriptions(journal.with_suffix(".subscriptions.json"))
    with Journal(journal, run=secrets.token_hex(4)) as entries:
        playback = Playback(ecg, SensorClock.set_to(time.time_ns(), now_s()), entries)

        async def run_once(device: Device) -> None:
            await Strap(device, playback, on_event, subscriptions).run()

        await keep_running(partial(open_device, socket, ADDRESS, NAME, journal.with_suffix(".bonds.json")), run_once)


def main(arguments: Sequence[str]) -> int:
    """Run the strap as a process. Return 0 after a stop request, or 1 after an error, which is printed to standard error."""
    options = _parser().parse_args(arguments)
    try:
        ecg = from_script(load_script(options.script)) if options.record is None else ecg_from_file(options.record)
        asyncio.run(
            run_until_stopped(run_strap(options.socket, ecg, options.journal, print_event), watch_stdin=options.watch_stdin)
        )
    except (RadioError, RecordingError, OSError) as error:
        sys.stderr.write(f"strap: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway.simulate.strap", description="a virtual chest strap on a virtual radio")
    parser.add_argument("--socket", type=Path, required=True, help="the virtual radio's socket")
    parser.add_argument("--journal", type=Path, required=True, help="file to which sent frames are appended")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--script", default="demo", choices=script_names(), help="script to play (default: %(default)s)")
    source.add_argument("--record", type=Path, help="play a recorded ECG instead: WFDB header or CSV file")
    parser.add_argument("--watch-stdin", action="store_true", help="stop when standard input (a pipe) ends")
    return parser


def ecg_from_file(path: Path) -> RepeatingEcg:
    """Load a recording to play. Its RR intervals come from the beats detected in the recording.

    Missing samples are played as 0 mV, because a strap sends without interruption.

    Raises:
        RecordingError: the recording cannot be read, or has no valid sample.
    """
    recording = open_recording(path)
    if not np.isfinite(recording.mv).any():
        raise RecordingError(f"{path}: it has no valid sample to play; choose another recording")
    mv = np.nan_to_num(recording.mv)
    chain = EcgChain(recording.rate_hz)
    seconds = np.array_split(mv, max(1, round(mv.size / recording.rate_hz)))
    beats = [beat for second in seconds for beat in chain.push(second)] + chain.finish()
    return from_recording(mv, recording.rate_hz, [beat.t_s for beat in beats])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
