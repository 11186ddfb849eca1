"""What was destroyed is nowhere in the buffer's files: neither on free pages, nor in the WAL, nor in copies of either."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sync.outbox import BufferLimits, Outbox
from sync.outbox.database import OutboxDatabase
from sync.outbox.observed_time import AHEAD_S
from tests.sync.outboxes import DAY_S, SUBJECTS, Clock, ack, all_pending, held, open_at, outcome, pass_time, receipt, tidy

OpenOutbox = Callable[..., Outbox]
PART_BYTES = 13
"""Of what is sealed with the hub key: as long as version and nonce at its start."""


class Sealed:
    """All that was ever sealed with the hub key, for each subject."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.of: dict[str, set[bytes]] = {subject: set() for subject in SUBJECTS}

    def read(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            for table, column in (("keys", "local"), ("state", "sealed")):
                query = f"SELECT subject, {column} FROM {table} WHERE {column} IS NOT NULL"  # noqa: S608
                for subject, sealed in connection.execute(query):
                    self.of[subject].add(sealed)

    def count_found(self, subject: str, folder: Path) -> int:
        """Of how many the start, the middle or the end is in any file of a folder."""
        content = b"\0".join(path.read_bytes() for path in sorted(folder.iterdir()))
        return sum(any(part in content for part in parts(sealed)) for sealed in self.of[subject])


def parts(sealed: bytes) -> tuple[bytes, ...]:
    return tuple(sealed[at : at + PART_BYTES] for at in (0, len(sealed) // 2, len(sealed) - PART_BYTES))


def use_for_days(outbox: Outbox, clock: Clock, sealed: Sealed, days: int) -> None:
    """Store blocks of two subjects with states of many sizes; some blocks are released, and none is pending at the end."""
    rng = random.Random(4)
    for n in range(days * 10):
        blocks = [("vital", rng.randbytes(100)), ("wave", rng.randbytes(1500))]
        state = {"alerts": rng.randbytes(rng.choice((100, 400, 900, 3000))), "page": rng.randbytes(50)}
        outbox.put_many(blocks, state, subject=SUBJECTS[n % 2])  # type: ignore[arg-type]
        sealed.read()
        if rng.random() < 0.3:
            release_all(outbox)
        outbox.tidy()
        clock.now += DAY_S // 10


def release_all(outbox: Outbox) -> None:
    blocks = all_pending(outbox)
    outbox.apply_ack(ack(held=held(*blocks)))
    outbox.apply_receipt(receipt(opened=held(*(block for block in blocks if block.id.lane != "wave"))))


def refuse_one(outbox: Outbox, sealed: Sealed) -> None:
    """The clinic erased subject-1. A large state was replaced by a small one just before: its pages are free."""
    for size in (50_000, 10):
        outbox.put("vital", b"the last", {"alerts": random.Random(size).randbytes(size)})
        sealed.read()
    *_, block = all_pending(outbox, ["vital"])
    assert outbox.apply_ack(ack(refused=(outcome(block),))).refused == 1


@pytest.fixture
def used(open_outbox: OpenOutbox, path: Path) -> tuple[Outbox, Sealed]:
    clock, sealed = Clock(), Sealed(path)
    outbox = open_outbox(clock=clock)
    use_for_days(outbox, clock, sealed, 8)
    assert len(sealed.of["subject-1"]) > 80
    return outbox, sealed


def test_nothing_of_an_erased_subject_can_be_opened_with_the_hub_key(used: tuple[Outbox, Sealed], path: Path) -> None:
    outbox, sealed = used
    other = sealed.count_found("subject-2", path.parent)
    assert sealed.count_found("subject-1", path.parent) > 0
    refuse_one(outbox, sealed)
    assert sealed.count_found("subject-1", path.parent) == 0
    assert 0 < sealed.count_found("subject-2", path.parent) <= other


def test_what_is_remembered_of_an_erased_subject_is_not_stored_again(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    outbox.put("vital", b"the last", {"last pressures": b"[182]"})
    (block,) = all_pending(outbox)
    outbox.apply_ack(ack(refused=(outcome(block),)))
    outbox.put_many([("vital", b"measured later")], {"last pressures": b"[182]"})
    outbox.put_many([], {"last pressures": b"of another"}, subject="subject-2")
    assert [(state.subject, state.value) for state in outbox.stored_states()] == [("subject-2", b"of another")]
    outbox.close()
    outbox = open_outbox()
    outbox.put("vital", b"after a restart", {"last pressures": b"[]"})
    assert outbox.load_state("last pressures") == b"[]"


def test_an_erasure_that_was_killed_before_the_log_was_emptied_is_finished_by_the_next_start(
    used: tuple[Outbox, Sealed], path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, sealed = used
    with monkeypatch.context() as killed:
        killed.setattr(OutboxDatabase, "shrink_wal", lambda _database: None)
        refuse_one(outbox, sealed)
    copy = tmp_path / "killed"
    copy.mkdir()
    for file in path.parent.glob("outbox.db*"):
        shutil.copy(file, copy)
    assert sealed.count_found("subject-1", copy) > 0
    with closing(open_at(copy / path.name)):
        assert sealed.count_found("subject-1", copy) == 0


def test_an_old_key_is_nowhere_when_its_last_block_has_gone(open_outbox: OpenOutbox, path: Path) -> None:
    clock, sealed = Clock(), Sealed(path)
    outbox = open_outbox(clock=clock, limits=BufferLimits(retention_s=DAY_S))
    outbox.put("wave", b"a")
    sealed.read()
    release_all(outbox)
    pass_time(outbox, clock, DAY_S + 2 * AHEAD_S)
    outbox.put("wave", b"b")
    tidy(outbox)  # deletes the block
    tidy(outbox)  # then its key
    assert sealed.count_found("subject-1", path.parent) == 0
    sealed.read()
    assert sealed.count_found("subject-1", path.parent) == 1


def test_a_key_of_format_1_is_nowhere_after_the_migration(path: Path) -> None:
    """Its blocks were sealed again."""
    shutil.copy(Path(__file__).parent / "vectors" / "outbox_v2.db", path)
    sealed = Sealed(path)
    sealed.read()
    assert [sealed.count_found(subject, path.parent) > 0 for subject in SUBJECTS] == [True, True]
    with closing(sqlite3.connect(path)) as connection:
        states = {row[0] for row in connection.execute("SELECT sealed FROM state")}
    with closing(open_at(path, subject="subject-2")):
        for subject in SUBJECTS:
            sealed.of[subject] -= states
            assert sealed.count_found(subject, path.parent) == 0
