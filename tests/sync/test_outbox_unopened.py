"""A clinic whose opener is down for days: what waits for a receipt costs the hub nothing at each acknowledgement.

Work is counted in SQLite's instructions: they grow with each row that is read.
"""

from collections.abc import Callable

import pytest

from sync.message_rows import Held, Mark
from sync.outbox import Outbox
from sync.uplink import MESSAGE_BLOCKS_LIMIT_BYTES
from tests.sync.outboxes import EVERY_BLOCK, OTHER_STORE, ack, all_pending, held, mark_at

OpenOutbox = Callable[..., Outbox]
FEW, MANY = 20, 1500
"""Blocks that wait for a receipt."""


def count_instructions(outbox: Outbox, action: Callable[[], object]) -> int:
    """The instructions that SQLite executes in an action."""
    count = 0

    def add() -> int:
        nonlocal count
        count += 1
        return 0

    outbox._database.connection.set_progress_handler(add, 1)
    try:
        action()
    finally:
        outbox._database.connection.set_progress_handler(None, 1)
    return count


def acknowledge(outbox: Outbox, n: int) -> None:
    """Store vital signs, and let the clinic hold them; none of them is opened."""
    outbox.put_many([("vital", b"%d" % i) for i in range(n)])
    outbox.apply_ack(ack(commits=n, marks=(mark_at(outbox, "vital"),)), EVERY_BLOCK)
    assert not all_pending(outbox)


def apply_next(outbox: Outbox) -> Callable[[], object]:
    """Store three vital signs; return the application of an acknowledgement of them."""
    outbox.put_many([("vital", b"next")] * 3)
    blocks = all_pending(outbox, ["vital"])
    message = ack(commits=MANY + 1, held=held(*blocks), marks=(mark_at(outbox, "vital"),))
    return lambda: outbox.apply_ack(message, {block.id for block in blocks})


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(apply_next, id="an acknowledgement"),
        pytest.param(lambda outbox: outbox.statistics, id="the statistics"),
        pytest.param(lambda outbox: lambda: outbox.pending("vital", (0, 0), MESSAGE_BLOCKS_LIMIT_BYTES), id="the next message"),
    ],
)
def test_work_does_not_grow_with_what_waits_for_a_receipt(
    open_outbox: OpenOutbox, prepare: Callable[[Outbox], Callable[[], object]]
) -> None:
    outbox, counts = open_outbox(), list[int]()
    for n in (FEW, MANY - FEW):
        acknowledge(outbox, n)
        outbox.put("vital", b"pending")
        outbox.statistics()  # after the start, and after a rollback, what waits is read once
        counts.append(count_instructions(outbox, prepare(outbox)))
    assert outbox.statistics().unopened >= MANY - FEW
    assert counts[1] <= counts[0] + 20


def test_a_mark_settles_what_became_pending_again(open_outbox: OpenOutbox) -> None:
    """The place of the first pending block goes back with it."""
    outbox = open_outbox()
    acknowledge(outbox, 5)
    assert outbox.statistics().pending["vital"] == 0
    outbox.apply_ack(ack(OTHER_STORE, 8))
    blocks = all_pending(outbox, ["vital"])
    assert [block.id.seq for block in blocks] == [1, 2, 3, 4, 5]
    chain = outbox._tables.read(outbox._tables.where("lane = 'vital'")[0], 3, 3)[0].chain
    mark = Mark("vital", outbox.epoch, 3, chain)
    settled = outbox.apply_ack(ack(OTHER_STORE, 8, commits=2, marks=(mark,)), {block.id for block in blocks[1:]}).settled
    assert [id_.seq for id_ in settled] == [2, 3]
    outbox.apply_ack(ack(OTHER_STORE, 8, commits=3, held=(Held("vital", outbox.epoch, 5, held(blocks[4])[0].digests),)))
    assert [block.id.seq for block in all_pending(outbox, ["vital"])] == [1, 4]


def test_a_block_that_is_sent_again_is_pending_in_its_place(open_outbox: OpenOutbox) -> None:
    clock_s = [1_790_000_000]
    outbox = open_outbox(clock=lambda: clock_s[0])
    acknowledge(outbox, 3)
    outbox.put("vital", b"later")
    assert [block.id.seq for block in all_pending(outbox, ["vital"])] == [4]
    clock_s[0] += 601
    assert outbox.requeue_unopened() == 3
    assert [block.id.seq for block in all_pending(outbox, ["vital"])] == [1, 2, 3, 4]
