"""Megabytes a day that the buffer writes for one continuous ECG strap: `python -m benchmarks.disk_writes FOLDER`.

Two virtual hours of a strap in sinus rhythm pass the drivers, the pipeline, the recorder and a buffer in the folder. A clinic
acknowledges each lane at once, each in a message of its own. Counted are SQLite's own page writes: each frame that a
transaction appends to the WAL (24 + 4096 bytes), and each page that a checkpoint copies into the database (4096 bytes). Each
page is attributed to the table or index that owns it, by `dbstat`. `file_system` is the process's `write_bytes`, which rounds
the WAL's unaligned frames to whole pages; it needs a folder on a disk. The budget is 125 MB a day.
"""

import argparse
import asyncio
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from config.limits import DEFAULT_LIMITS
from drivers.registry import load_drivers
from gateway.buffer_alert import BufferAlert
from gateway.clock import SystemClock
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.recorder import COMMIT_INTERVAL_S, LIVE_INTERVAL_S, Recorder
from gateway.sensor_runner import state_key
from gateway.simulate import pmd
from gateway.simulate.repeating_ecg import RepeatingEcg, ecg_from_script
from gateway.simulate.script import Script, Segment
from gateway.timeline import Arrival
from gateway.waveform_analysis import Output
from sync.keys import HubKey
from sync.outbox import Outbox
from sync.seal import ClinicKeyPair
from sync.wire import Lane, Mark

BUDGET_MB: Final = 125.0
INTERVALS_S: Final = (LIVE_INTERVAL_S, COMMIT_INTERVAL_S)
START_US: Final = 1_800_000_000_000_000
FRAME_SAMPLES: Final = 73
"""Samples in one notification of a chest strap."""
HEART_RATE: Final = "00002a37-0000-1000-8000-00805f9b34fb"
SINUS: Final = Script("sinus", 1, (Segment("sinus", 600.0, 66.0),))
PAGE_BYTES: Final = 4096
WAL_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
SECONDS_PER_DAY: Final = 86_400
T = TypeVar("T")


@dataclass(slots=True)
class PageWrites:
    """Counts the pages that SQLite writes to the WAL of a database and copies from it into the database, by their owner."""

    database: Path
    connection: sqlite3.Connection
    wal: Counter[str] = field(default_factory=Counter)
    checkpointed: Counter[str] = field(default_factory=Counter)
    checkpoints: int = 0
    _salts: bytes = b""
    _offset: int = WAL_HEADER_BYTES
    _owners: dict[int, str] = field(default_factory=dict)
    _in_wal: dict[int, str] = field(default_factory=dict)

    def count_transaction(self) -> None:
        """Counts what was appended since the last call. Called after every transaction, so no frame is overwritten before."""
        owners = dict(self.connection.execute("SELECT pageno, name FROM dbstat").fetchall())
        for page in self._new_frames():
            owner = owners.get(page) or self._owners.get(page, "free list")
            self.wal[owner] += 1
            self._in_wal[page] = owner
        self._owners = owners

    def _new_frames(self) -> Iterator[int]:
        with self.database.with_name(self.database.name + "-wal").open("rb") as file:
            salts = file.read(WAL_HEADER_BYTES)[16:24]
            if salts != self._salts:  # the WAL begins again: a checkpoint has copied each page of the former one
                self.checkpoints += bool(self._salts)
                self.checkpointed.update(self._in_wal.values())
                self._salts, self._offset, self._in_wal = salts, WAL_HEADER_BYTES, {}
            file.seek(self._offset)
            while (header := file.read(FRAME_HEADER_BYTES))[8:16] == salts:
                yield int.from_bytes(header[:4], "big")
                self._offset = file.seek(PAGE_BYTES, 1)

    def clear(self) -> None:
        self.wal.clear()
        self.checkpointed.clear()
        self.checkpoints = 0


def strap_seconds(seconds: int) -> Iterator[Callable[[Pipeline], Output]]:
    """For each second, a function that feeds its notifications into a pipeline."""
    registry, ecg, frame = load_drivers(), ecg_from_script(SINUS), 0

    for second in range(1, seconds + 1):
        notifications = [(HEART_RATE, _heart_rate(ecg, second), float(second))]
        while (taken_s := ((frame + 1) * FRAME_SAMPLES - 1) / pmd.RATE_HZ) <= second:
            samples = ecg.samples(frame * FRAME_SAMPLES, FRAME_SAMPLES)
            notifications.append((pmd.DATA, pmd.encode_frame(10**15 + round(taken_s * 1e9), samples), taken_s + 0.02))
            frame += 1

        def feed(pipeline: Pipeline, arrived: list[tuple[str, bytes, float]] = notifications) -> Output:
            outputs = [
                pipeline.feed(registry.decode(characteristic, payload), Arrival(START_US + round(at * 1e6), round(at * 1e9)))
                for characteristic, payload, at in arrived
            ]
            return Output(tuple(record for output in outputs for record in output.records))

        yield feed


def _heart_rate(ecg: RepeatingEcg, second: int) -> bytes:
    ticks = [round(interval * 1024) for interval in ecg.rr_intervals(second - 1, second)]
    return bytes((0x16, 66)) + np.array(ticks, "<u2").tobytes()


def measure(folder: Path, interval_s: float, seconds: int) -> dict[str, Any]:
    """Returns the megabytes a day with commits at this interval, in total and by what they are for."""
    outbox = _open_outbox(folder)
    with closing(outbox), closing(sqlite3.connect(folder / "buffer.db")) as reader:
        pages = PageWrites(folder / "buffer.db", reader)
        pages.count_transaction()
        pages.clear()  # without the migrations of the first start
        stored = _Stored(outbox, pages)
        written_before = _file_system_bytes()
        asyncio.run(_run(outbox, stored, interval_s, seconds))
        file_system = _file_system_bytes() - written_before
    scale = SECONDS_PER_DAY / seconds / 1e6
    wal = {name: count * (PAGE_BYTES + FRAME_HEADER_BYTES) * scale for name, count in pages.wal.items()}
    checkpointed = {name: count * PAGE_BYTES * scale for name, count in pages.checkpointed.items()}
    return {
        "interval_s": interval_s,
        "mb_a_day": round(sum(wal.values()) + sum(checkpointed.values()), 1),
        "file_system_mb_a_day": round(file_system * scale, 1),
        "sealed_mb_a_day": round(stored.sealed_bytes * scale, 1),
        "blocks_a_day": round(stored.blocks * SECONDS_PER_DAY / seconds),
        "records_a_second": round(stored.records / seconds, 2),
        "largest_block_bytes": stored.largest_block_bytes,
        "state_bytes": stored.state_bytes,
        "wal_mb_by_owner": _rounded(wal),
        "wal_mb_by_transaction": _rounded(
            {name: pages_ * (PAGE_BYTES + FRAME_HEADER_BYTES) * scale for name, pages_ in stored.frames.items()}
        ),
        "checkpoint_mb_by_owner": _rounded(checkpointed),
        "checkpoints_a_day": round(pages.checkpoints * SECONDS_PER_DAY / seconds),
    }


@dataclass(slots=True)
class _Stored:
    """Acknowledges what the recorder has stored, as the clinic does, and counts the page writes of each transaction."""

    outbox: Outbox
    pages: PageWrites
    blocks: int = 0
    records: int = 0
    sealed_bytes: int = 0
    largest_block_bytes: int = 0
    state_bytes: int = 0
    frames: Counter[str] = field(default_factory=Counter)
    _after: dict[Lane, tuple[int, int]] = field(default_factory=dict)

    def acknowledge(self) -> None:
        self._count("put")
        lanes: tuple[Lane, ...] = ("vital", "wave")
        for lane in lanes:
            blocks = self.outbox.pending(lane, self._after.get(lane, (0, 0)), 1 << 30)
            if blocks:
                self.blocks += len(blocks)
                sizes = [len(block.sealed) for block in blocks]
                self.sealed_bytes += sum(sizes)
                self.largest_block_bytes = max(self.largest_block_bytes, *sizes)
                last = blocks[-1].id
                self._after[lane] = (last.epoch, last.seq)
                self.outbox.acknowledge([Mark(lane, last.epoch, last.seq)], ())
                self._count("acknowledgement")

    def _count(self, transaction: str) -> None:
        before = self.pages.wal.total()
        self.pages.count_transaction()
        self.frames[transaction] += self.pages.wal.total() - before


async def _run(outbox: Outbox, stored: _Stored, interval_s: float, seconds: int) -> None:
    recorder = Recorder(outbox, _call_inline, stored.acknowledge, BufferAlert(SystemClock()))
    pipeline = Pipeline("strap", DEFAULT_LIMITS, LoadedModels())
    for second, feed in enumerate(strap_seconds(seconds), 1):
        output, state = feed(pipeline), pipeline.state()
        stored.records += len(output.records)
        stored.state_bytes = len(json.dumps(state))
        await recorder.add(output.records, {state_key("strap"): state})
        if second % interval_s == 0:
            await recorder.flush()
    assert not recorder.counters.failed_writes


async def _call_inline(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)


def _open_outbox(folder: Path) -> Outbox:
    folder.mkdir(parents=True)
    return Outbox.open(
        folder / "buffer.db",
        hub="hub-1",
        subject="subject-1",
        hub_key=HubKey.load_or_create(folder / "hub.key"),
        clinic=ClinicKeyPair.generate().public,
        clock=lambda: START_US // 1_000_000,
    )


def _file_system_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def _rounded(megabytes: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in sorted(megabytes.items(), key=lambda item: -item[1])}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.disk_writes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="new folder on a disk, not on a tmpfs")
    parser.add_argument("--hours", type=float, default=2.0, help="virtual hours (default: %(default)s)")
    arguments = parser.parse_args(argv)
    results = [
        measure(arguments.folder / f"{interval_s:g}s", interval_s, round(arguments.hours * 3600)) for interval_s in INTERVALS_S
    ]
    json.dump(results, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0 if results[-1]["mb_a_day"] <= BUDGET_MB else 1


if __name__ == "__main__":
    sys.exit(main())
