"""Power cuts at every sync of the buffer: what a returned `put` stored is there afterwards, and the buffer is whole."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.chaos.power_cut import SECTOR_BYTES, choose_cut, last_mark, replay, sync_points
from benchmarks.chaos.recorded_disk import Entry, Op, read_log, record_writes
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.registration import Registration
from sync.signing import SigningKey, Use
from tests.fake_clinic import FakeClinic

HUB = "hub-1"
PUTS = 250
"""They fill the log of transactions, so that SQLite moves it into the database in between."""


def open_outbox(folder: Path) -> Outbox:
    registration = Registration.load(folder / "registration.toml", HUB)
    device = SigningKey.load_or_create(folder / "device.key", Use.DEVICE)
    return Outbox.open(
        folder / "buffer.db",
        hub=HUB,
        subject="subject-1",
        keys=HubKeys(HubKey.load_or_create(folder / "hub.key"), device),
        registration=registration,
        clock=lambda: registration.registered_s + 1,
    )


def fill_and_end(folder: str, log: str) -> None:
    """Store blocks, with a mark after each `put`, and end as a kill does. It runs in a process of its own."""
    writes = record_writes(Path(log))
    outbox = open_outbox(Path(folder))
    for number in range(PUTS):
        outbox.put_many([("wave", bytes(4000)), ("vital", b"%d" % number)], {"last": b"%d" % number})
        writes.mark(number)
    os._exit(0)


def read_numbers(outbox: Outbox) -> list[int]:
    """The numbers in the buffer's vital lane, by the ids of its blocks."""
    return [block.id.seq - 1 for block in outbox.pending("vital", (0, 0), 1 << 30)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    """The files before the recording, and the recorded writes."""
    folder = tmp_path_factory.mktemp("recorded")
    before, work = folder / "before", folder / "work"
    before.mkdir()
    device = SigningKey.load_or_create(before / "device.key", Use.DEVICE)
    FakeClinic(HUB, device.public).registration.save(before / "registration.toml")
    open_outbox(before).close()
    shutil.copytree(before, work)
    program = f"from tests.chaos.test_power_cut import fill_and_end; fill_and_end({str(work)!r}, {str(folder / 'log')!r})"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
    return before, read_log(folder / "log")


def test_the_recorded_writes_give_the_files_that_the_process_left(recorded: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    before, entries = recorded
    replay(
        before,
        [*entries, *(Entry(Op.SYNC, name, 0, b"") for name in ("buffer.db", "buffer.db-wal"))],
        tmp_path / "cut",
        random.Random(1),
    )
    left = before.parent / "work"
    for name in ("buffer.db", "buffer.db-wal"):
        assert (tmp_path / "cut" / name).read_bytes() == (left / name).read_bytes()
    written = {entry.file for entry in entries if entry.op is Op.WRITE}
    assert written == {"buffer.db", "buffer.db-wal"}


def test_nothing_that_was_stored_is_lost_by_a_power_cut(recorded: tuple[Path, list[Entry]], memory_folder: Path) -> None:
    before, entries = recorded
    rng = random.Random(2)
    cuts = [*rng.sample(sync_points(entries), 12), *(choose_cut(entries, rng) for _ in range(20))]
    for number, cut in enumerate(cuts):
        replay(before, entries[:cut], folder := memory_folder / str(number), rng)
        with closing(open_outbox(folder)) as outbox:
            stored, last = outbox.statistics().stored, outbox.load_state("last")
            durable = last_mark(entries[:cut])
            found = -1 if last is None else int(last)
            assert found >= (-1 if durable is None else durable)
            assert stored == 2 * (found + 1)
            assert len(read_numbers(outbox)) == found + 1
        shutil.rmtree(folder)


def test_without_the_syncs_a_power_cut_loses_what_was_stored(recorded: tuple[Path, list[Entry]], tmp_path: Path) -> None:
    """The replay would show a buffer that does not sync."""
    before, entries = recorded
    unsynced = [entry for entry in entries if entry.op is not Op.SYNC]
    replay(before, unsynced, tmp_path / "cut", random.Random(3))
    with closing(sqlite3.connect(tmp_path / "cut" / "buffer.db")) as connection:
        assert connection.execute("SELECT total(last) FROM sequences").fetchone()[0] < 2 * PUTS


def test_what_is_not_synced_is_there_or_missing_or_there_up_to_a_sector(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "file").write_bytes(bytes(2 * SECTOR_BYTES))
    write = Entry(Op.WRITE, "file", 0, b"1" * 2 * SECTOR_BYTES)
    found = set()
    for seed in range(40):
        replay(tmp_path / "base", [write], tmp_path / str(seed), random.Random(seed))
        found.add((tmp_path / str(seed) / "file").read_bytes().count(b"1"))
        replay(
            tmp_path / "base",
            [write, Entry(Op.SYNC, "file", 0, b"")],
            synced := tmp_path / f"{seed}-synced",
            random.Random(seed),
        )
        assert (synced / "file").read_bytes() == write.data
    assert found == {0, SECTOR_BYTES, 2 * SECTOR_BYTES}
