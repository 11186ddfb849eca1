"""A damaged buffer: the agent starts, what is readable is kept, and the clinic learns of every block that is not."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.message_rows import Mark
from sync.outbox import Outbox, OutboxBlock
from sync.outbox.repair import SALVAGE_STATE, damaged_files
from sync.wire import UNKNOWN_CHAIN, BlockId
from tests.sync.outboxes import EVERY_BLOCK, HUB_KEYS, Clock, ack, all_pending, held, open_at, outcome, receipt, tidy

OpenOutbox = Callable[..., Outbox]


@dataclass(frozen=True)
class Sample:
    """A buffer of three epochs, with blocks in every state; what it had to keep, and what it had not."""

    folder: Path
    pending: dict[BlockId, OutboxBlock]
    answered: set[BlockId]
    last_epoch: int
    state: dict[str, bytes]


def make_sample(folder: Path, *, is_killed: bool = False) -> Sample:
    clock = Clock()
    path = folder / "outbox.db"
    rng = random.Random(5)
    answered: set[BlockId] = set()
    for _ in range(3):
        outbox = open_at(path, clock=clock)
        clock.now += 40_000
        for n in range(6):
            blocks = [("vital", rng.randbytes(rng.randrange(20, 900))), ("wave", rng.randbytes(rng.randrange(20, 3000)))]
            outbox.put_many(blocks * 2 + [("alert", b"a" * 700)], {"a": b"%d" % n, "b": b"b" * 900})  # type: ignore[arg-type]
        if outbox.epoch:
            done = [block for block in all_pending(outbox) if block.id.seq % 3 == 0 or block.id.seq <= 2]
            marks = tuple(
                Mark(head.lane, outbox.epoch, 2, chain)
                for head in outbox.clinic_view().heads
                for chain in [outbox._acks._chain_at(outbox._tables.find(head.lane, outbox.epoch), 2)]  # type: ignore[arg-type]
                if chain
            )
            outbox.apply_ack(ack(held=held(*done), marks=marks), EVERY_BLOCK)
            outbox.apply_receipt(receipt(opened=held(*(block for block in done if block.id.lane != "wave"))))
            answered |= {block.id for block in done}
        if is_killed and len(answered) > 60:
            break
        last = outbox
        if not is_killed:
            outbox.close()
    pending = {block.id: block for block in all_pending(open_copy(path, clock) if not is_killed else outbox)}
    assert pending
    return Sample(folder, pending, answered, last.epoch, {"a": b"5", "b": b"b" * 900})


def open_copy(path: Path, clock: Clock) -> Outbox:
    """A copy of the buffer, so that the sample stays as it is."""
    copy = path.with_name("copy")
    copy.mkdir()
    shutil.copy(path, copy / path.name)
    return open_at(copy / path.name, clock=clock)


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


@settings(max_examples=40, deadline=None)
@given(place=PLACES, bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere(sample: Sample, tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    def flip(content: bytearray) -> None:
        content[place % len(content)] ^= 1 << bit

    check_account(sample, damaged_copy(sample, tmp_path_factory.mktemp("damaged"), flip)).close()


@settings(max_examples=40, deadline=None)
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
