"""Megabytes a day that the buffer writes for one continuous ECG strap: `python -m benchmarks.disk_writes FOLDER`.

Two virtual hours of a strap in sinus rhythm pass the drivers, the pipeline, the recorder and a buffer in the folder. After each
commit the hub sends a message for each lane; a clinic answers each with a signed acknowledgement, and the vital signs also with
a receipt. The buffer keeps answered blocks for 20 minutes, not seven days, so that it deletes as many as it stores before the
count begins. It is tidied every 20 minutes: in a buffer of seven days a round takes as long.

Counted are SQLite's own page writes: each frame that a transaction appends to the WAL (24 bytes and a page), and each page that
a checkpoint copies into the database. Each page is attributed to the table or index that owns it, by `dbstat`. `file_system` is
the process's `write_bytes`: the kernel writes whole pages of 4 KiB, whatever SQLite's are. It needs a folder on a disk. The
budget is 125 MB a day.
"""

import argparse
import asyncio
import itertools
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
from gateway.simulate.heart import RepeatingEcg, from_script
from gateway.simulate.script import Script, Segment
from gateway.timeline import Arrival
from gateway.waveform_analysis import Output
from sync.chain import block_digest
from sync.in_flight import SentBlocks
from sync.incoming import receive_ack, receive_receipt
from sync.keys import HubKey, HubKeys
from sync.message_rows import Mark, join_consecutive
from sync.messages import Ack, Receipt, decode_envelope, encode_ack, encode_receipt
from sync.outbox import NEWEST, BufferLimits, Outbox
from sync.outbox.database import PAGE_BYTES
from sync.outgoing import MESSAGE_BLOCKS_LIMIT_BYTES, OutgoingMessage, Position, Section, Sender, prepare_message
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.signing import SigningKey, Use
from sync.wire import Lane

BUDGET_MB: Final = 125.0
INTERVALS_S: Final = (LIVE_INTERVAL_S, COMMIT_INTERVAL_S)
START_US: Final = 1_800_000_000_000_000
FRAME_SAMPLES: Final = 73
"""Samples in one notification of a chest strap."""
HEART_RATE: Final = "00002a37-0000-1000-8000-00805f9b34fb"
SINUS: Final = Script("sinus", 1, (Segment("sinus", 600.0, 66.0),))
RETENTION_S: Final = 1200
"""Of the measured buffer."""
ROUND_S: Final = 1200
"""121,000 blocks of seven days, read in steps of 512 every 5 s."""
WARM_UP_S: Final = RETENTION_S + ROUND_S
"""The count begins when the buffer has begun to delete."""
LANES: Final[tuple[Lane, ...]] = ("vital", "wave")
WAL_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
SECONDS_PER_DAY: Final = 86_400
STORE: Final = bytes(16)
FENCE: Final = 1
NOTHING_SENT: Final = SentBlocks(frozenset(), frozenset())
T = TypeVar("T")
Feed = Callable[[Pipeline], Output]


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


def strap_seconds(seconds: int) -> Iterator[Feed]:
    """For each second, a function that feeds its notifications into a pipeline."""
    registry, ecg, frame = load_drivers(), from_script(SINUS), 0

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


def measure(folder: Path, interval_s: float, seconds: int, *, warm_up_s: int = WARM_UP_S) -> dict[str, Any]:
    """Returns the megabytes a day with commits at this interval, in total and by what they are for."""
    folder.mkdir(parents=True)
    clinic = AnsweringClinic()
    outbox = clinic.open_outbox(folder)
    with closing(outbox), closing(sqlite3.connect(folder / "buffer.db")) as reader:
        run = _Run(outbox, clinic, PageWrites(folder / "buffer.db", reader))
        recorder = Recorder(outbox, _call_inline, run.send, BufferAlert(SystemClock()))
        feeds = enumerate(strap_seconds(warm_up_s + seconds), 1)
        asyncio.run(run.feed(recorder, itertools.islice(feeds, warm_up_s), interval_s))
        run.clear()
        written_before = _file_system_bytes()
        asyncio.run(run.feed(recorder, feeds, interval_s))
        file_system = _file_system_bytes() - written_before
    scale = SECONDS_PER_DAY / seconds / 1e6
    wal = {name: count * (PAGE_BYTES + FRAME_HEADER_BYTES) * scale for name, count in run.pages.wal.items()}
    checkpointed = {name: count * PAGE_BYTES * scale for name, count in run.pages.checkpointed.items()}
    return {
        "interval_s": interval_s,
        "mb_a_day": round(sum(wal.values()) + sum(checkpointed.values()), 1),
        "file_system_mb_a_day": round(file_system * scale, 1),
        "sealed_mb_a_day": round(run.sealed_bytes * scale, 1),
        "blocks_a_day": round(run.blocks * SECONDS_PER_DAY / seconds),
        "records_a_second": round(run.records / seconds, 2),
        "largest_block_bytes": run.largest_block_bytes,
        "state_bytes": run.state_bytes,
        "wal_mb_by_owner": _rounded(wal),
        "wal_mb_by_transaction": _rounded(
            {name: pages * (PAGE_BYTES + FRAME_HEADER_BYTES) * scale for name, pages in run.frames.items()}
        ),
        "transactions_a_day": {name: round(count * SECONDS_PER_DAY / seconds) for name, count in run.transactions.items()},
        "checkpoint_mb_by_owner": _rounded(checkpointed),
        "checkpoints_a_day": round(run.pages.checkpoints * SECONDS_PER_DAY / seconds),
    }


class AnsweringClinic:
    """Holds and opens every block at once: answers each message of one hub with an acknowledgement and a receipt."""

    def __init__(self) -> None:
        self._acknowledgement = SigningKey.generate(Use.ACKNOWLEDGEMENT)
        self._receipt = SigningKey.generate(Use.RECEIPT)
        self._device = SigningKey.generate(Use.DEVICE)
        self._commits = 0
        self.sender: Final = Sender("hub-1", self._device)
        self.now_s = START_US // 1_000_000
        self.registration: Final = Registration(
            "hub-1",
            "site-1",
            self._acknowledgement.public,
            self._receipt.public,
            backup_interval_h=0,
            registered_s=self.now_s,
            recipients={"subject-1": RecipientKeyPair.generate().public},
        )

    def open_outbox(self, folder: Path) -> Outbox:
        return Outbox.open(
            folder / "buffer.db",
            hub="hub-1",
            subject="subject-1",
            keys=HubKeys(HubKey(bytes(32)), self._device),
            registration=self.registration,
            clock=lambda: self.now_s,
            limits=BufferLimits(retention_s=RETENTION_S),
        )

    def answer(self, message: OutgoingMessage) -> tuple[bytes, bytes | None]:
        """An acknowledgement, and a receipt if the message has vital signs."""
        self._commits += 1
        envelope = decode_envelope(message.payload).envelope
        digests = (block_digest(block) for block in envelope.blocks)
        held = tuple(join_consecutive(zip(message.ids, digests, strict=True)))
        head = next(head for head in envelope.heads if head.lane == held[0].lane)
        ack = Ack(
            "hub-1",
            "site-1",
            STORE,
            FENCE,
            self._commits,
            epoch=envelope.epoch,
            marks=(Mark(head.lane, envelope.epoch, head.seq, head.chain),),
            held=held,
            keys=tuple(statement.id for statement in envelope.keys),
            wraps=tuple((wrapped.id, wrapped.recipient) for wrapped in envelope.wraps),
        )
        receipt = Receipt("hub-1", STORE, FENCE, opened=held) if head.lane == "vital" else None
        return encode_ack(ack, self._acknowledgement), encode_receipt(receipt, self._receipt) if receipt else None


@dataclass(slots=True)
class _Run:
    """Sends what the recorder has stored, as the uplink does, and counts the page writes of each transaction."""

    outbox: Outbox
    clinic: AnsweringClinic
    pages: PageWrites
    blocks: int = 0
    records: int = 0
    sealed_bytes: int = 0
    largest_block_bytes: int = 0
    state_bytes: int = 0
    frames: Counter[str] = field(default_factory=Counter)
    transactions: Counter[str] = field(default_factory=Counter)
    _pipeline: Pipeline = field(default_factory=lambda: Pipeline("strap", DEFAULT_LIMITS, LoadedModels()))
    _sent: dict[Lane, Position] = field(default_factory=lambda: dict.fromkeys(LANES, (0, 0)))

    def clear(self) -> None:
        self.pages.clear()
        self.frames.clear()
        self.transactions.clear()
        self.blocks = self.records = self.sealed_bytes = self.largest_block_bytes = 0

    async def feed(self, recorder: Recorder, feeds: Iterable[tuple[int, Feed]], interval_s: float) -> None:
        for second, feed in feeds:
            self.clinic.now_s = START_US // 1_000_000 + second
            output, state = feed(self._pipeline), self._pipeline.state()
            self.records += len(output.records)
            self.state_bytes = len(json.dumps(state))
            await recorder.add(output.records, {state_key("strap"): state})
            if second % interval_s == 0:
                await recorder.flush()
            if second % ROUND_S == 0:
                while not self.outbox.tidy():
                    self._count("tidy")
        assert not recorder.counters.failed_writes

    def send(self) -> None:
        """Send a message for each lane, then receive the answers."""
        self._count("put")
        messages = [message for lane in LANES if (message := self._prepare(lane))]
        sent = SentBlocks(frozenset(id_ for message in messages for id_ in message.ids), frozenset())
        answers = [self.clinic.answer(message) for message in messages]
        for ack, _ in answers:
            assert receive_ack(self.outbox, self.clinic.registration, ack, sent).applied.settled
            self._count("acknowledgement")
        for _, receipt in answers:
            if receipt is not None:
                assert receive_receipt(self.outbox, self.clinic.registration, receipt, sent).applied.released
                self._count("receipt")

    def _prepare(self, lane: Lane) -> OutgoingMessage | None:
        section = Section(lane, True, self._sent[lane], NEWEST, MESSAGE_BLOCKS_LIMIT_BYTES, must_fit=False)
        message = prepare_message(self.outbox, self.clinic.sender, [section], NOTHING_SENT)
        if message is not None:
            sizes = [len(block) for block in decode_envelope(message.payload).envelope.blocks]
            self.blocks += len(sizes)
            self.sealed_bytes += sum(sizes)
            self.largest_block_bytes = max(self.largest_block_bytes, *sizes)
            self._sent[lane] = message.end
        return message

    def _count(self, transaction: str) -> None:
        before = self.pages.wal.total()
        self.pages.count_transaction()
        added = self.pages.wal.total() - before
        self.frames[transaction] += added
        self.transactions[transaction] += added > 0


async def _call_inline(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)


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
