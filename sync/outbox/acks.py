"""Applies the clinic's acknowledgements and receipts to the outbox. Their signatures must have been verified.

`docs/protocol.md`, "The hub", is the reference. A block changes only by an answer that names its digest, or by a mark with a
chain value that the hub computed itself.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Final

from sync.consent import NO_CONSENT
from sync.message_rows import Held, Mark, Outcome
from sync.messages import Ack, Receipt
from sync.outbox.block_tables import Answer, BlockRow, BlockSequence, BlockTables
from sync.outbox.database import OutboxDatabase
from sync.outbox.keys import OutboxKeys
from sync.outbox.room import delete_passed_ranges, list_dropped, range_chain
from sync.versions import OUTDATED
from sync.wire import FENCE_STEP_LIMIT, UNKNOWN_CHAIN, BlockId, Lane

FIRST_FENCE_LIMIT: Final = 2**32
"""The fence of a hub's first store is below this."""
MARK_LIMIT_BLOCKS: Final = 2000
"""Blocks that one mark settles. It bounds the time of a transaction; the clinic's next mark settles more."""
UNOPENED_S: Final = 600
"""Seconds after which an acknowledged alert or vital sign without a receipt is sent again (`docs/protocol.md`)."""
UNOPENED_LIMIT_BLOCKS: Final = 1000
"""Blocks that become pending again in one transaction."""
ERASED: Final = "erased"


@dataclass(frozen=True, slots=True)
class Applied:
    """What a message of the clinic changed. If it was not `accepted`, nothing changed, and `problem` says why.

    `settled` are blocks that need not be sent any more. `released`, `aside` and `refused` count blocks that are so now.
    `is_new_store`: the clinic has another store, or restored the known one from a backup; every other block is pending again.
    `problem` is also set if a part of the message was ignored.
    """

    accepted: bool
    settled: tuple[BlockId, ...] = ()
    released: int = 0
    aside: int = 0
    refused: int = 0
    is_new_store: bool = False
    problem: str | None = None


@dataclass(slots=True)
class _Result:
    settled: set[BlockId] = field(default_factory=set)
    released: int = 0
    aside: int = 0
    refused: int = 0
    mismatched: int = 0


class OutboxAcks:
    """Applies messages. Call the methods in a transaction."""

    def __init__(self, database: OutboxDatabase, tables: BlockTables, keys: OutboxKeys, hub: str) -> None:
        self._database = database
        self._tables = tables
        self._keys = keys
        self._hub = hub

    def apply_ack(self, ack: Ack, sent: Container[BlockId], now_s: int) -> Applied:
        problem = self._check(ack)
        if problem is not None:
            return Applied(accepted=False, problem=problem)
        is_new = self._accept_store(ack, ack.commits, ack.marks)
        result = _Result()
        for mark in ack.marks:
            self._apply_mark(mark, sent, now_s, result)
        for held in ack.held:
            self._apply_held(held, _answer_to_held(held.lane), now_s, result)
        self._apply_outcomes(ack, now_s, result)
        self._keys.confirm(ack.keys, ack.wraps)
        return _applied(result, is_new=is_new)

    def apply_receipt(self, receipt: Receipt, now_s: int) -> Applied:
        problem = self._check(receipt)
        if problem is not None:
            return Applied(accepted=False, problem=problem)
        is_new = self._accept_store(receipt, 0)
        result = _Result()
        for opened in receipt.opened:
            self._apply_held(opened, Answer.RELEASED, now_s, result, is_opened=True)
        self._apply_outcomes(receipt, now_s, result)
        return _applied(result, is_new=is_new)

    def requeue_unopened(self, now_s: int) -> int:
        """Make blocks pending again that were acknowledged `UNOPENED_S` ago and have no receipt. Returns how many."""
        count = 0
        for sequence in self._tables.where("unopened > 0"):
            rows = self._tables.read_answered(sequence, (Answer.HELD,), UNOPENED_LIMIT_BLOCKS - count)
            overdue = [row for row in rows if not now_s - UNOPENED_S < row.since <= now_s]
            self._tables.answer(sequence, overdue, None, now_s)
            count += len(overdue)
        return count

    def _check(self, message: Ack | Receipt) -> str | None:
        """Why the message is not accepted; None if it is."""
        if message.hub != self._hub:
            return f"a message for hub {message.hub} arrived at hub {self._hub}; ignored"
        store, fence = self._database.rows("SELECT store, fence FROM buffer")[0]
        if store is None:
            is_valid, expected = message.fence < FIRST_FENCE_LIMIT, f"below {FIRST_FENCE_LIMIT}"
        elif store == message.store:
            is_valid, expected = message.fence == fence, str(fence)
        else:
            is_valid = fence < message.fence <= fence + FENCE_STEP_LIMIT
            expected = f"from {fence + 1} to {fence + FENCE_STEP_LIMIT}"
        if is_valid:
            return None
        return (
            f"a message of the clinic's store {message.store.hex()} has the fence {message.fence}, expected {expected};"
            " ignored. If it persists, the clinic's store was replaced by an old one: see `pulsegate-cloud` there"
        )

    def _accept_store(self, message: Ack | Receipt, commits: int, marks: Sequence[Mark] = ()) -> bool:
        """Record the message's store. Returns whether it replaces another one, or was restored from a backup."""
        known, counted = self._database.rows("SELECT store, commits FROM buffer")[0]
        is_other = known != message.store
        if not is_other and commits <= counted:
            return False
        update = "UPDATE buffer SET store = ?, fence = ?, commits = ?"
        self._database.execute(update, message.store, message.fence, commits)
        if known is None or not (is_other or any(map(self._is_lower, marks))):
            return False
        self._tables.begin_generation()
        self._keys.forget_confirmations()
        return True

    def _is_lower(self, mark: Mark) -> bool:
        """Whether a mark is lower than one that was accepted before: marks of a store never go back."""
        query = "SELECT 1 FROM sequences WHERE lane = ? AND epoch = ? AND mark > ?"
        return self._database.row(query, mark.lane, mark.epoch, mark.seq) is not None

    def _apply_mark(self, mark: Mark, sent: Container[BlockId], now_s: int, result: _Result) -> None:
        sequence = self._tables.find(mark.lane, mark.epoch)
        if sequence is None or not 1 <= mark.seq <= sequence.last:
            return
        chain = self._chain_at(sequence, mark.seq)
        if mark.lane == "archive" or chain == UNKNOWN_CHAIN:  # it settles no block, but the clinic waits for none before
            self._record_mark(sequence, mark.seq)
            return
        if chain != mark.chain:
            result.mismatched += chain is not None  # else its block was deleted, and the next mark will do
            return
        rows = self._tables.read_pending(sequence, MARK_LIMIT_BLOCKS, mark.seq)
        pending = [row for row in rows if BlockId(mark.lane, mark.epoch, row.seq) in sent]
        self._settle(sequence, pending, _answer_to_held(mark.lane), now_s, result)
        self._record_mark(sequence, mark.seq)

    def _record_mark(self, sequence: BlockSequence, seq: int) -> None:
        update = "UPDATE sequences SET mark = ? WHERE id = ? AND mark < ?"
        self._database.execute(update, seq, sequence.id, seq)
        delete_passed_ranges(self._database, sequence, seq)

    def _chain_at(self, sequence: BlockSequence, seq: int) -> bytes | None:
        """The chain value that the hub computed for a block; None if it has forgotten it."""
        if seq == sequence.last:
            return sequence.chain
        rows = self._tables.read(sequence, seq, seq)
        return rows[0].chain if rows else range_chain(self._database, sequence, seq)

    def _apply_held(self, held: Held, answer: Answer, now_s: int, result: _Result, *, is_opened: bool = False) -> None:
        sequence = self._tables.find(held.lane, held.epoch)
        if sequence is None:
            return
        rows = self._tables.read(sequence, held.first, held.first + len(held.digests) - 1)
        named = [row for row in rows if row.digest == held.digests[row.seq - held.first]]
        result.mismatched += len(rows) - len(named)
        result.settled.update(BlockId(held.lane, held.epoch, row.seq) for row in named)
        present = [(row, self._tables.answer_of(row.state)) for row in named]
        changed = [row for row, now in present if now is None or (is_opened and now is not answer)]
        self._settle(sequence, changed, answer, now_s, result)

    def _settle(self, sequence: BlockSequence, rows: Sequence[BlockRow], answer: Answer, now_s: int, result: _Result) -> None:
        self._tables.answer(sequence, rows, answer, now_s)
        result.settled.update(BlockId(sequence.lane, sequence.epoch, row.seq) for row in rows)
        result.released += len(rows) if answer is Answer.RELEASED else 0

    def _apply_outcomes(self, message: Ack | Receipt, now_s: int, result: _Result) -> None:
        for outcome in message.aside:
            found = self._find_named(outcome, result)
            if found is not None and self._tables.answer_of(found[1].state) is not Answer.ASIDE:
                self._tables.answer(found[0], [found[1]], Answer.ASIDE, now_s)
                result.aside += 1
        subjects: set[str] = set()
        for outcome in message.refused:
            if outcome.reason == OUTDATED:
                continue  # the block stays pending for an agent that was updated
            found = self._find_named(outcome, result)
            if found is not None:
                if outcome.reason == NO_CONSENT:  # later blocks of the sequence may be sent again
                    list_dropped(self._database, found[0], [found[1]])
                self._tables.delete(found[0], [found[1]], "refused")
                result.refused += 1
                key = self._keys.stored.get(found[1].key)
                subjects |= {key.subject} if key is not None and outcome.reason == ERASED else set()
        for subject in subjects:
            self._keys.erase(subject)

    def _find_named(self, outcome: Outcome, result: _Result) -> tuple[BlockSequence, BlockRow] | None:
        """The block of an outcome, if the outcome names its digest."""
        sequence = self._tables.find(outcome.lane, outcome.epoch)
        rows = self._tables.read(sequence, outcome.seq, outcome.seq) if sequence is not None else []
        if sequence is None or not rows:
            return None
        if rows[0].digest != outcome.digest:
            result.mismatched += 1
            return None
        result.settled.add(BlockId(*outcome[:3]))
        return sequence, rows[0]


def _answer_to_held(lane: Lane) -> Answer:
    """What it means for a block that the clinic holds it."""
    return Answer.HELD if lane in ("alert", "vital") else Answer.RELEASED


def _applied(result: _Result, *, is_new: bool) -> Applied:
    problem = f"{result.mismatched} answers of the clinic name other bytes than the hub stored; ignored"
    return Applied(
        accepted=True,
        settled=tuple(sorted(result.settled)),
        released=result.released,
        aside=result.aside,
        refused=result.refused,
        is_new_store=is_new,
        problem=problem if result.mismatched else None,
    )
