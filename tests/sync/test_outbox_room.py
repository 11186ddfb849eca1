"""Retention, quota and the end of keys: what is deleted, in which order, and what is never deleted."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sync.message_rows import Dropped, Mark
from sync.outbox import BufferLimits, Outbox, OutboxBlock
from sync.outbox.observed_time import AHEAD_S
from sync.outbox.room import STEP_BLOCKS
from sync.wire import Lane
from tests.sync.outboxes import (
    BOOT_S,
    DAY_S,
    EVERY_BLOCK,
    OTHER_STORE,
    Clock,
    ack,
    all_pending,
    held,
    mark_at,
    outcome,
    pass_time,
    receipt,
    registration,
    tidy,
)

OpenOutbox = Callable[..., Outbox]


def stored(path: Path, lane: Lane) -> list[int]:
    """The sequence numbers of a lane's blocks that are still in the file."""
    connection = sqlite3.connect(path)
    rows = connection.execute(f"SELECT id & 0xffffffff FROM blocks_{lane} ORDER BY id").fetchall()  # noqa: S608
    connection.close()
    return [row[0] for row in rows]


def key_days(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT day FROM keys JOIN wraps ON key = number ORDER BY day").fetchall()
    connection.close()
    return [row[0] - BOOT_S // DAY_S for row in rows]


def release(outbox: Outbox, *blocks: OutboxBlock) -> None:
    outbox.apply_ack(ack(held=held(*blocks)))
    outbox.apply_receipt(receipt(opened=held(*blocks)))


class TestRetention:
    def test_what_is_released_or_set_aside_stays_seven_days(self, open_outbox: OpenOutbox, path: Path) -> None:
        clock = Clock()
        outbox = open_outbox(clock=clock)
        outbox.put_many([("alert", b"a"), ("vital", b"b"), ("vital", b"pending"), ("wave", b"c"), ("wave", b"d")])
        alert, vital, _, wave, aside = all_pending(outbox)
        clock.now += 1000  # the time counts from the answer
        release(outbox, alert, vital, wave)
        outbox.apply_ack(ack(aside=(outcome(aside),)))
        pass_time(outbox, clock, 7 * DAY_S - 1)
        tidy(outbox)
        assert [stored(path, lane) for lane in ("alert", "vital", "wave")] == [[1], [1, 2], [1, 2]]
        pass_time(outbox, clock, 1 + 2 * AHEAD_S)
        tidy(outbox)
        assert [stored(path, lane) for lane in ("alert", "vital", "wave")] == [[], [2], []]
        statistics = outbox.statistics()
        assert (statistics.released, statistics.aside, statistics.acknowledged) == (0, 0, 4)
        assert statistics.bytes == len(all_pending(outbox)[0].sealed)

    def test_retention_is_not_less_than_the_clinics_backup_interval(self, open_outbox: OpenOutbox, path: Path) -> None:
        clock = Clock()
        outbox = open_outbox(clock=clock, registration=registration(backup_interval_h=24 * 10))
        outbox.put("wave", b"a")
        release(outbox, *all_pending(outbox))
        pass_time(outbox, clock, 10 * DAY_S - 1)
        tidy(outbox)
        assert stored(path, "wave") == [1]
        pass_time(outbox, clock, 1 + 2 * AHEAD_S)
        tidy(outbox)
        assert stored(path, "wave") == []

    def test_what_another_store_does_not_hold_is_not_deleted(self, open_outbox: OpenOutbox, path: Path) -> None:
        clock = Clock()
        outbox = open_outbox(clock=clock)
        outbox.put("wave", b"a")
        release(outbox, *all_pending(outbox))
        outbox.apply_ack(ack(OTHER_STORE, 8))
        pass_time(outbox, clock, 30 * DAY_S)
        tidy(outbox)
        assert stored(path, "wave") == [1]

    def test_a_wrong_clock_deletes_nothing(self, open_outbox: OpenOutbox, path: Path) -> None:
        clock = Clock()
        outbox = open_outbox(clock=clock)
        outbox.put("wave", b"a")
        release(outbox, *all_pending(outbox))
        for now in (0, BOOT_S + 40 * 366 * DAY_S):
            clock.now = now
            tidy(outbox)
        assert stored(path, "wave") == [1]


class TestKeysEnd:
    def test_the_last_key_goes_too_if_nothing_is_stored_any_more(self, open_outbox: OpenOutbox, path: Path) -> None:
        clock = Clock()
        outbox = open_outbox(clock=clock)
        outbox.put("wave", b"a")
        release(outbox, *all_pending(outbox))
        pass_time(outbox, clock, 7 * DAY_S + 2 * AHEAD_S)
        tidy(outbox)  # deletes the block
        tidy(outbox)  # then its key
        assert (stored(path, "wave"), key_days(path)) == ([], [])
        clock.now = BOOT_S
        outbox.put("wave", b"b")
        assert (stored(path, "wave"), key_days(path)) == ([1 + 1], [0])

    def test_a_key_goes_with_its_last_block_but_not_on_its_day(self, open_outbox: OpenOutbox, path: Path) -> None:
        clock = Clock()
        outbox = open_outbox(clock=clock, limits=BufferLimits(retention_s=3600))
        outbox.put("wave", b"a")
        (block,) = all_pending(outbox)
        release(outbox, block)
        pass_time(outbox, clock, DAY_S + 2 * AHEAD_S)
        outbox.put("wave", b"b")
        tidy(outbox)
        assert key_days(path) == [0, 1] if stored(path, "wave") else [1]
        tidy(outbox)
        assert key_days(path) == [1]
        assert outbox.keys_for([block.key], also_held=True) == ([], [])
        pass_time(outbox, clock, 2 * DAY_S)
        tidy(outbox)
        assert key_days(path) == [1]  # its block is pending

    def test_a_key_that_a_put_uses_during_the_round_stays(self, open_outbox: OpenOutbox, path: Path) -> None:
        clock = Clock()
        outbox = open_outbox(clock=clock)
        outbox.put("wave", b"a")
        first = outbox._keys.current("subject-1", BOOT_S // DAY_S)
        assert not outbox.tidy()
        outbox._sweep._candidates = {first.number}
        outbox.put("alert", b"b")  # in a lane that the round has passed
        release(outbox, *all_pending(outbox, ["wave"]))
        tidy(outbox)
        assert len(all_pending(outbox)) == 1

    def test_the_bytes_of_a_deleted_key_are_overwritten(self, open_outbox: OpenOutbox, path: Path) -> None:
        clock = Clock()
        outbox = open_outbox(clock=clock, limits=BufferLimits(retention_s=3600))
        outbox.put("wave", b"a")
        (block,) = all_pending(outbox)
        _, (wrapped,) = outbox.keys_for([block.key])
        local = outbox._database.rows("SELECT local FROM keys")[0][0]
        outbox._database.shrink_wal()
        assert local in path.read_bytes()
        outbox.apply_receipt(receipt(refused=(outcome(block),)))
        tidy(outbox)
        outbox._database.shrink_wal()
        assert local not in path.read_bytes()
        chunks = [wrapped.wrapped[i : i + 50] for i in range(0, 1000, 50)]
        assert [chunk for chunk in chunks if chunk in path.read_bytes()] == []


class TestNextSubject:
    def test_blocks_and_keys_of_an_earlier_subject_go_when_all_are_released(self, open_outbox: OpenOutbox, path: Path) -> None:
        first = open_outbox()
        first.put_many([("alert", b"a"), ("wave", b"b")], {"alerts": b"ongoing"})
        first.close()
        outbox = open_outbox(subject="subject-2")
        outbox.put("wave", b"of the second")
        alert, wave, own = all_pending(outbox)
        release(outbox, alert, own)
        outbox.delete_states("subject-1")
        tidy(outbox)
        assert (stored(path, "alert"), stored(path, "wave")) == ([1], [1, 1])
        release(outbox, wave)
        tidy(outbox)
        tidy(outbox)
        assert (stored(path, "alert"), stored(path, "wave")) == ([], [1])
        assert outbox.keys_for([alert.key], also_held=True) == ([], [])
        assert len(outbox.keys_for([own.key], also_held=True)[0]) == 1

    def test_an_earlier_subject_with_state_stays(self, open_outbox: OpenOutbox, path: Path) -> None:
        """Its alerts are not ended yet: the end is sealed for this subject."""
        first = open_outbox()
        first.put("alert", b"a", {"alerts": b"ongoing"})
        first.close()
        outbox = open_outbox(subject="subject-2")
        release(outbox, *all_pending(outbox))
        tidy(outbox)
        tidy(outbox)
        assert stored(path, "alert") == [1]


def open_small(open_outbox: OpenOutbox, blocks: int, clock: Clock | None = None) -> Outbox:
    """An outbox whose quota is about so many blocks of 1000 bytes."""
    limits = BufferLimits(quota_bytes=blocks * 1200)
    return open_outbox(limits=limits, clock=clock or Clock())


def put_each(outbox: Outbox, lane: Lane, count: int) -> None:
    for _ in range(count):
        outbox.put(lane, bytes(1000))


class TestQuota:
    def test_released_blocks_go_first_oldest_first_and_alerts_never(self, open_outbox: OpenOutbox, path: Path) -> None:
        outbox = open_small(open_outbox, 10)
        for lane in ("alert", "vital", "archive", "wave"):
            put_each(outbox, lane, 2)
        blocks = [block for block in all_pending(outbox) if block.id.lane != "archive"]
        release(outbox, *blocks)
        kept = []
        for _ in range(6):
            put_each(outbox, "wave", 1)
            kept.append([len(stored(path, lane)) for lane in ("alert", "vital", "archive")] + [stored(path, "wave")[0]])
        assert kept == [[2, 2, 2, first] for first in (1, 1, 1, 2, 3)] + [[2, 1, 2, 3]]
        assert outbox.clinic_view().dropped == ()
        put_each(outbox, "wave", 8)  # now archive and wave are dropped
        assert [len(stored(path, lane)) for lane in ("alert", "vital", "archive")] == [2, 0, 0]

    def test_then_archive_then_wave_are_dropped_and_nothing_else(self, open_outbox: OpenOutbox, path: Path) -> None:
        outbox = open_small(open_outbox, 10)
        for lane in ("archive", "wave", "vital", "alert"):
            put_each(outbox, lane, 2)
        put_each(outbox, "vital", 4)
        assert stored(path, "archive") != [1, 2]
        assert stored(path, "wave") == [1, 2]
        put_each(outbox, "vital", 20)
        outbox.tidy()
        assert (stored(path, "archive"), stored(path, "wave")) == ([], [])
        assert (len(stored(path, "vital")), len(stored(path, "alert"))) == (26, 2)
        assert [(row.lane, row.first, row.last) for row in outbox.clinic_view().dropped] == [("wave", 1, 2)]
        assert outbox.statistics().dropped == 2

    def test_a_dropped_range_has_the_chain_value_and_stays_until_a_mark_passes_it(self, open_outbox: OpenOutbox) -> None:
        outbox = open_small(open_outbox, 5)
        chains = {}
        for seq in range(1, 13):
            outbox.put("wave", bytes(1000))
            chains[seq] = outbox.clinic_view().heads[2].chain
        (dropped,) = outbox.clinic_view().dropped
        assert dropped == Dropped("wave", outbox.epoch, 1, dropped.last, chains[dropped.last])
        assert [block.id.seq for block in all_pending(outbox)] == list(range(dropped.last + 1, 13))
        outbox.apply_ack(ack(marks=(Mark("wave", outbox.epoch, dropped.last - 1, chains[dropped.last - 1]),)), EVERY_BLOCK)
        assert outbox.clinic_view().dropped == (dropped,)
        outbox.apply_ack(ack(marks=(Mark("wave", outbox.epoch, dropped.last, dropped.chain),)), EVERY_BLOCK)
        assert outbox.clinic_view().dropped == ()
        outbox.apply_ack(ack(marks=(mark_at(outbox, "wave"),)), EVERY_BLOCK)
        assert all_pending(outbox) == []

    def test_one_put_deletes_a_bounded_number_of_blocks_and_an_alert_none(self, open_outbox: OpenOutbox, path: Path) -> None:
        open_outbox().put_many([("wave", bytes(1000))] * 200)
        outbox = open_small(open_outbox, 10)
        outbox.put("alert", b"a")
        assert len(stored(path, "wave")) == 200
        outbox.put("vital", b"a")
        assert len(stored(path, "wave")) == 200 - STEP_BLOCKS
        outbox.tidy()
        assert len(stored(path, "wave")) == 200 - 2 * STEP_BLOCKS

    def test_nearly_full_counts_only_what_waits_for_the_clinic(self, open_outbox: OpenOutbox) -> None:
        outbox = open_small(open_outbox, 10)
        put_each(outbox, "wave", 7)
        assert not outbox.is_nearly_full
        put_each(outbox, "wave", 3)
        assert outbox.is_nearly_full
        release(outbox, *all_pending(outbox))
        assert outbox.statistics().bytes > 9000
        assert not outbox.is_nearly_full

    def test_totals_survive_a_restart_and_a_failed_transaction(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        put_each(outbox, "wave", 3)
        before = (outbox._tables.bytes, outbox._tables.open_bytes)
        with pytest.raises(TypeError):
            outbox.put_many([("wave", b"a")], {"state": "not bytes"})  # type: ignore[dict-item]
        assert (outbox._tables.bytes, outbox._tables.open_bytes) == before
        assert (open_outbox()._tables.bytes, outbox.statistics().bytes) == (before[0], before[0])
