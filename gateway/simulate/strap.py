"""A virtual chest strap: advertises, bonds, and sends heart rate and ECG as a Polar H10 does, from a heart that plays a script.

The heart begins to beat (script time 0) when it is first listened to: at the first subscription to the heart rate or the first
start of the ECG since the process began. From then on it goes on through disconnections; what nobody listens to is lost, as in
life. Everything is paced by the event loop's clock, so that the strap also runs on virtual time.
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
from gateway.radio.air import open_device
from gateway.radio.radio import RadioError
from gateway.simulate import pmd
from gateway.simulate.heart import Heart, from_recording, from_script
from gateway.simulate.journal import Journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script, script_names
from models.signal.chain import EcgChain

log = logging.getLogger(__name__)

NAME: Final = "Virtual H10 0A1B2C3D"
ADDRESS: Final = "C0:DE:0A:1B:2C:3D"
"""A static random address: its two highest bits are set (Core Specification 5.4, volume 6, part B, 1.3.2.1)."""

Report = Callable[[Mapping[str, Any]], None]
"""Takes one event, ready for JSON."""

_RATE_INTERVALS: Final = 5
"""The heart rate is that of the last so many RR intervals."""
_MOST_INTERVALS: Final = 9
"""RR intervals that fit in a heart rate measurement at the least MTU (Heart Rate Service 1.0, 3.1.1.4)."""
_CONTACT_AND_RR: Final = 0x16
"""Flags: rate in one byte, contact supported and detected, RR intervals follow."""
_CHEST: Final = 1
_BATTERY_PERCENT: Final = 87
_WAITING_REQUESTS: Final = 4
_CCCD_IMPROPERLY_CONFIGURED: Final = 0xFD
_PROCEDURE_IN_PROGRESS: Final = 0xFE

_RADIO_WAIT_S: Final = 10.0
"""The radio may start after the strap, or again; what is not there by then does not come."""
_RADIO_RETRY_S: Final = 0.2


class Strap:
    """The strap on one Bumble device. One connection at a time, as many one after the other as there come."""

    def __init__(self, device: Device, playback: Playback, report: Report) -> None:
        """`device` is powered, and pairs by itself (`gateway.radio.virtual.host_device`); `report` is told what happens."""
        self._device = device
        self._playback = playback
        self._report = report
        self._connections: dict[Connection, asyncio.Queue[bytes]] = {}
        self._free = asyncio.Event()
        self._radio_lost = asyncio.Event()
        self._rate = _characteristic(UUID.from_16_bits(0x2A37), Characteristic.Properties.NOTIFY)
        self._rate.on(Characteristic.EVENT_SUBSCRIPTION, self._on_rate_subscription)
        self._data = _characteristic(UUID(pmd.DATA), Characteristic.Properties.NOTIFY)
        self._control = _control_point(self._on_request)
        device.add_services(self._services())
        device.advertising_data = _advertising_data(device.name)

    async def run(self) -> NoReturn:
        """Serve until cancelled.

        Raises:
            RadioError: the radio under the strap went away.
        """
        self._device.on(Device.EVENT_FLUSH, self._radio_lost.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._device.on(Device.EVENT_CONNECTION, lambda connection: self._accept(connection, tasks))
                tasks.create_task(self._advertise())
                tasks.create_task(self._every_second())
                tasks.create_task(self._watch_radio())
        except* TransportLostError:
            log.debug("radio lost")
        raise RadioError("the strap's radio is gone")

    def _services(self) -> list[Service]:
        information = {0x2A29: "pulsegate", 0x2A24: "Virtual H10", 0x2A25: self._device.name.split()[-1], 0x2A26: "1.0"}
        return [
            Service(UUID.from_16_bits(0x180D), [self._rate, _readable(0x2A38, bytes((_CHEST,)))]),
            Service(UUID(pmd.SERVICE), [self._control, self._data]),
            Service(UUID.from_16_bits(0x180F), [_readable(0x2A19, bytes((_BATTERY_PERCENT,)), notify=True)]),
            Service(UUID.from_16_bits(0x180A), [_readable(number, text.encode()) for number, text in information.items()]),
        ]

    async def _watch_radio(self) -> NoReturn:
        await self._radio_lost.wait()
        raise TransportLostError("the device was flushed")

    async def _advertise(self) -> NoReturn:
        """The controller stops advertising when someone connects: begin again when they are gone."""
        while True:
            await self._device.start_advertising()
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # Bumble takes a cancellation that comes while it waits for its controller
            self._report({"event": "advertising"})
            self._free.clear()
            await self._free.wait()

    def _accept(self, connection: Connection, tasks: asyncio.TaskGroup) -> None:
        self._connections[connection] = asyncio.Queue(_WAITING_REQUESTS)
        serving = tasks.create_task(self._serve(connection))
        self._report({"event": "connected"})

        def gone(_reason: int) -> None:
            serving.cancel()
            self._connections.pop(connection, None)
            self._report({"event": "disconnected"})
            self._free.set()

        connection.on(Connection.EVENT_DISCONNECTION, gone)

    async def _serve(self, connection: Connection) -> None:
        """Answer the control point's requests in turn, with the ECG stream that they start and stop."""
        requests = self._connections[connection]
        stream: asyncio.Task[NoReturn] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                answer = pmd.answer(await requests.get(), streaming=stream is not None)
                if answer.streaming and stream is None:
                    stream = tasks.create_task(self._stream(connection))
                elif not answer.streaming and stream is not None:
                    stream.cancel()
                    stream = None
                try:
                    await self._device.indicate_subscriber(connection, self._control, answer.indication)
                except TimeoutError:
                    log.warning("the hub does not confirm indications: disconnecting")
                    await connection.disconnect()

    def _on_request(self, connection: Connection, request: bytes) -> None:
        """A write to the control point, which only an encrypted link may do; the answer follows as an indication."""
        if not self._subscribed(connection, self._control):
            raise att.ATT_Error(att.ErrorCode(_CCCD_IMPROPERLY_CONFIGURED), self._control.handle)
        try:
            self._connections[connection].put_nowait(bytes(request))
        except asyncio.QueueFull:
            raise att.ATT_Error(att.ErrorCode(_PROCEDURE_IN_PROGRESS), self._control.handle) from None

    def _on_rate_subscription(self, _connection: Connection, notify: bool, _indicate: bool) -> None:
        if notify:
            self._playback.begin(_now_s())

    async def _stream(self, connection: Connection) -> NoReturn:
        """Send each frame when its last sample has been measured."""
        start_ns = self._playback.begin(_now_s())
        self._report({"event": "streaming", "script_start_us": (start_ns + pmd.EPOCH_UNIX_NS) // 1000})
        first = self._playback.next_sample(_now_s())
        while True:
            count = pmd.frame_samples(connection.att_mtu)
            await _until(self._playback.measured_s(first + count - 1))
            if self._subscribed(connection, self._data):
                await self._device.notify_subscriber(connection, self._data, self._playback.frame(first, count))
            first += count

    async def _every_second(self) -> NoReturn:
        """Heart rate with the RR intervals that ended since the last measurement, and a report of progress."""
        next_s, told_s, reported = _now_s(), 0.0, 0
        recent: deque[float] = deque(maxlen=_RATE_INTERVALS)
        while True:
            next_s += 1.0
            await _until(next_s)
            playing_s = self._playback.seconds(next_s)
            intervals = self._playback.heart.intervals(told_s, playing_s)
            told_s = max(told_s, playing_s)
            recent.extend(intervals)
            if recent:
                await self._notify_rate(measurement(tuple(recent), intervals))
            if self._playback.sent_samples != reported:
                reported = self._playback.sent_samples
                self._report({"event": "frames", "sent_samples": reported})

    async def _notify_rate(self, value: bytes) -> None:
        for connection in tuple(self._connections):
            await self._device.notify_subscriber(connection, self._rate, value)

    def _subscribed(self, connection: Connection, characteristic: Characteristic[bytes]) -> bool:
        return bool(self._device.gatt_server.read_cccd(connection, characteristic) != bytes(2))


def measurement(recent_s: tuple[float, ...], intervals_s: tuple[float, ...]) -> bytes:
    """A Heart Rate Measurement (0x2A37): the mean rate of the recent RR intervals, and the new ones, oldest first."""
    rate = min(255, round(60 * len(recent_s) / sum(recent_s)))
    ticks = [min(0xFFFF, round(interval * 1024)) for interval in intervals_s[-_MOST_INTERVALS:]]
    flags = _CONTACT_AND_RR if ticks else _CONTACT_AND_RR & ~0x10
    return struct.pack(f"<BB{len(ticks)}H", flags, rate, *ticks)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _until(loop_s: float) -> None:
    """Sleep to a time of the loop's clock."""
    await asyncio.sleep(loop_s - _now_s())


def _characteristic(uuid: UUID, properties: Characteristic.Properties) -> Characteristic[bytes]:
    return Characteristic(uuid, properties, Characteristic.Permissions(0), b"")


def _readable(number: int, value: bytes, *, notify: bool = False) -> Characteristic[bytes]:
    properties = Characteristic.Properties.READ
    if notify:
        properties |= Characteristic.Properties.NOTIFY
    return Characteristic(UUID.from_16_bits(number), properties, Characteristic.READABLE, value)


def _control_point(on_request: Callable[[Connection, bytes], None]) -> Characteristic[bytes]:
    """Reads and writes need an encrypted link, so that a hub must bond before it gets an ECG."""
    properties = Characteristic.Properties.READ | Characteristic.Properties.WRITE | Characteristic.Properties.INDICATE
    permissions = (
        Characteristic.READABLE
        | Characteristic.WRITEABLE
        | Characteristic.READ_REQUIRES_ENCRYPTION
        | Characteristic.WRITE_REQUIRES_ENCRYPTION
    )
    value = CharacteristicValue(read=lambda _connection: pmd.FEATURES, write=on_request)
    return Characteristic(UUID(pmd.CONTROL_POINT), properties, permissions, value)


def _advertising_data(name: str) -> bytes:
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


async def run_strap(socket: Path, heart: Heart, journal: Path, report: Report) -> NoReturn:
    """The strap on the virtual radio at `socket`, until cancelled. Its bonds lie beside the journal and outlive it.

    Raises:
        RadioError: there has been no radio for ten seconds.
    """
    with Journal(journal, run=secrets.token_hex(4)) as entries:
        playback = Playback(heart, SensorClock.set_to(time.time_ns(), _now_s()), entries)
        deadline_s = _now_s() + _RADIO_WAIT_S
        while True:
            try:
                async with open_device(socket, ADDRESS, NAME, journal.with_suffix(".bonds.json")) as device:
                    deadline_s = float("inf")
                    await Strap(device, playback, report).run()
            except RadioError:
                deadline_s = min(deadline_s, _now_s() + _RADIO_WAIT_S)
                if _now_s() >= deadline_s:
                    raise
            await asyncio.sleep(_RADIO_RETRY_S)


def main(arguments: Sequence[str]) -> int:
    """The process. Exit status 0: it was told to end; 1: it could not do its work, for the reason on standard error."""
    options = _parser().parse_args(arguments)
    try:
        heart = from_script(load_script(options.script)) if options.record is None else heart_of(options.record)
        asyncio.run(_until_told(run_strap(options.socket, heart, options.journal, _print), watch_stdin=options.watch_stdin))
    except (RadioError, RecordingError, OSError) as error:
        sys.stderr.write(f"strap: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway.simulate.strap", description="a virtual chest strap on a virtual radio")
    parser.add_argument("--socket", type=Path, required=True, help="the virtual radio's socket")
    parser.add_argument("--journal", type=Path, required=True, help="file to append what was sent to")
    played = parser.add_mutually_exclusive_group()
    played.add_argument("--script", default="demo", choices=script_names(), help="what the heart plays (default: %(default)s)")
    played.add_argument("--record", type=Path, help="play a recorded ECG instead: WFDB header or CSV file")
    parser.add_argument("--watch-stdin", action="store_true", help="end when standard input (a pipe) ends")
    return parser


def heart_of(path: Path) -> Heart:
    """The heart that plays a recording, with the beats that are detected in it: they make its RR intervals.

    A strap always sends: where the recording has no valid sample, it plays 0 mV.

    Raises:
        RecordingError: it cannot be read, or has no valid sample.
    """
    recording = open_recording(path)
    if not np.isfinite(recording.mv).any():
        raise RecordingError(f"{path}: no valid sample in it, so nothing to play; choose another recording")
    mv = np.nan_to_num(recording.mv)
    chain = EcgChain(recording.rate_hz)
    seconds = np.array_split(mv, max(1, round(mv.size / recording.rate_hz)))
    beats = [beat for second in seconds for beat in chain.push(second)] + chain.finish()
    return from_recording(mv, recording.rate_hz, [beat.t_s for beat in beats])


async def _until_told(work: Coroutine[Any, Any, NoReturn], *, watch_stdin: bool) -> None:
    """Run until SIGINT, SIGTERM or, where it is watched, the end of standard input: the parent process is gone."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with watching_stdin(task.cancel) if watch_stdin else nullcontext():
        try:
            await task
        except asyncio.CancelledError:
            log.debug("told to end")


def _print(event: Mapping[str, Any]) -> None:
    """One line of JSON; a reader that has gone away is no reason to stop."""
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
