"""A damaged buffer: the agent starts, what is readable is kept, and the clinic learns of every block that is not."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.errors import DamagedBufferError, TransientError
from sync.message_rows import Mark
from sync.outbox import Outbox, OutboxBlock, repair, salvage
from sync.outbox.database import OutboxDatabase
from sync.outbox.repair import SALVAGE_STATE, damaged_files
from sync.wire import UNKNOWN_CHAIN, BlockId, Lane
from tests.sync.outboxes import EVERY_BLOCK, HUB_KEYS, Clock, ack, all_pending, held, open_at, outcome, receipt, tidy
from tests.sync.test_full_disk import limited_file_size
from tests.sync.test_kill import run_and_kill

OpenOutbox = Callable[..., Outbox]


class Sample:
    """A buffer of three epochs: its blocks that have to be sent, those that the clinic holds, and its last epoch."""

    def __init__(self, folder: Path, pending: Iterable[OutboxBlock], answered: set[BlockId], last_epoch: int) -> None:
        self.folder, self.answered, self.last_epoch = folder, answered, last_epoch
        self.pending = {block.id: block for block in pending}


def make_sample(folder: Path) -> Sample:
    clock, path, rng = Clock(), folder / "outbox.db", random.Random(5)
    answered: set[BlockId] = set()
    for _ in range(3):
        outbox = open_at(path, clock=clock)
        clock.now += 40_000
        for n in range(6):
            blocks: list[tuple[Lane, bytes]] = [(lane, rng.randbytes(rng.randrange(20, 3000))) for lane in ("vital", "wave")]
            outbox.put_many([*blocks, *blocks, ("alert", b"a" * 700)], {"a": b"%d" % n, "b": b"b" * 900})
        done = [block for block in all_pending(outbox) if block.id.seq % 3 == 0 or block.id.seq <= 2]
        marks = tuple(Mark(*block.id, chain_at(outbox, block.id)) for block in done if block.id.seq == 2)
        outbox.apply_ack(ack(held=held(*done), marks=marks), EVERY_BLOCK)
        outbox.apply_receipt(receipt(opened=held(*(block for block in done if block.id.lane != "wave"))))
        answered |= {block.id for block in done}
        pending = all_pending(outbox)
        epoch = outbox.epoch
        outbox.close()
    return Sample(folder, pending, answered, epoch)


def chain_at(outbox: Outbox, id_: BlockId) -> bytes:
    sequence = outbox._tables.find(id_.lane, id_.epoch)
    assert sequence is not None
    return outbox._tables.read(sequence, id_.seq, id_.seq)[0].chain


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("sample"))


def check_account(sample: Sample, path: Path) -> Outbox:
    """Open the damaged buffer and check what the clinic will hold."""
    outbox = open_at(path, clock=Clock())
    pending = {block.id: block for block in all_pending(outbox)}
    listed = {
        BlockId(lane, epoch, seq)
        for lane, epoch, first, last in outbox._database.rows(
            "SELECT lane, epoch, first, dropped.last FROM dropped JOIN sequences ON id = sequence"
        )
        for seq in range(first, last + 1)
    }
    missing = sample.pending.keys() - pending.keys()
    assert listed - sample.answered == missing  # the clinic holds what it acknowledged, whatever is listed
    assert not listed & pending.keys()
    assert {id_: pending[id_] for id_ in sample.pending.keys() & pending.keys()} == {
        id_: block for id_, block in sample.pending.items() if id_ in pending
    }
    assert outbox.epoch > sample.last_epoch
    new = outbox.put("alert", b"new")
    assert new == ("alert", outbox.epoch, 1)
    for block in all_pending(outbox):
        (statement,), (wrap,) = outbox.keys_for([block.key], also_held=True)
        statement.verify("hub-1", HUB_KEYS.device.public)
        assert (statement.id, statement.subject, wrap.id) == (block.key, "subject-1", block.key)
    return outbox


def damaged_copy(sample: Sample, folder: Path, change: Callable[[bytearray], None], suffix: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    for file in sample.folder.glob("outbox.db*"):
        if not file.name.endswith(("-shm", "-reserve")):
            shutil.copy(file, folder / file.name)
    target = folder / f"outbox.db{suffix}"
    content = bytearray(target.read_bytes())
    change(content)
    target.write_bytes(content)
    return folder / "outbox.db"


PLACES = st.integers(0, 2**20)
"""A place in a file, modulo its size."""


@settings(max_examples=10, deadline=None)
@given(place=PLACES, bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere(sample: Sample, tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    def flip(content: bytearray) -> None:
        content[place % len(content)] ^= 1 << bit

    check_account(sample, damaged_copy(sample, tmp_path_factory.mktemp("damaged"), flip)).close()


@settings(max_examples=10, deadline=None)
@given(place=PLACES, is_half=st.booleans(), fill=st.sampled_from([0, 0xFF, 0x5A]))
def test_a_damaged_page(sample: Sample, tmp_path_factory: pytest.TempPathFactory, place: int, is_half: bool, fill: int) -> None:
    def overwrite(content: bytearray) -> None:
        page = place % (len(content) // 512)
        content[page * 512 + 256 * is_half : (page + 1) * 512] = bytes([fill]) * (256 if is_half else 512)

    check_account(sample, damaged_copy(sample, tmp_path_factory.mktemp("damaged"), overwrite)).close()


CONTENTS = {
    "zeros": lambda content: content.__setitem__(slice(0, None), bytes(len(content))),
    "another file": lambda content: content.__setitem__(slice(0, None), b"not a database " * 1000),
    "only a header": lambda content: content.__setitem__(slice(16, None), b"\xff" * 5000),
    "cut off": lambda content: content.__delitem__(slice(len(content) // 3, None)),
    "empty": bytearray.clear,
    "no header": lambda content: content.__setitem__(slice(0, 4096), bytes(4096)),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_ruined_file_never_stops_the_agent(sample: Sample, tmp_path: Path, name: str) -> None:
    (tmp_path / "outbox.db-reserve").touch()
    path = damaged_copy(sample, tmp_path, CONTENTS[name])
    damaged = path.read_bytes()
    outbox = open_at(path, clock=Clock())
    assert outbox.put("alert", b"new").seq == 1
    kept = {block.id for block in all_pending(outbox)} & sample.pending.keys()
    assert bool(kept) == (name in ("cut off", "no header"))
    report = json.loads(outbox.load_state(SALVAGE_STATE) or b"")
    assert report["salvaged"]["kept"] >= len(kept)
    outbox.close()
    (beside,) = damaged_files(path)
    assert beside.read_bytes() == damaged
    assert beside.stat().st_mode & 0o777 == path.stat().st_mode & 0o777
    assert beside.name == "outbox.db-damaged-2026-09-21"
    open_at(path, clock=Clock()).close()
    assert not any(file.name.endswith(("-new", "-salvaging")) for file in tmp_path.iterdir())


def test_only_the_last_damaged_file_is_kept_and_not_longer_than_the_retention(sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for _ in range(2):
        path = damaged_copy(sample, tmp_path, CONTENTS["no header"])
        outbox = open_at(path, clock=Clock())
        (beside,) = damaged_files(path)
        outbox.close()
    outbox = open_at(path, clock=Clock())
    tidy(outbox)
    assert damaged_files(path) == [beside]
    os.utime(beside, (0, 0))
    tidy(outbox)
    assert damaged_files(path) == []
    outbox.close()


def test_an_erasure_deletes_the_damaged_file(sample: Sample, tmp_path: Path) -> None:
    path = damaged_copy(sample, tmp_path, CONTENTS["no header"])
    outbox = open_at(path, clock=Clock())
    assert damaged_files(path)
    outbox.apply_ack(ack(refused=(outcome(all_pending(outbox)[0]),)))
    assert damaged_files(path) == []
    outbox.close()


def test_the_clinic_passes_what_is_lost(sample: Sample, tmp_path: Path) -> None:
    """The marks of a clinic that got the listed ranges end their listing, also where no chain value is known any more."""
    pages = (sample.folder / "outbox.db").stat().st_size // 512

    def overwrite(content: bytearray) -> None:
        content[pages // 2 * 512 : (pages // 2 + 20) * 512] = bytes(20 * 512)

    outbox = open_at(damaged_copy(sample, tmp_path, overwrite), clock=Clock())
    listed = outbox.clinic_view().dropped
    assert listed
    assert UNKNOWN_CHAIN in {row.chain for row in listed}
    for row in listed:
        found = outbox._tables.find(row.lane, row.epoch)
        assert found is not None
        outbox.apply_ack(ack(marks=(Mark(row.lane, row.epoch, found.last, bytes(31) + b"x"),)))
    remaining = {row.chain for row in outbox.clinic_view().dropped}
    assert UNKNOWN_CHAIN not in remaining
    outbox.close()


def damaged_wal(sample: Sample, folder: Path, change: Callable[[bytearray], None]) -> Path:
    return damaged_copy(sample, folder, change, "-wal")


@pytest.fixture(scope="module")
def killed_sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A buffer whose last blocks are only in its WAL."""
    folder = tmp_path_factory.mktemp("killed")
    outbox = open_at(folder / "open.db", clock=Clock())
    for n in range(30):
        outbox.put_many([("vital", b"v" * (200 + n)), ("wave", bytes(1500))], {"a": b"%d" % n})
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"open.db{suffix}", folder / f"outbox.db{suffix}")
    sample = Sample(folder, all_pending(outbox), set(), outbox.epoch)
    outbox.close()
    for file in folder.glob("open.db*"):
        file.unlink()
    return sample


@settings(max_examples=8, deadline=None)
@given(place=PLACES, bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_wal(
    killed_sample: Sample, tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    """SQLite alone would forget all transactions from the damaged one on, without an error."""

    def flip(content: bytearray) -> None:
        content[place % (len(content) - 20 * 536)] ^= 1 << bit

    folder = tmp_path_factory.mktemp("damaged")
    check_account(killed_sample, damaged_wal(killed_sample, folder, flip)).close()


def test_a_power_cut_in_the_last_transaction_is_no_damage(killed_sample: Sample, tmp_path: Path) -> None:
    def cut(content: bytearray) -> None:
        content[-300:] = bytes(300)

    path = damaged_wal(killed_sample, tmp_path, cut)
    outbox = open_at(path, clock=Clock())
    assert damaged_files(path) == []
    assert {block.id for block in all_pending(outbox)} >= {id_ for id_ in killed_sample.pending if id_.seq <= 29}
    outbox.close()


def test_a_lost_wal_reuses_no_number(killed_sample: Sample, tmp_path: Path) -> None:
    """Like a restored backup: what was only in the WAL is missing, and the clinic lists it by the heads that the hub signed."""
    path = damaged_copy(killed_sample, tmp_path, lambda _: None)
    path.with_name("outbox.db-wal").unlink()
    outbox = open_at(path, clock=Clock())
    assert outbox.put("vital", b"new") not in killed_sample.pending
    outbox.close()


def test_the_start_after_a_kill_at_any_step_goes_on(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second renaming, deletion and transaction of a salvage is in turn the last one before a kill."""
    for step in range(0, 100, 2):  # a salvage has 21
        folder = tmp_path / str(step)
        path = damaged_copy(sample, folder, lambda content: content.__setitem__(slice(512, 5120), bytes(4608)))
        left = Countdown(step)
        with monkeypatch.context() as patched:
            for owner, name in ((Path, "replace"), (Path, "unlink"), (OutboxDatabase, "run"), (repair, "sync_path")):
                patched.setattr(owner, name, left.wrap(getattr(owner, name)))
            try:
                open_at(path, clock=Clock()).close()
            except Killed:
                pass
            else:
                break
        check_account(sample, path).close()
        assert len(damaged_files(path)) == 1
    assert 15 <= step < 99


def test_a_salvage_that_is_killed_goes_on(sample: Sample, tmp_path: Path) -> None:
    path = damaged_copy(sample, tmp_path, CONTENTS["no header"])
    rng = random.Random(6)
    for attempt in range(3):
        run_and_kill(tmp_path, 1, rng.uniform(0, 0.1 * attempt), "open")
    check_account(sample, path).close()


class Killed(BaseException):
    """The process is gone."""


class Countdown:
    """Kills the process at the call with this number."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return function(*arguments, **options)

        return call


def test_a_disk_that_becomes_full_keeps_alerts_and_lists_the_waveforms(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = damaged_copy(sample, tmp_path, CONTENTS["no header"])
    monkeypatch.setattr(salvage, "free_bytes", lambda _: salvage.KEPT_FREE_BYTES - 1)
    monkeypatch.setattr(repair, "free_bytes", lambda _: repair.KEPT_DAMAGED_BYTES - 1)
    outbox = check_account(sample, path)
    kept = {block.id for block in all_pending(outbox)} & sample.pending.keys()
    assert {id_.lane for id_ in kept} == {"alert", "vital"}
    assert damaged_files(path) == []  # it would take the room of new alerts
    outbox.close()


def test_no_room_at_all_is_transient_and_the_next_start_goes_on(sample: Sample, tmp_path: Path) -> None:
    path = damaged_copy(sample, tmp_path, CONTENTS["no header"])
    with limited_file_size(6_000), pytest.raises(TransientError, match="disk"):
        open_at(path, clock=Clock())
    check_account(sample, path).close()


def tidy_often(outbox: Outbox) -> None:
    for _ in range(5):
        outbox.tidy()


class TestBackgroundCheck:
    def test_finds_a_damaged_block_and_lists_it_only_if_the_clinic_has_not_got_it(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put_many([("wave", b"%d" % n) for n in range(4)])
        outbox.apply_ack(ack(held=held(all_pending(outbox)[0])))
        for seq in (1, 3):
            query = "SELECT sealed FROM blocks_wave WHERE id & 0xff = ?"
            sealed = outbox._database.rows(query, seq)[0][0]
            damaged = sealed[:-1] + bytes([sealed[-1] ^ 1])
            outbox._database.execute("UPDATE blocks_wave SET sealed = ? WHERE id & 0xff = ?", damaged, seq)
        tidy(outbox)
        outbox.tidy()
        assert [row[:4] for row in outbox.clinic_view().dropped] == [("wave", outbox.epoch, 3, 3)]
        assert outbox._database.rows("SELECT id & 0xff FROM blocks_wave") == [(2,), (4,)]

    def test_an_impossible_state_makes_the_next_opening_salvage(self, path: Path) -> None:
        outbox = open_at(path)
        outbox.put("wave", b"a")
        outbox._database.execute("UPDATE blocks_wave SET state = 8")
        with pytest.raises(DamagedBufferError):
            tidy_often(outbox)
        outbox.close()
        again = open_at(path, is_damaged=True)
        assert len(all_pending(again)) == 1
        again.close()
