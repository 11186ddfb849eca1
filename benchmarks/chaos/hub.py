"""A hub of the chaos run, in a process of its own: `python -m benchmarks.chaos.hub SETTINGS.json`.

It has the agent's buffer, uplink, keys and TLS identity, and no sensors: every `period_s` it stores records with a number, and
the number before. They count ticks of the machine's monotonic clock, so they go on while the hub is dead; after a restart a gap
record says which are missing. What was stored is noted in a journal. The wall clock of the buffer can be set from outside.

Standard input carries commands, one a line: `pause`, `resume`, and `status`, which is answered by a line of JSON. Its end ends
the hub.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np

import sync.mqtt
import sync.mqtt_backoff
from benchmarks.chaos.recorded_disk import WriteLog, record_writes
from config.endpoint import Endpoint
from gateway.startup import load_device_key
from sync.errors import TransientError
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.record_codec import encode_records
from sync.records import AlertRecord, GapRecord, Record, Times, VitalRecord, WaveformRecord
from sync.registration import Registration
from sync.uplink import Uplink, UplinkCallbacks
from sync.wire import UPLINK_LANES, Lane, ack_topic, command_topic, receipt_topic

TICK_S: Final = 0.25
"""The numbers count these."""
NS_PER_TICK: Final = 1_000_000_000
"""The sensor's clock counts a second for each tick."""
LATE: Final = 1.6
"""A number that comes after so many periods follows a gap; two periods would be one that was not stored."""
ALERT_EVERY: Final = 10
"""Every tenth number comes with an alert."""
SAMPLES: Final = 64
TIDY_S: Final = 1.0
"""A round over all lanes is over before a restored store is back."""
VITAL: Final = "heart_rate"
WAVE: Final = "ecg"


@dataclass(frozen=True, slots=True)
class HubSettings:
    """How a hub runs. `writer` is the name of its sensor: that of a copied hub has another one, and a journal of its own.

    `shortest_pause_s` and `longest_pause_s` are those between two connections.
    """

    hub: str
    subject: str
    folder: str
    journal: str
    writer: str
    identity: str
    host: str
    port: int
    period_s: float
    longest_pause_s: float
    recording: str | None = None

    @property
    def offset_file(self) -> Path:
        """Holds the error of the wall clock in seconds."""
        return Path(f"{self.journal}.offset")

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({name: getattr(self, name) for name in self.__slots__}), encoding="utf-8")


def read_settings(path: Path) -> HubSettings:
    return HubSettings(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(slots=True)
class ChaosHub:
    """The buffer, what was stored last, and the counts since the start."""

    settings: HubSettings
    call: Callable[..., Any]
    outbox: Outbox
    keys: HubKeys
    registration: Registration
    writes: WriteLog | None
    is_paused: bool = False
    failed: int = 0
    last_failure: str = ""
    _last: tuple[int, int] | None = None
    _uplink: Any = field(default=None)
    _transport: Any = field(default=None)

    async def run(self) -> None:
        """Run until standard input ends."""
        settings = self.settings
        topics = [topic(settings.hub) for topic in (ack_topic, receipt_topic, command_topic)]
        broker = Endpoint(settings.host, settings.port, Path(settings.identity), "DE")
        self._transport = sync.mqtt.MqttClient(broker, client_id=settings.hub, subscriptions=topics)
        self._uplink = Uplink(
            self.outbox,
            self._transport,
            hub=settings.hub,
            keys=self.keys,
            registration=self.registration,
            call=self.call,
            callbacks=UplinkCallbacks(),
        )
        stored = await self.call(self.outbox.load_state, settings.writer)
        self._last = None if stored is None else tuple(json.loads(stored))
        async with asyncio.TaskGroup() as tasks:
            work = (self._transport.run(), self._uplink.run(), self._produce(), self._tidy())
            running = [tasks.create_task(one) for one in work]
            await self._obey()
            for one in running:
                one.cancel()

    async def _produce(self) -> NoReturn:
        while True:
            await asyncio.sleep(self.settings.period_s - time.monotonic() % self.settings.period_s)
            if self.is_paused:
                continue
            try:
                await self.call(self._store)
            except TransientError as error:
                self.failed += 1
                self.last_failure = str(error)
            self._uplink.wake()

    def _store(self) -> None:
        """Store the present number, then note it in the journal. If this fails, a gap will say that the number is missing."""
        number, at_us = int(time.monotonic() // TICK_S), wall_us(self.settings)
        if self._last is not None and number <= self._last[0]:
            return
        value = (number, at_us)
        longest = max(1, int(LATE * self.settings.period_s / TICK_S))
        blocks = list(make_blocks(self.settings.writer, number, at_us, self._last, longest))
        self.outbox.put_many(blocks, {self.settings.writer: json.dumps(value).encode()})
        append_line(Path(self.settings.journal), number)
        if self.writes is not None:
            self.writes.mark(number)
        self._last = value

    async def _tidy(self) -> NoReturn:
        while True:
            await asyncio.sleep(TIDY_S)
            with contextlib.suppress(TransientError):
                await self.call(self.outbox.tidy)

    async def _obey(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while command := (await reader.readline()).decode().strip():
            if command == "status":
                print(json.dumps(await self._describe()), flush=True)
            else:
                self.is_paused = command == "pause"

    async def _describe(self) -> dict[str, Any]:
        found, view = await self.call(self.outbox.statistics), await self.call(self.outbox.clinic_view)
        uplink = self._uplink.statistics
        return {
            "pending": sum(found.pending[lane] for lane in UPLINK_LANES),
            "unopened": found.unopened,
            "stored": found.stored,
            "aside": found.aside,
            "refused": found.refused,
            "dropped": found.dropped,
            "epoch": view.epoch,
            "heads": {head.lane: [head.seq, head.mark] for head in view.heads},
            "sent": uplink.blocks_sent,
            "resent": uplink.resent,
            "problem": uplink.problem,
            "failed": self.failed,
            "last_failure": self.last_failure,
        }


def make_blocks(
    writer: str, number: int, at_us: int, last: tuple[int, int] | None, longest: int
) -> Iterator[tuple[Lane, bytes]]:
    """Yield the blocks of a number: a vital sign, a waveform, an alert; and a gap if the last was more than `longest` ago.

    Otherwise the vital sign has the last number as a flag: between the two, nothing was to be stored.
    """
    times = Times(at_us, at_us, number * NS_PER_TICK, number * NS_PER_TICK)
    vital: list[Record] = []
    is_late = last is None or number > last[0] + longest
    flags = () if last is None or is_late else (str(last[0]),)
    if last is not None and is_late:
        missing = number - last[0] - 1
        sensor_ns = (last[0] * NS_PER_TICK, number * NS_PER_TICK)
        vital.append(GapRecord(writer, VITAL, last[1], at_us, missing, "restart", *sensor_ns))
    yield "vital", encode_records([*vital, VitalRecord(writer, VITAL, times, float(number), flags)])
    samples = np.arange(number, number + SAMPLES, dtype=np.int32)
    yield "wave", encode_records([WaveformRecord(writer, WAVE, times, float(SAMPLES), 0.001, samples)])
    if number % ALERT_EVERY == 0:
        alert = AlertRecord(f"{writer}-{number}", writer, "pause", "low", at_us, at_us, at_us, "chaos", ("pause",))
        yield "alert", encode_records([alert])


def wall_us(settings: HubSettings) -> int:
    """The hub's wall clock in microseconds, which is as wrong as its offset file says."""
    offset_s = 0
    with contextlib.suppress(OSError, ValueError):
        offset_s = int(settings.offset_file.read_text())
    return time.time_ns() // 1000 + offset_s * 1_000_000


def append_line(path: Path, number: int) -> None:
    """Append a number to a journal, which is on the disk on return."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, b"%d\n" % number)
        os.fsync(fd)
    finally:
        os.close(fd)


def read_journal(path: Path) -> list[int]:
    """Return the numbers of a journal. A kill may have cut the last line."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [int(line) for line in lines[:-1]]


def main() -> None:
    """Run the hub of a settings file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = read_settings(Path(sys.argv[1]))
    shortest_s, _ = sync.mqtt_backoff.BACKOFF_S
    vars(sync.mqtt_backoff)["BACKOFF_S"] = (shortest_s, settings.longest_pause_s)
    folder = Path(settings.folder)
    writes = None if settings.recording is None else record_writes(Path(settings.recording))
    registration = Registration.load(folder / "registration.toml", settings.hub)
    keys = HubKeys(HubKey.load_or_create(folder / "hub.key"), load_device_key(folder))
    with ThreadPoolExecutor(1) as executor:

        async def call(function: Callable[..., Any], *arguments: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(executor, lambda: function(*arguments))

        outbox = executor.submit(open_outbox, settings, keys, registration).result()
        try:
            asyncio.run(ChaosHub(settings, call, outbox, keys, registration, writes).run())
        finally:
            executor.submit(outbox.close).result()


def open_outbox(settings: HubSettings, keys: HubKeys, registration: Registration) -> Outbox:
    return Outbox.open(
        Path(settings.folder) / "buffer.db",
        hub=settings.hub,
        subject=settings.subject,
        keys=keys,
        registration=registration,
        clock=lambda: wall_us(settings) // 1_000_000,
    )


if __name__ == "__main__":
    main()
