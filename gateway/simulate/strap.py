"""A virtual chest strap: advertises, bonds, and sends heart rate and ECG as a Polar H10 does. It plays a script or a
recording.

The ECG starts (time 0) at the first subscription to the heart rate or the first start of the ECG since the process began. It
continues during disconnections; data without a subscriber is lost, as on a real strap. All timing uses the event loop's clock,
so the strap also runs on virtual time.
"""

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from bumble import att
from bumble.core import UUID, AdvertisingData
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.transport.common import TransportLostError

from captures import RecordingError, open_recording
from config.process import watching_stdin
from gateway.errors import RadioError
from gateway.radio.virtual_radio_server import open_device
from gateway.simulate import pmd
from gateway.simulate.journal import Journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.repeating_ecg import RepeatingEcg, ecg_from_recording, ecg_from_script
from gateway.simulate.script import load_script, script_names
from models.signal.chain import EcgChain

log = logging.getLogger(__name__)

NAME: Final = "Virtual H10 0A1B2C3D"
ADDRESS: Final = "C0:DE:0A:1B:2C:3D"
"""A static random address: its two highest bits are set (Core Specification 5.4, volume 6, part B, 1.3.2.1)."""

OnEvent = Callable[[Mapping[str, Any]], None]
"""Receives one event of the strap, ready for JSON."""

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
_CCCD_IMPROPERLY_CONFIGURED: Final = 0xFD
_PROCEDURE_IN_PROGRESS: Final = 0xFE

_RADIO_TIMEOUT_S: Final = 10.0
"""How long the strap waits for the virtual radio to start or restart before it gives up."""
_RADIO_RETRY_S: Final = 0.2


class Strap:
    """The strap on one Bumble device. It serves one connection at a time and advertises again after each."""

    def __init__(self, device: Device, playback: Playback, on_event: OnEvent) -> None:
        """`device` is powered on, and pairs without user input (see `gateway.radio.virtual.make_hci_device`)."""
        self._device = device
        self._playback = playback
        self._on_event = on_event
        self._connections: dict[Connection, asyncio.Queue[bytes]] = {}
        self._disconnected = asyncio.Event()
        self._radio_lost = asyncio.Event()
        self._heart_rate = _make_characteristic(UUID.from_16_bits(0x2A37), Characteristic.Properties.NOTIFY)
        self._heart_rate.on(Characteristic.EVENT_SUBSCRIPTION, self._on_rate_subscription)
        self._ecg_data = _make_characteristic(UUID(pmd.DATA), Characteristic.Properties.NOTIFY)
        self._control_point = _make_control_point(self._on_request)
        device.add_services(self._make_services())
        device.advertising_data = _encode_advertising_data(device.name)

    async def run(self) -> NoReturn:
        """Advertise and serve connections until cancelled.

        Raises:
            RadioError: the radio was lost.
        """
        self._device.on(Device.EVENT_FLUSH, self._radio_lost.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._device.on(Device.EVENT_CONNECTION, lambda connection: self._on_connection(connection, tasks))
                tasks.create_task(self._advertise())
                tasks.create_task(self._send_heart_rates())
                tasks.create_task(self._watch_radio())
        except* TransportLostError:
            log.debug("radio lost")
        raise RadioError("the strap lost its radio")

    def _make_services(self) -> list[Service]:
        information = {0x2A29: "pulsegate", 0x2A24: "Virtual H10", 0x2A25: self._device.name.split()[-1], 0x2A26: "1.0"}
        return [
            Service(UUID.from_16_bits(0x180D), [self._heart_rate, _make_readable(0x2A38, bytes((_LOCATION_CHEST,)))]),
            Service(UUID(pmd.SERVICE), [self._control_point, self._ecg_data]),
            Service(UUID.from_16_bits(0x180F), [_make_readable(0x2A19, bytes((_BATTERY_PERCENT,)), notify=True)]),
            Service(UUID.from_16_bits(0x180A), [_make_readable(number, text.encode()) for number, text in information.items()]),
        ]

    async def _watch_radio(self) -> NoReturn:
        await self._radio_lost.wait()
        raise TransportLostError("the device was flushed")

    async def _advertise(self) -> NoReturn:
        """Advertise, and again after each disconnection: a connection stops a controller's advertising."""
        while True:
            await self._device.start_advertising()
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # Bumble swallows a cancellation while it waits for its controller
            self._on_event({"event": "advertising"})
            self._disconnected.clear()
            await self._disconnected.wait()

    def _on_connection(self, connection: Connection, tasks: asyncio.TaskGroup) -> None:
        self._connections[connection] = asyncio.Queue(_MAX_PENDING_REQUESTS)
        serving = tasks.create_task(self._serve(connection))
        self._on_event({"event": "connected"})

        def on_disconnection(_reason: int) -> None:
            serving.cancel()
            self._connections.pop(connection, None)
            self._on_event({"event": "disconnected"})
            self._disconnected.set()

        connection.on(Connection.EVENT_DISCONNECTION, on_disconnection)

    async def _serve(self, connection: Connection) -> None:
        """Answer control point requests in order, and run the ECG stream that they start and stop."""
        requests = self._connections[connection]
        stream: asyncio.Task[NoReturn] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                response = pmd.handle_request(await requests.get(), streaming=stream is not None)
                if response.streaming and stream is None:
                    stream = tasks.create_task(self._stream(connection))
                elif not response.streaming and stream is not None:
                    stream.cancel()
                    stream = None
                try:
                    await self._device.indicate_subscriber(connection, self._control_point, response.indication)
                except TimeoutError:
                    log.warning("the hub does not confirm indications: disconnecting")
                    await connection.disconnect()

    def _on_request(self, connection: Connection, request: bytes) -> None:
        """Queue a write to the control point, which requires an encrypted link. The response follows as an indication."""
        if not self._is_subscribed(connection, self._control_point):
            raise att.ATT_Error(att.ErrorCode(_CCCD_IMPROPERLY_CONFIGURED), self._control_point.handle)
        try:
            self._connections[connection].put_nowait(bytes(request))
        except asyncio.QueueFull:
            raise att.ATT_Error(att.ErrorCode(_PROCEDURE_IN_PROGRESS), self._control_point.handle) from None

    def _on_rate_subscription(self, _connection: Connection, notify: bool, _indicate: bool) -> None:
        if notify:
            self._playback.start(_now_s())

    async def _stream(self, connection: Connection) -> NoReturn:
        """Send each frame at the time at which its last sample is measured."""
        start_ns = self._playback.start(_now_s())
        self._on_event({"event": "streaming", "script_start_us": (start_ns + pmd.EPOCH_UNIX_NS) // 1000})
        first = self._playback.next_sample(_now_s())
        while True:
            count = pmd.samples_per_frame(connection.att_mtu)
            await _sleep_until(self._playback.sample_time_s(first + count - 1))
            if self._is_subscribed(connection, self._ecg_data):
                frame = self._playback.take_frame(first, count)
                # Before it is sent: what the agent has received is never more than what was reported.
                self._on_event({"event": "frames", "sent_samples": self._playback.sent_samples})
                await self._device.notify_subscriber(connection, self._ecg_data, frame)
            first += count

    async def _send_heart_rates(self) -> NoReturn:
        """Send a heart rate with the RR intervals since the last one, every second."""
        next_s, sent_until_s = _now_s(), 0.0
        recent: deque[float] = deque(maxlen=_RATE_INTERVALS)
        while True:
            next_s += 1.0
            await _sleep_until(next_s)
            elapsed_s = self._playback.elapsed_s(next_s)
            intervals = self._playback.ecg.rr_intervals(sent_until_s, elapsed_s)
            sent_until_s = max(sent_until_s, elapsed_s)
            recent.extend(intervals)
            if recent:
                await self._notify_rate(encode_heart_rate(tuple(recent), intervals))

    async def _notify_rate(self, value: bytes) -> None:
        for connection in tuple(self._connections):
            await self._device.notify_subscriber(connection, self._heart_rate, value)

    def _is_subscribed(self, connection: Connection, characteristic: Characteristic[bytes]) -> bool:
        return bool(self._device.gatt_server.read_cccd(connection, characteristic) != bytes(2))


def encode_heart_rate(recent_s: tuple[float, ...], intervals_s: tuple[float, ...]) -> bytes:
    """Encode a Heart Rate Measurement (0x2A37): the mean rate over `recent_s`, and the new RR intervals, oldest first."""
    rate = min(255, round(60 * len(recent_s) / sum(recent_s)))
    ticks = [min(0xFFFF, round(interval * 1024)) for interval in intervals_s[-_MAX_RR_INTERVALS:]]
    flags = _FLAGS_CONTACT_AND_RR if ticks else _FLAGS_CONTACT_AND_RR & ~0x10
    return struct.pack(f"<BB{len(ticks)}H", flags, rate, *ticks)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _sleep_until(loop_s: float) -> None:
    await asyncio.sleep(loop_s - _now_s())


def _make_characteristic(uuid: UUID, properties: Characteristic.Properties) -> Characteristic[bytes]:
    return Characteristic(uuid, properties, Characteristic.Permissions(0), b"")


def _make_readable(number: int, value: bytes, *, notify: bool = False) -> Characteristic[bytes]:
    properties = Characteristic.Properties.READ
    if notify:
        properties |= Characteristic.Properties.NOTIFY
    return Characteristic(UUID.from_16_bits(number), properties, Characteristic.READABLE, value)


def _make_control_point(on_request: Callable[[Connection, bytes], None]) -> Characteristic[bytes]:
    """Reads and writes require an encrypted link, so a hub must bond before it can start the ECG."""
    properties = Characteristic.Properties.READ | Characteristic.Properties.WRITE | Characteristic.Properties.INDICATE
    permissions = (
        Characteristic.READABLE
        | Characteristic.WRITEABLE
        | Characteristic.READ_REQUIRES_ENCRYPTION
        | Characteristic.WRITE_REQUIRES_ENCRYPTION
    )
    value = CharacteristicValue(read=lambda _connection: pmd.FEATURES, write=on_request)
    return Characteristic(UUID(pmd.CONTROL_POINT), properties, permissions, value)


def _encode_advertising_data(name: str) -> bytes:
    general_discoverable_le_only = 0x06
    return bytes(
        AdvertisingData(
            [
                (AdvertisingData.Type.FLAGS, bytes((general_discoverable_le_only,))),
                (AdvertisingData.Type.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, struct.pack("<H", 0x180D)),
                (AdvertisingData.Type.COMPLETE_LOCAL_NAME, name.encode()),
            ]
        )
    )


async def run_strap(socket: Path, ecg: RepeatingEcg, journal: Path, on_event: OnEvent) -> NoReturn:
    """Run the strap on the virtual radio at `socket` until cancelled. Its bonds are stored in a file beside the journal.

    Raises:
        RadioError: there was no virtual radio for ten seconds.
    """
    with Journal(journal, run=secrets.token_hex(4)) as entries:
        playback = Playback(ecg, SensorClock.set_to(time.time_ns(), _now_s()), entries)
        deadline_s = _now_s() + _RADIO_TIMEOUT_S
        while True:
            try:
                async with open_device(socket, ADDRESS, NAME, journal.with_suffix(".bonds.json")) as device:
                    deadline_s = float("inf")
                    await Strap(device, playback, on_event).run()
            except RadioError:
                deadline_s = min(deadline_s, _now_s() + _RADIO_TIMEOUT_S)
                if _now_s() >= deadline_s:
                    raise
            await asyncio.sleep(_RADIO_RETRY_S)


def main(arguments: Sequence[str]) -> int:
    """Run the strap as a process. Return 0 after a stop request, or 1 after an error, which is printed to standard error."""
    options = _parser().parse_args(arguments)
    try:
        ecg = ecg_from_script(load_script(options.script)) if options.record is None else ecg_from_file(options.record)
        asyncio.run(
            _run_until_stopped(run_strap(options.socket, ecg, options.journal, _print_event), watch_stdin=options.watch_stdin)
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
    return ecg_from_recording(mv, recording.rate_hz, [beat.t_s for beat in beats])


async def _run_until_stopped(coroutine: Coroutine[Any, Any, NoReturn], *, watch_stdin: bool) -> None:
    """Run until SIGINT or SIGTERM, or with `watch_stdin` until standard input ends because the parent process is gone."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(coroutine)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with watching_stdin(task.cancel) if watch_stdin else nullcontext():
        try:
            await task
        except asyncio.CancelledError:
            log.debug("stopped on request")


def _print_event(event: Mapping[str, Any]) -> None:
    """Print one line of JSON. The strap keeps running when the reader is gone."""
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
