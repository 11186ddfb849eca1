"""The tables of sealed blocks: one row for each block, and one for each sequence, the blocks of a lane in an epoch.

A row's `state` is the clinic's answer together with the generation, the number of the store that gave it. When the clinic has
another store, the generation grows, and every block is pending again without a change of its row.

Only the functions here change these tables. Call them in a transaction; after a rollback call `load`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from sync.errors import DamagedBufferError
from sync.outbox.database import OutboxDatabase
from sync.seal import LaneEnd
from sync.wire import MAX_COUNT, BlockId, Lane

SEQ_BITS: Final = 32
"""A block's `id` in its table is sequence << 32 | seq."""
_SEQ_MASK: Final = (1 << SEQ_BITS) - 1
NO_ANSWER: Final = 2
"""The state of a block without any answer. States from 2 to 127 have the same size in SQLite, so that a change of state writes
one page and not the whole block."""
WITHHELD: Final = 3
"""The state of a block in `archive` that the clinic has not requested. It stays when the clinic's store changes."""
_ANSWERS: Final = 4


class Answer(IntEnum):
    """What the clinic answered for a block; None while the block is pending."""

    HELD = 1
    """Acknowledged; the receipt is missing (lanes alert and vital)."""
    RELEASED = 2
    ASIDE = 3


_COLUMNS: Final = {None: "pending", Answer.HELD: "unopened", Answer.RELEASED: "released", Answer.ASIDE: "aside"}
_OPEN: Final = (None, Answer.HELD)
"""Answers of blocks that still wait for the clinic."""
_COUNTED: Final = ("pending", "unopened", "released", "aside", "refused", "dropped", "bytes", "open_bytes")
_ADD: Final = f"UPDATE sequences SET {', '.join(f'{name} = {name} + ?' for name in _COUNTED)} WHERE id = ?"


def _counts_as_open(lane: Lane) -> bool:
    """Whether blocks of a lane that wait for the clinic fill the buffer: those of `archive` go first, whatever waits."""
    return lane != "archive"


class BlockSequence(NamedTuple):
    """The blocks of a lane in an epoch: 1 … `last`, and the chain value there. None before `open_from` waits for the clinic."""

    id: int
    lane: Lane
    epoch: int
    last: int
    chain: bytes
    open_from: int

    def row_id(self, seq: int) -> int:
        return self.id << SEQ_BITS | seq


class BlockRow(NamedTuple):
    """What the buffer knows of a stored block. `state` is of the table; `size` is the length of the sealed block."""

    row_id: int
    state: int
    since: int
    key: int
    digest: bytes
    chain: bytes
    size: int

    @property
    def seq(self) -> int:
        return self.row_id & _SEQ_MASK


class SealedRow(NamedTuple):
    """A stored block with its bytes."""

    id: BlockId
    row_id: int
    key: int
    digest: bytes
    sealed: bytes


_ROW: Final = "id, state, since, key, digest, chain, length(sealed)"
_SEQUENCE: Final = "SELECT id, lane, epoch, last, chain, open_from FROM sequences"


class BlockTables:
    """Reads and changes the rows of blocks and keeps their counts. `bytes` and `open_bytes` are the totals."""

    def __init__(self, database: OutboxDatabase) -> None:
        self._database = database
        self._pending_from: dict[int, int] = {}
        """By id of a sequence: no block before this number is pending. It spares reading those that wait for a receipt."""
        self.load()

    def load(self) -> None:
        """Read what is kept in memory."""
        generation, stored, waiting = self._database.rows(
            "SELECT generation, (SELECT total(bytes) FROM sequences), (SELECT total(open_bytes) FROM sequences) FROM buffer"
        )[0]
        self._pending_from.clear()
        self.generation = int(generation)
        self.bytes = int(stored)
        self.open_bytes = int(waiting)

    def answer_of(self, state: int) -> Answer | None:
        """The present store's answer for a block; None for one that is pending or withheld.

        Raises:
            DamagedBufferError: no row can have this state.
        """
        if not is_possible_state(state):
            raise DamagedBufferError(f"the buffer {self._database.path} is damaged: a block has the impossible state {state}")
        return Answer(state % _ANSWERS) if self._is_answered(state) else None

    def find(self, lane: Lane, epoch: int) -> BlockSequence | None:
        row = self._database.row(f"{_SEQUENCE} WHERE lane = ? AND epoch = ?", lane, epoch)
        return BlockSequence(*row) if row else None

    def find_by_id(self, id_: int) -> BlockSequence:
        return BlockSequence(*self._database.rows(f"{_SEQUENCE} WHERE id = ?", id_)[0])

    def where(self, condition: str, *values: object) -> list[BlockSequence]:
        """The sequences that meet a condition on their columns, oldest epoch first, and of an epoch `wave` before `vital`."""
        rows = self._database.rows(f"{_SEQUENCE} WHERE {condition} ORDER BY epoch, lane DESC", *values)
        return [BlockSequence(*row) for row in rows]

    def end_before(self, lane: Lane, epoch: int) -> LaneEnd | None:
        """The end of the lane's last epoch before this one."""
        query = "SELECT epoch, last, chain FROM sequences WHERE lane = ? AND epoch < ? ORDER BY epoch DESC LIMIT 1"
        row = self._database.row(query, lane, epoch)
        return LaneEnd(*row) if row else None

    def append(self, sequence: BlockSequence, blocks: Sequence[tuple[int, bytes, bytes, bytes]], now_s: int) -> None:
        """Store blocks (key, digest, chain, sealed) that end at `sequence.last`. A sequence with the id 0 is new."""
        if sequence.id == 0:
            insert = "INSERT INTO sequences (lane, epoch, last, chain) VALUES (?, ?, ?, ?)"
            cursor = self._database.execute(insert, sequence.lane, sequence.epoch, sequence.last, sequence.chain)
            sequence = sequence._replace(id=cursor.lastrowid or 0)
        first = sequence.row_id(sequence.last - len(blocks) + 1)
        size = sum(len(block[3]) for block in blocks)
        is_open = _counts_as_open(sequence.lane)
        state, n_pending, open_size = (NO_ANSWER, len(blocks), size) if is_open else (WITHHELD, 0, 0)
        self._database.execute_many(
            f"INSERT INTO blocks_{sequence.lane} VALUES (?, {state}, {now_s}, ?, ?, ?, ?)",
            [(row_id, *block) for row_id, block in enumerate(blocks, first)],
        )
        update = """UPDATE sequences SET last = ?, chain = ?, pending = pending + ?, bytes = bytes + ?,
                    open_bytes = open_bytes + ? WHERE id = ?"""
        self._database.execute(update, sequence.last, sequence.chain, n_pending, size, open_size, sequence.id)
        self.bytes += size
        self.open_bytes += open_size

    def read(self, sequence: BlockSequence, first: int, last: int, *, limit: int = -1) -> list[BlockRow]:
        """The stored blocks first … last, in order."""
        query = f"SELECT {_ROW} FROM blocks_{sequence.lane} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
        first, last = max(first, 1), min(last, sequence.last)
        rows = self._database.rows(query, sequence.row_id(first), sequence.row_id(last), limit)
        return [BlockRow(*row) for row in rows]

    def read_after(self, lane: Lane, row_id: int, limit: int) -> list[BlockRow]:
        """The next rows of a lane's table."""
        query = f"SELECT {_ROW} FROM blocks_{lane} WHERE id > ? ORDER BY id LIMIT ?"
        return [BlockRow(*row) for row in self._database.rows(query, row_id, limit)]

    def read_sealed_after(self, lane: Lane, row_id: int, limit: int) -> list[tuple[BlockRow, bytes]]:
        """The next rows of a lane's table with their blocks."""
        query = f"SELECT {_ROW}, sealed FROM blocks_{lane} WHERE id > ? ORDER BY id LIMIT ?"
        return [(BlockRow(*values), sealed) for *values, sealed in self._database.rows(query, row_id, limit)]

    def read_answered(self, sequence: BlockSequence, answers: Sequence[Answer], limit: int) -> list[BlockRow]:
        """The oldest blocks of a sequence with one of these answers."""
        first = sequence.open_from if all(answer in _OPEN for answer in answers) else 1
        return self._read_where(sequence, " OR ".join(map(self._condition, answers)), first, sequence.last, limit)

    def read_pending(self, sequence: BlockSequence, limit: int, until: int | None = None) -> list[BlockRow]:
        """The oldest pending blocks of a sequence, at most `limit` (1 or more), up to a number.

        Those before the first pending one, however many wait for a receipt, are read once and not in each call.
        """
        last = sequence.last if until is None else min(until, sequence.last)
        found = self._read_where(sequence, self._condition(None), self._first_pending(sequence), last, limit)
        self._pending_from[sequence.id] = found[0].seq if found else max(self._first_pending(sequence), last + 1)
        return found

    def _read_where(self, sequence: BlockSequence, condition: str, first: int, last: int, limit: int) -> list[BlockRow]:
        query = f"SELECT {_ROW} FROM blocks_{sequence.lane} WHERE id BETWEEN ? AND ? AND ({condition}) ORDER BY id LIMIT ?"
        rows = self._database.rows(query, sequence.row_id(first), sequence.row_id(last), limit)
        return [BlockRow(*row) for row in rows]

    def _first_pending(self, sequence: BlockSequence) -> int:
        """A number before which no block is pending."""
        return max(sequence.open_from, self._pending_from.get(sequence.id, 1))

    def read_withheld(self, sequence: BlockSequence, limit: int, since: tuple[int, int] = (0, MAX_COUNT)) -> list[BlockRow]:
        """The oldest withheld blocks of a sequence that were stored in a time (first and last second)."""
        query = f"""SELECT {_ROW} FROM blocks_{sequence.lane} WHERE id BETWEEN ? AND ? AND state = {WITHHELD}
                    AND since BETWEEN ? AND ? ORDER BY id LIMIT ?"""
        bounds = sequence.row_id(1), sequence.row_id(sequence.last)
        return [BlockRow(*row) for row in self._database.rows(query, *bounds, *since, limit)]

    def iterate_pending(
        self, lane: Lane, after: tuple[int, int], until: tuple[int, int], *, without_keys: Sequence[int]
    ) -> Iterator[SealedRow]:
        """Pending blocks of a lane in order: after one position (epoch, seq), not after another, and not of these keys."""
        omitted = ", ".join(map(str, without_keys))
        query = f"""SELECT id, key, digest, sealed FROM blocks_{lane}
                    WHERE id BETWEEN ? AND ? AND {self._condition(None)} AND key NOT IN ({omitted}) ORDER BY id"""
        for sequence in self.where("lane = ? AND pending > 0 AND epoch BETWEEN ? AND ?", lane, after[0], until[0]):
            first = after[1] + 1 if sequence.epoch == after[0] else 1
            if first <= self._first_pending(sequence):
                self.read_pending(sequence, 1)  # notes where the first one is
                first = self._first_pending(sequence)
            last = min(sequence.last, until[1]) if sequence.epoch == until[0] else sequence.last
            cursor = self._database.execute(query, sequence.row_id(first), sequence.row_id(last))
            for row_id, *values in cursor:
                yield SealedRow(BlockId(lane, sequence.epoch, row_id & _SEQ_MASK), row_id, *values)

    def has_open(self, key: int) -> bool:
        """Whether a block of this key waits for the clinic."""
        for sequence in self.where("pending + unopened > 0"):
            query = f"""SELECT 1 FROM blocks_{sequence.lane} WHERE id BETWEEN ? AND ? AND key = ?
                        AND ({self._condition(None)} OR {self._condition(Answer.HELD)}) LIMIT 1"""
            bounds = sequence.row_id(sequence.open_from), sequence.row_id(sequence.last)
            if self._database.rows(query, *bounds, key):
                return True
        return False

    def answer(self, sequence: BlockSequence, rows: Sequence[BlockRow], answer: Answer | None, now_s: int) -> None:
        """Record an answer for blocks; None makes them pending, also withheld ones."""
        if not rows:
            return
        state = NO_ANSWER if answer is None else self.generation * _ANSWERS + answer
        update = f"UPDATE blocks_{sequence.lane} SET state = ?, since = ? WHERE id = ?"
        self._database.execute_many(update, [(state, now_s, row.row_id) for row in rows])
        counts = self._uncount(sequence, rows)
        counts[_COLUMNS[answer]] += len(rows)
        size = sum(row.size for row in rows)
        counts["bytes"] += size
        counts["open_bytes"] += size if answer in _OPEN and _counts_as_open(sequence.lane) else 0
        self._add(sequence, counts)
        if answer is None:
            self._pending_from[sequence.id] = min(self._first_pending(sequence), rows[0].seq)
        self._advance_open_from(sequence, min(rows[0].seq, sequence.open_from) if answer is None else None)

    def delete(self, sequence: BlockSequence, rows: Sequence[BlockRow], counter: str | None = None) -> None:
        """Delete blocks; `counter` is `refused` or `dropped` if the clinic does not have them."""
        if not rows:
            return
        self._database.execute_many(f"DELETE FROM blocks_{sequence.lane} WHERE id = ?", [(row.row_id,) for row in rows])
        counts = self._uncount(sequence, rows)
        if counter is not None:
            counts[counter] += len(rows)
        self._add(sequence, counts)
        self._advance_open_from(sequence)

    def begin_generation(self) -> None:
        """Make every block pending, because the clinic has another store."""
        self._database.execute("UPDATE buffer SET generation = generation + 1")
        self._database.execute(
            """UPDATE sequences SET pending = pending + unopened + released + aside, unopened = 0, released = 0, aside = 0,
               open_bytes = CASE lane WHEN 'archive' THEN 0 ELSE bytes END, open_from = 1, mark = 0"""
        )
        self.load()

    def _is_answered(self, state: int) -> bool:
        return state >= self.generation * _ANSWERS

    def _condition(self, answer: Answer | None) -> str:
        """A condition on rows, in SQL."""
        lowest = self.generation * _ANSWERS
        return f"(state < {lowest} AND state <> {WITHHELD})" if answer is None else f"state = {lowest + answer}"

    def _uncount(self, sequence: BlockSequence, rows: Iterable[BlockRow]) -> Counter[str]:
        """What the counts lose with these rows."""
        counts: Counter[str] = Counter()
        for row in rows:
            counts["bytes"] -= row.size
            if row.state == WITHHELD:
                continue
            answer = self.answer_of(row.state)
            counts[_COLUMNS[answer]] -= 1
            counts["open_bytes"] -= row.size if answer in _OPEN and _counts_as_open(sequence.lane) else 0
        return counts

    def _add(self, sequence: BlockSequence, counts: Counter[str]) -> None:
        self._database.execute(_ADD, *(counts[name] for name in _COUNTED), sequence.id)
        self.bytes += counts["bytes"]
        self.open_bytes += counts["open_bytes"]

    def _advance_open_from(self, sequence: BlockSequence, first: int | None = None) -> None:
        """Skip the blocks that no longer wait for the clinic. `first` is where to begin, if not where the skipped ones end."""
        query = f"""SELECT id FROM blocks_{sequence.lane} WHERE id BETWEEN ? AND ?
                    AND ({self._condition(None)} OR {self._condition(Answer.HELD)}) ORDER BY id LIMIT 1"""
        row = self._database.row(query, sequence.row_id(first or sequence.open_from), sequence.row_id(sequence.last))
        seq = sequence.last + 1 if row is None else row[0] & _SEQ_MASK
        if seq != sequence.open_from:
            self._database.execute("UPDATE sequences SET open_from = ? WHERE id = ?", seq, sequence.id)


def is_possible_state(state: int) -> bool:
    """Whether a row of an undamaged buffer can have this state."""
    return state in (NO_ANSWER, WITHHELD) or (state > _ANSWERS and state % _ANSWERS != 0)


def sequence_of(row_id: int) -> int:
    """The id of the sequence of a row."""
    return row_id >> SEQ_BITS
