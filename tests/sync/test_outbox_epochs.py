"""Epochs: none is used twice, whatever the clock shows and whichever copy of the buffer is opened."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.errors import PermanentError
from sync.outbox import Outbox
from sync.outbox.epochs import CLOCK_LEAP_S, HubClock, next_epoch, sealing_day
from sync.wire import MAX_COUNT, epoch_seconds
from tests.sync.outboxes import BOOT_S, DAY_S, REGISTERED_S, Clock, all_pending, find_block, open_at

OpenOutbox = Callable[..., Outbox]
MIDNIGHT = BOOT_S // DAY_S * DAY_S + DAY_S


@pytest.mark.parametrize(
    ("now_s", "last_s", "expected_s"),
    [
        (BOOT_S, None, BOOT_S),
        (BOOT_S, BOOT_S - 5, BOOT_S),
        (BOOT_S, BOOT_S, BOOT_S + 1),
        (BOOT_S - 100, BOOT_S, BOOT_S + 1),
        (0, None, REGISTERED_S),
        (-(2**40), None, REGISTERED_S),
        (REGISTERED_S - 1, BOOT_S, BOOT_S + 1),
        (BOOT_S + CLOCK_LEAP_S, BOOT_S, BOOT_S + CLOCK_LEAP_S),
        (BOOT_S + CLOCK_LEAP_S + 1, BOOT_S, BOOT_S + 1),
        (2**33, None, REGISTERED_S),
        (2**80, BOOT_S, BOOT_S + 1),
    ],
)
def test_seconds_of_an_epoch(now_s: int, last_s: int | None, expected_s: int) -> None:
    last = None if last_s is None else last_s << 20 | 0xFFFFF
    assert epoch_seconds(next_epoch(last, now_s, REGISTERED_S)) == expected_s


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20))
def test_epochs_grow_whatever_the_clock_shows(clock: list[int]) -> None:
    epochs: list[int] = []
    for now_s in clock:
        epochs.append(next_epoch(epochs[-1] if epochs else None, now_s, REGISTERED_S))
    assert epochs == sorted(set(epochs))
    assert 1 <= epochs[0] <= epochs[-1] <= MAX_COUNT


def test_a_hub_without_a_battery_clock_stays_within_its_assignment() -> None:
    """The clinic assigns the subject from the registration on: an earlier epoch would be set aside."""
    earlier = (BOOT_S - DAY_S) << 20
    assert epoch_seconds(next_epoch(earlier, BOOT_S - DAY_S + 7, registered_s=BOOT_S)) == BOOT_S
    assert epoch_seconds(next_epoch(None, 0, registered_s=BOOT_S)) == BOOT_S


def test_there_is_no_epoch_above_the_limit() -> None:
    with pytest.raises(PermanentError, match="highest"):
        next_epoch(MAX_COUNT, BOOT_S, REGISTERED_S)


def test_each_opening_begins_an_epoch(open_outbox: OpenOutbox) -> None:
    clock = Clock()
    seconds = []
    for now in (BOOT_S, BOOT_S, BOOT_S - 100, BOOT_S + 50):
        clock.now = now
        seconds.append(epoch_seconds(open_outbox(clock=clock).epoch))
    assert seconds == [BOOT_S, BOOT_S + 1, BOOT_S + 2, BOOT_S + 50]


def test_the_first_block_of_a_utc_day_begins_an_epoch(open_outbox: OpenOutbox) -> None:
    clock = Clock(MIDNIGHT - 2)
    outbox = open_outbox(clock=clock)
    first = outbox.put("vital", b"a")
    clock.now = MIDNIGHT - 1
    assert outbox.put("vital", b"b").epoch == first.epoch
    clock.now = MIDNIGHT + 7
    third = outbox.put("vital", b"c")
    assert (epoch_seconds(third.epoch), third.seq, outbox.epoch) == (MIDNIGHT + 7, 1, third.epoch)
    assert outbox.clinic_view().previous_epoch == first.epoch
    assert find_block(outbox, third).key != find_block(outbox, first).key
    clock.now = MIDNIGHT - 1  # a clock that goes back does not begin one
    assert outbox.put("vital", b"d") == third._replace(seq=2)


@pytest.mark.parametrize("now", [0, REGISTERED_S - 1, BOOT_S + CLOCK_LEAP_S + DAY_S])
def test_a_wrong_clock_changes_neither_epoch_nor_day(open_outbox: OpenOutbox, now: int) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock)
    first = outbox.put("vital", b"a")
    clock.now = now
    assert outbox.put("vital", b"b") == first._replace(seq=2)
    reopened = open_outbox(clock=clock)
    assert sealing_day(reopened.epoch) == BOOT_S // DAY_S


@pytest.mark.parametrize(
    ("steps_s", "advance_s"),
    [
        ([600], 600),
        ([600, -300, 100], 700),
        ([-1], 0),
        ([DAY_S], DAY_S),
        ([DAY_S + 1, 5], 5),
        ([BOOT_S], BOOT_S),  # the clock is right now
        ([BOOT_S + 2 * CLOCK_LEAP_S, 5], 5),
    ],
)
def test_a_wrong_clock_goes_on_from_the_begin_of_the_epoch(steps_s: list[int], advance_s: int) -> None:
    clock = Clock(0)
    hub_clock = HubClock(clock, REGISTERED_S)
    epoch = hub_clock.next_epoch(None)
    for step_s in steps_s:
        clock.now += step_s
        now_s = hub_clock.now_s(epoch)
    assert now_s == (BOOT_S if advance_s == BOOT_S else REGISTERED_S + advance_s)


def test_a_rolled_back_buffer_uses_no_epoch_twice(tmp_path: Path) -> None:
    path, backup = tmp_path / "outbox.db", tmp_path / "backup.db"
    clock = Clock()
    outbox = open_at(path, clock=clock)
    outbox.put_many([("vital", b"before"), ("wave", b"before")])
    outbox.close()
    shutil.copy(path, backup)
    used = []
    for _ in range(3):
        outbox = open_at(path, clock=clock)
        outbox.put_many([("vital", b"a"), ("vital", b"b"), ("wave", b"c")])
        used += [block.id for block in all_pending(outbox) if block.id.epoch == outbox.epoch]
        outbox.close()
        shutil.copy(backup, path)
    assert len(set(used)) == len(used) == 9


def test_a_copied_buffer_uses_other_epochs(tmp_path: Path) -> None:
    path, copy = tmp_path / "outbox.db", tmp_path / "copy.db"
    open_at(path).close()
    shutil.copy(path, copy)
    first, second = open_at(path), open_at(copy)
    assert first.epoch != second.epoch
    assert first.clinic_view().previous_epoch == second.clinic_view().previous_epoch  # how the clinic notices
    first.close()
    second.close()
