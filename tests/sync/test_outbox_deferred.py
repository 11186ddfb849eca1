"""Answers of the clinic write no pages of their own. A crash before the next commit loses them, an error does not."""

import shutil
from pathlib import Path

import pytest

from sync.errors import PermanentError
from sync.outbox import Outbox, OutboxBlock
from sync.outbox.database import DEFERRED_LIMIT, PAGE_BYTES
from sync.wire import PLAINTEXT_LIMIT_BYTES
from tests.sync.conftest import OpenOutbox
from tests.sync.outboxes import OTHER_STORE, Clock, ack, all_pending, held, open_at, outcome, receipt

FRAME_BYTES = 24 + PAGE_BYTES
COMMIT_FRAMES = 16
"""A commit of a one-channel ECG writes 14 frames on average: 75 MB a day, every 10 s."""
WAVE, VITAL = bytes(1500), bytes(350)
"""Plaintexts of 10 s of ECG and of its vital signs."""


def written_frames(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size // FRAME_BYTES


def states_after_crash(path: Path, tmp_path: Path) -> tuple[int, int, int]:
    """The pending, released and refused blocks that another process finds if this one is killed now."""
    folder = tmp_path / "after crash"
    shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("after crash", "*-shm"))
    outbox = open_at(folder / path.name)
    statistics = outbox.statistics()
    outbox.close()
    shutil.rmtree(folder)
    return sum(statistics.pending.values()), statistics.released, statistics.refused


def answer_all(outbox: Outbox, commits: int = 1) -> list[OutboxBlock]:
    blocks = all_pending(outbox)
    for block in blocks:
        outbox.apply_ack(ack(commits=commits, held=held(block)))
        if block.id.lane == "vital":
            outbox.apply_receipt(receipt(opened=held(block)))
    return blocks


def test_a_commit_with_the_answers_to_the_one_before_writes_few_pages(open_outbox: OpenOutbox, path: Path) -> None:
    outbox = open_outbox()
    for second in range(10):
        before = written_frames(path)
        outbox.put_many([("vital", VITAL), ("wave", WAVE)], {"strap": bytes(330)})
        written = written_frames(path)
        assert second == 0 or written - before <= COMMIT_FRAMES
        answer_all(outbox, second + 1)
        outbox.tidy()
        assert written_frames(path) == written
    assert outbox.statistics().released == 20


def test_a_crash_before_the_next_commit_makes_answered_blocks_pending_again(
    open_outbox: OpenOutbox, path: Path, tmp_path: Path
) -> None:
    outbox = open_outbox()
    outbox.put_many([("vital", b"a"), ("wave", b"b")])
    answer_all(outbox)
    assert all_pending(outbox) == []
    assert states_after_crash(path, tmp_path) == (2, 0, 0)
    outbox.put("wave", b"c")
    assert states_after_crash(path, tmp_path) == (1, 2, 0)


def test_closing_commits_what_was_answered(path: Path) -> None:
    outbox = open_at(path)
    outbox.put("wave", b"a")
    answer_all(outbox)
    outbox.close()
    outbox = open_at(path)
    assert outbox.statistics().released == 1
    outbox.close()


def test_an_answer_outlives_a_write_that_fails(open_outbox: OpenOutbox, path: Path, tmp_path: Path) -> None:
    outbox = open_outbox()
    outbox.put_many([("vital", b"a"), ("wave", b"b")])
    answer_all(outbox)
    with pytest.raises(PermanentError, match="the limit is"):
        outbox.put("wave", bytes(PLAINTEXT_LIMIT_BYTES + 1))
    outbox.put("wave", b"c")
    assert outbox.statistics().released == 2
    assert states_after_crash(path, tmp_path) == (1, 2, 0)


def test_after_a_write_that_failed_the_next_answer_is_committed(open_outbox: OpenOutbox, path: Path, tmp_path: Path) -> None:
    outbox = open_outbox()
    outbox.put_many([("wave", b"a"), ("wave", b"b")])
    first, second = all_pending(outbox)
    outbox.apply_ack(ack(held=held(first)))
    with pytest.raises(PermanentError, match="the limit is"):
        outbox.put("wave", bytes(PLAINTEXT_LIMIT_BYTES + 1))
    outbox.apply_ack(ack(held=held(second)))
    assert states_after_crash(path, tmp_path) == (0, 2, 0)


def test_erasure_is_committed_at_once(open_outbox: OpenOutbox, path: Path, tmp_path: Path) -> None:
    outbox = open_outbox()
    outbox.put("wave", b"a")
    outbox.apply_ack(ack(refused=tuple(outcome(block) for block in all_pending(outbox))))
    assert states_after_crash(path, tmp_path) == (0, 0, 1)


def test_another_store_is_committed_at_once(open_outbox: OpenOutbox, path: Path, tmp_path: Path) -> None:
    outbox = open_outbox()
    outbox.put("wave", b"a")
    answer_all(outbox)
    outbox.put("wave", b"b")
    outbox.apply_ack(ack(OTHER_STORE, 8))
    assert states_after_crash(path, tmp_path) == (2, 0, 0)


def test_what_was_deleted_is_committed_at_once(open_outbox: OpenOutbox, path: Path) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock)
    outbox.put("wave", b"a")
    answer_all(outbox)
    clock.now += 8 * 86_400
    before = written_frames(path)
    while not outbox.tidy():
        pass
    assert written_frames(path) > before


def test_a_bounded_number_of_answers_waits(open_outbox: OpenOutbox, path: Path, tmp_path: Path) -> None:
    outbox = open_outbox()
    outbox.put_many([("wave", b"a")] * (DEFERRED_LIMIT + 1))
    blocks = all_pending(outbox)
    for block in blocks[:-1]:
        outbox.apply_ack(ack(held=held(block)))
    assert states_after_crash(path, tmp_path) == (DEFERRED_LIMIT + 1, 0, 0)
    outbox.apply_ack(ack(held=held(blocks[-1])))
    assert states_after_crash(path, tmp_path) == (0, DEFERRED_LIMIT + 1, 0)
