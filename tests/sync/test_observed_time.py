"""A clock that leaps: what the clinic has acknowledged stays until the hub has observed the retention."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.errors import TransientError
from sync.message_rows import Mark
from sync.outbox import Outbox
from sync.outbox.observed_time import AHEAD_S, LEAP_S, ObservedTime
from sync.outbox.room import BufferLimits
from tests.sync.outboxes import BOOT_S, DAY_S, Clock, ack, all_pending, held, pass_time, receipt, tidy

OpenOutbox = Callable[..., Outbox]
VECTORS = Path(__file__).parent / "vectors"
YEAR_S = 366 * DAY_S
RETENTION_S = 7 * DAY_S


def put_acknowledged(outbox: Outbox) -> list[bytes]:
    """Blocks that the clinic holds: two waveforms, and a vital sign with its receipt. One that was not requested."""
    outbox.put_many([("wave", b"a"), ("wave", b"b"), ("vital", b"c"), ("archive", b"d")])
    blocks = all_pending(outbox)
    outbox.apply_ack(ack(held=held(*blocks), commits=9))
    outbox.apply_receipt(receipt(opened=held(*blocks)))
    return [block.sealed for block in blocks]


def count_stored(outbox: Outbox) -> int:
    query = """SELECT (SELECT count(*) FROM blocks_wave) + (SELECT count(*) FROM blocks_vital)
               + (SELECT count(*) FROM blocks_archive)"""
    return int(outbox._database.rows(query)[0][0])


def restore_store(outbox: Outbox) -> list[bytes]:
    """The clinic's store is restored from a backup without any of these blocks; what the hub then sends."""
    head = next(head for head in outbox.clinic_view().heads if head.lane == "wave")
    outbox.apply_ack(ack(commits=10, marks=(Mark("wave", outbox.epoch, head.seq, head.chain),)))
    assert outbox.apply_ack(ack(fence=8, store=bytes(15) + b"\x09")).is_new_store
    return [block.sealed for block in all_pending(outbox)]


@pytest.mark.parametrize("ahead_s", [8 * DAY_S, YEAR_S, 9 * YEAR_S])
def test_a_clock_ahead_and_a_restored_store_lose_nothing(open_outbox: OpenOutbox, ahead_s: int) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock)
    sealed = put_acknowledged(outbox)
    clock.now += ahead_s
    tidy(outbox)
    assert count_stored(outbox) == 4
    assert restore_store(outbox) == sealed


def test_nor_does_a_leap_while_the_agent_is_off(open_outbox: OpenOutbox) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock)
    sealed = put_acknowledged(outbox)
    outbox.close()
    clock.now += YEAR_S
    again = open_outbox(clock=clock)
    tidy(again)
    again.close()
    clock.now -= YEAR_S - 60
    last = open_outbox(clock=clock)
    tidy(last)
    assert count_stored(last) == 4
    assert restore_store(last) == sealed


@pytest.mark.parametrize("leap_s", [YEAR_S, -YEAR_S // 2])
def test_after_a_leap_the_retention_ends_in_observed_time(open_outbox: OpenOutbox, leap_s: int) -> None:
    """Also where a block was acknowledged at a time that now is in the future."""
    clock = Clock()
    outbox = open_outbox(clock=clock)
    put_acknowledged(outbox)
    pass_time(outbox, clock, 3 * DAY_S)
    clock.now += leap_s
    outbox.tidy()  # sees the leap
    pass_time(outbox, clock, 4 * DAY_S - 3 * AHEAD_S)
    tidy(outbox)
    assert count_stored(outbox) == 4
    pass_time(outbox, clock, 6 * AHEAD_S)
    tidy(outbox)
    assert count_stored(outbox) == 0


def test_a_hub_that_is_off_at_weekends_deletes_after_seven_days_on(open_outbox: OpenOutbox) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock)
    put_acknowledged(outbox)
    pass_time(outbox, clock, 5 * DAY_S)
    outbox.close()
    clock.now += 2 * DAY_S
    again = open_outbox(clock=clock)
    pass_time(again, clock, DAY_S)
    tidy(again)
    assert count_stored(again) == 4
    pass_time(again, clock, DAY_S + 3 * AHEAD_S)
    tidy(again)
    assert count_stored(again) == 0


def test_a_full_buffer_deletes_what_is_acknowledged_whatever_the_clock_shows(open_outbox: OpenOutbox) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock, limits=BufferLimits(quota_bytes=4000))
    put_acknowledged(outbox)
    clock.now += YEAR_S
    for _ in range(4):
        outbox.put("wave", bytes(1000))
    tidy(outbox)
    assert count_stored(outbox) == 3


def test_what_was_rolled_back_was_not_observed(open_outbox: OpenOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock)
    put_acknowledged(outbox)
    before = list(outbox._observed._stretches)
    clock.now += YEAR_S

    def fail(*_arguments: object) -> None:
        raise TransientError("the disk is full")

    monkeypatch.setattr(outbox._sealer, "put", fail)
    with pytest.raises(TransientError):
        outbox.put("wave", b"e")
    assert outbox._observed._stretches == before


class TestOlderBuffer:
    """A buffer of version 3 does not know what its hub observed. Its clock was right when it was used last."""

    @pytest.fixture
    def older(self, path: Path) -> Path:
        shutil.copy(VECTORS / "outbox_v3.db", path)
        return path

    def test_it_keeps_what_was_acknowledged_lately(self, older: Path, open_outbox: OpenOutbox) -> None:
        clock = Clock()
        outbox = open_outbox(clock=clock)
        with closing(sqlite3.connect(older)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (4,)
        pass_time(outbox, clock, DAY_S)
        tidy(outbox)
        assert count_stored(outbox) == 4  # of six: what is eight days old has gone
        assert outbox.load_state("alerts") == b"of subject-1"
        assert [block.id.lane for block in all_pending(outbox)] == ["alert", "vital"]

    def test_also_if_its_clock_leaps_at_the_first_start(self, older: Path, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox(clock=Clock(BOOT_S + YEAR_S))
        tidy(outbox)
        assert count_stored(outbox) >= 4
        assert len(all_pending(outbox)) == 2

    def test_a_salvaged_buffer_does_the_same(self, older: Path, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox(clock=Clock(BOOT_S + YEAR_S), is_damaged=True)
        tidy(outbox)
        assert count_stored(outbox) >= 4


STEPS = st.one_of(
    st.integers(1, 3600),
    st.integers(1, LEAP_S),
    st.integers(-3600, -1),
    st.integers(-LEAP_S, LEAP_S),
    st.integers(-2 * YEAR_S, 2 * YEAR_S),
)


class Memory:
    """The table of the stretches."""

    def __init__(self) -> None:
        self.stretches: list[tuple[int, int]] = []

    def rows(self, _query: str) -> list[tuple[int, int]]:
        return list(self.stretches)

    def execute(self, _statement: str) -> None:
        self.stretches.clear()

    def execute_many(self, _statement: str, rows: list[tuple[int, int]]) -> None:
        self.stretches += rows


@given(st.lists(st.tuples(STEPS, st.booleans(), st.booleans()), min_size=5, max_size=60))
def test_nothing_is_over_before_the_retention_was_observed(steps: list[tuple[int, bool, bool]]) -> None:
    """Whatever the clock does, with restarts."""
    database: Any = Memory()
    observed = ObservedTime(database, RETENTION_S)
    now_s, observed_s, leaps = BOOT_S, 0, 0
    acknowledged: list[tuple[int, int, int]] = []
    for step_s, is_restart, is_acknowledged in steps:
        now_s += step_s
        observed_s += step_s if 0 <= step_s <= LEAP_S + AHEAD_S else 0
        leaps += not 0 <= step_s <= LEAP_S
        if is_restart:
            observed = ObservedTime(database, RETENTION_S)
        observed.note(now_s)
        if is_acknowledged:
            acknowledged.append((now_s, observed_s, leaps))
        for at_s, then_s, leaps_then in acknowledged:
            if observed.is_over(at_s):
                assert observed_s - then_s + (leaps - leaps_then + 1) * AHEAD_S >= RETENTION_S
