"""Makes a new buffer of what is readable in a damaged one, and lists the rest as dropped.

A block proves itself by its digest, and its header names it. Blocks keep their numbers, so the clinic's account closes. What is
missing and was not acknowledged is listed as the clinic expects it of blocks that were deleted to make room.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

from sync.chain import block_digest, extend_chain
from sync.errors import DiskFullError
from sync.keys import HubKeys
from sync.outbox.block_tables import NO_ANSWER, SEQ_BITS, WITHHELD, Answer, is_possible_state
from sync.outbox.database import OutboxDatabase
from sync.outbox.epochs import CLOCK_LEAP_S
from sync.outbox.header_templates import HeaderTemplates
from sync.outbox.pages import PageFile, RawRow, possible_page_sizes
from sync.outbox.reserve import free_bytes
from sync.outbox.salvaged_rows import DroppedRow, SalvagedRows, SequenceRow, blob_type, find_rows, holds_key_of
from sync.outbox.stored_headers import restore_header
from sync.seal import BlockHeader, LaneEnd, SealError, parse_header
from sync.wire import DIGEST_BYTES, EPOCH_RANDOM_BITS, LANES, UNKNOWN_CHAIN, BlockId, Lane

KEPT_FREE_BYTES: Final = 8 * 1024 * 1024
"""Waveforms are not salvaged into the last room of the disk: alerts, the WAL and the reserve need it."""
_STEP_BLOCKS: Final = 128
"""Blocks that one transaction stores, and between two looks at the disk: less than 1 MB of a strap's blocks."""
_SEQ_MASK: Final = (1 << SEQ_BITS) - 1
_STEPS: Final[tuple[tuple[Lane, ...], ...]] = (("alert",), ("vital",), ("wave", "archive"))
"""The lanes, in the order in which they are salvaged: the disk may become full."""
_LOSSY: Final = ("wave", "archive")


@dataclass(frozen=True, slots=True)
class Salvaged:
    """How many blocks were kept, and how many were listed as dropped. `was_disk_full`: some were readable and had no room."""

    kept: int
    lost: int
    was_disk_full: bool = False


class _Known(NamedTuple):
    """What is known of a block, kept or not."""

    state: int
    digest: bytes
    chain: bytes


@dataclass(slots=True)
class _Blocks:
    """What is known of the blocks while they are read."""

    sequences: dict[tuple[Lane, int], SequenceRow] = field(default_factory=dict)
    """The sequences by lane and epoch. Those whose row was lost begin with their blocks."""
    ends: dict[tuple[Lane, int], LaneEnd] = field(default_factory=dict)
    """The ends of sequences that the first block of a later epoch names."""
    damaged: dict[int, _Known] = field(default_factory=dict)
    """Blocks that cannot be kept, by the id of their row."""
    was_disk_full: bool = False


class BlockSalvage:
    """Copies the blocks of a damaged buffer, then lists what is missing."""

    def __init__(self, pages: PageFile, database: OutboxDatabase, hub: str, rows: SalvagedRows) -> None:
        self._pages = pages
        self._database = database
        self._hub = hub
        self._rows = rows
        self._templates = HeaderTemplates(hub)
        self._numbers = {key.number: key for key in rows.keys.values()}
        self._blocks = _Blocks({(row.lane, row.epoch): row for row in rows.sequences.values()})

    def run(self) -> Salvaged:
        """Copy and list. Returns the counts.

        Raises:
            DiskFullError: not even the tables without the blocks have room.
        """
        for lanes in _STEPS:
            rows = (stored for row in self._pages.rows(_is_block) if (stored := self._check(row, lanes)))
            while step := [stored for _, stored in zip(range(_STEP_BLOCKS), rows, strict=False)]:
                if not self._store(step, is_lossy=lanes[0] in _LOSSY):
                    self._blocks.was_disk_full = True
                    break
        lost = self._database.run(self._list_missing)
        kept = sum(self._database.rows(f"SELECT count(*) FROM blocks_{lane}")[0][0] for lane in LANES)
        return Salvaged(kept, lost, self._blocks.was_disk_full)

    def _check(self, row: RawRow, lanes: Sequence[Lane]) -> tuple[Lane, tuple[Any, ...]] | None:
        """The row to store; None if the block is damaged, of another lane, or nobody can open it."""
        _, state, since, key, digest, chain, sealed = row.values
        if block_digest(sealed) != digest:
            sealed = self._restore(row)
        header = _read_header(sealed) if sealed and block_digest(sealed) == digest else None
        if header is None or header.hub != self._hub or header.key not in self._rows.keys:
            self._blocks.damaged[row.row_id] = _Known(state, digest, chain)
            return None
        if header.prev is not None:
            self._blocks.ends[header.lane, header.prev.epoch] = header.prev
        if header.lane not in lanes:
            return None
        sequence = self._sequence_of(header, row.row_id >> SEQ_BITS)
        if state != WITHHELD and (self._rows.buffer.generation is None or not is_possible_state(state)):
            state = WITHHELD if header.lane == "archive" else NO_ANSWER
        key = self._rows.keys[header.key].number
        return header.lane, (sequence.id << SEQ_BITS | header.seq, state, since, key, digest, chain, sealed)

    def _restore(self, row: RawRow) -> bytes:
        """The block, with its header made again if all that it names is known; empty otherwise."""
        sequence = self._rows.sequences.get(row.row_id >> SEQ_BITS)
        key = self._numbers.get(row.values[3])
        seq = row.row_id & _SEQ_MASK
        if sequence is None or key is None or seq == 1:
            return b""
        template = self._templates.make(BlockId(sequence.lane, sequence.epoch, seq), key.statement.id, key.statement.subject)
        return restore_header(BlockId(sequence.lane, sequence.epoch, seq), template, row.values[6])

    def _sequence_of(self, header: BlockHeader, claimed_id: int) -> SequenceRow:
        known = self._blocks.sequences.get((header.lane, header.epoch))
        if known is None:
            used = {sequence.id for sequence in self._blocks.sequences.values()} | self._rows.sequences.keys()
            id_ = claimed_id if claimed_id not in used else max(used) + 1
            known = SequenceRow(id_, header.lane, header.epoch, 0, UNKNOWN_CHAIN, mark=0, open_from=1, blocks=-1)
            self._blocks.sequences[header.lane, header.epoch] = known
        return known

    def _store(self, step: Sequence[tuple[Lane, tuple[Any, ...]]], *, is_lossy: bool) -> bool:
        """Store blocks; returns whether there was room. A block that was found twice keeps the answer that settles less."""
        if is_lossy and free_bytes(self._database.path) < KEPT_FREE_BYTES:
            return False

        def insert() -> None:
            for lane, stored in step:
                self._database.execute(
                    f"""INSERT INTO blocks_{lane} VALUES (?, ?, ?, ?, ?, ?, ?)
                        ON CONFLICT DO UPDATE SET state = min(state, excluded.state)""",
                    *stored,
                )

        try:
            self._database.run(insert)
        except DiskFullError:
            return False
        return True

    def _list_missing(self) -> int:
        """Write the sequences with their counts and the ranges of missing blocks. Returns how many blocks are missing."""
        dropped = {id_: list(rows) for id_, rows in groupby(sorted(self._rows.dropped), lambda row: row.sequence)}
        return sum(self._finish(sequence, dropped.get(sequence.id, [])) for sequence in self._blocks.sequences.values())

    def _finish(self, sequence: SequenceRow, dropped: Sequence[DroppedRow]) -> int:
        low, high = sequence.id << SEQ_BITS, sequence.id << SEQ_BITS | _SEQ_MASK
        query = f"SELECT id, state, digest, chain FROM blocks_{sequence.lane} WHERE id BETWEEN ? AND ?"
        rows = {row_id & _SEQ_MASK: _Known(*values) for row_id, *values in self._database.rows(query, low, high)}
        sequence = self._with_end(sequence, rows)
        dropped = [row for row in dropped if row.last <= sequence.last]
        proven = self._proven_chains(sequence, rows)
        missing: list[tuple[int, int]] = []
        if len(rows) != sequence.blocks:
            answered = {seq for seq in proven if self._is_answered(self._blocks.damaged[low | seq].state)}
            missing = list(_missing_ranges(sequence, rows.keys() | answered, dropped))
            if sequence.lane == "archive":  # the clinic waits only for what it requested
                sent = max((seq for seq, row in rows.items() if row.state != WITHHELD), default=sequence.mark)
                missing = [range_ for range_ in missing if range_[1] < sent]
        chains = [sequence.chain if last == sequence.last else proven.get(last, UNKNOWN_CHAIN) for _, last in missing]
        if UNKNOWN_CHAIN in chains:
            first = missing[chains.index(UNKNOWN_CHAIN)][1]
            sequence = sequence._replace(chain=UNKNOWN_CHAIN)
            update = f"UPDATE blocks_{sequence.lane} SET chain = ? WHERE id BETWEEN ? AND ?"
            self._database.execute(update, UNKNOWN_CHAIN, low + first, high)
            chains = chains[: chains.index(UNKNOWN_CHAIN)] + [UNKNOWN_CHAIN] * (len(chains) - chains.index(UNKNOWN_CHAIN))
        lost = [DroppedRow(sequence.id, *range_, chain) for range_, chain in zip(missing, chains, strict=True)]
        self._database.execute_many("INSERT INTO dropped VALUES (?, ?, ?, ?)", [*dropped, *lost])
        self._write_sequence(sequence, n_lost := sum(row.last - row.first + 1 for row in lost))
        return n_lost

    def _with_end(self, sequence: SequenceRow, rows: dict[int, _Known]) -> SequenceRow:
        """The sequence with the end that its blocks and the lane's next epoch prove."""
        end = self._blocks.ends.get((sequence.lane, sequence.epoch))
        last = max(rows, default=0)
        if end is not None:
            return sequence._replace(last=max(end.seq, last), chain=end.chain)
        if last >= sequence.last:
            return sequence._replace(last=last, chain=rows[last].chain if rows else sequence.chain)
        return sequence

    def _proven_chains(self, sequence: SequenceRow, rows: dict[int, _Known]) -> dict[int, bytes]:
        """The chain values at blocks that cannot be kept, where the block behind proves them."""
        low = sequence.id << SEQ_BITS
        damaged = {row_id - low: known for row_id, known in self._blocks.damaged.items() if low < row_id <= low | _SEQ_MASK}
        known = damaged | rows
        return {
            seq: block.chain
            for seq, block in damaged.items()
            if seq + 1 in known and extend_chain(block.chain, known[seq + 1].digest) == known[seq + 1].chain
        }

    def _is_answered(self, state: int) -> bool:
        generation = self._rows.buffer.generation
        return generation is not None and is_possible_state(state) and state >= 4 * generation

    def _write_sequence(self, sequence: SequenceRow, n_lost: int) -> None:
        generation = self._database.rows("SELECT generation FROM buffer")[0][0]
        low, high = sequence.id << SEQ_BITS, sequence.id << SEQ_BITS | _SEQ_MASK
        bounds = f"FROM blocks_{sequence.lane} WHERE id BETWEEN {low} AND {high}"
        lowest = 4 * generation
        is_pending = f"(state < {lowest} AND state <> {WITHHELD})"
        is_open = f"({is_pending} OR state = {lowest + Answer.HELD})"
        counts = [f"(SELECT count(*) {bounds} AND {is_pending})"]
        counts += [f"(SELECT count(*) {bounds} AND state = {lowest + answer})" for answer in Answer]
        counts += ["0", str(n_lost), f"(SELECT ifnull(sum(length(sealed)), 0) {bounds})"]
        counts += ["0" if sequence.lane == "archive" else f"(SELECT ifnull(sum(length(sealed)), 0) {bounds} AND {is_open})"]
        open_from = f"ifnull((SELECT min(id) & {_SEQ_MASK} {bounds} AND {is_open}), ?)"
        self._database.execute(
            f"INSERT INTO sequences VALUES (?, ?, ?, ?, ?, ?, {open_from}, {', '.join(counts)})",
            *(sequence.id, sequence.lane, sequence.epoch, sequence.last, sequence.chain, sequence.mark, sequence.last + 1),
        )


def salvage(source: Path, database: OutboxDatabase, *, hub: str, keys: HubKeys, subjects: Collection[str]) -> Salvaged:
    """Copy what is readable in the damaged buffer `source` into a new one. `subjects` are those of the registration.

    Raises:
        DiskFullError: not even the tables without the blocks have room.
    """
    pages, rows = _open_pages(source, hub, keys)
    try:
        database.run(lambda: _write_rows(database, rows, subjects))
        return BlockSalvage(pages, database, hub, rows).run()
    finally:
        pages.close()


def is_buffer_of(path: Path, hub: str, keys: HubKeys) -> bool:
    """Whether a file that cannot be opened as a buffer is one of this hub."""
    for page_bytes in possible_page_sizes(path):
        with contextlib.closing(PageFile(path, page_bytes)) as pages:
            if holds_key_of(pages, hub, keys):
                return True
    return False


def _open_pages(path: Path, hub: str, keys: HubKeys) -> tuple[PageFile, SalvagedRows]:
    """The pages, read with the size with which they hold rows of a buffer, and these rows."""
    sizes = possible_page_sizes(path)
    for page_bytes in sizes:
        pages = PageFile(path, page_bytes)
        rows = find_rows(pages, hub, keys)
        if rows.keys or rows.sequences:
            return pages, rows
        pages.close()
    return PageFile(path, sizes[0]), SalvagedRows()


def _write_rows(database: OutboxDatabase, rows: SalvagedRows, subjects: Collection[str]) -> None:
    """Write all but blocks and their sequences. The keys of registered subjects are wrapped again when the buffer is opened."""
    buffer = rows.buffer
    newest = max((sequence.epoch for sequence in rows.sequences.values()), default=buffer.epoch)
    is_possible = 0 <= buffer.epoch - newest <= CLOCK_LEAP_S << EPOCH_RANDOM_BITS
    epoch = buffer.epoch if is_possible else newest
    update = "UPDATE buffer SET epoch = ?, previous = ?, generation = ?, store = ?, fence = ?, commits = ?"
    database.execute(update, epoch, buffer.previous, buffer.generation or 1, buffer.store, buffer.fence, buffer.commits)
    for key in rows.keys.values():
        statement = key.statement
        insert = (
            "INSERT INTO keys (number, id, subject, day, commitment, signature, local, held) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        values = (statement.id, statement.subject, statement.day, statement.commitment, statement.signature)
        database.execute(insert, key.number, *values, key.local, key.held)
    keys = {key.number: key for key in rows.keys.values()}
    kept = [
        wrap
        for wrap in rows.wraps
        if wrap[0] in keys and not (keys[wrap[0]].local and keys[wrap[0]].statement.subject in subjects)
    ]
    database.execute_many("INSERT OR IGNORE INTO wraps VALUES (?, ?, ?, ?)", kept)
    earlier = [(subject, public) for subject, public in rows.recipients.items() if subject not in subjects]
    database.execute_many("INSERT INTO recipients VALUES (?, ?)", earlier)
    states = [(subject, name, sealed) for (subject, name), sealed in rows.states.items()]
    database.execute_many("INSERT INTO state VALUES (?, ?, ?)", states)


def _missing_ranges(sequence: SequenceRow, known: Collection[int], dropped: Sequence[DroppedRow]) -> Iterator[tuple[int, int]]:
    """The ranges without a block that may not have been acknowledged, and that are not listed as dropped yet."""
    next_ = max(sequence.mark + 1, sequence.open_from)
    ranges = [(seq, seq) for seq in known] + [(row.first, row.last) for row in dropped]
    for first, last in sorted((*ranges, (sequence.last + 1, sequence.last + 1))):
        if first > next_:
            yield next_, first - 1
        next_ = max(next_, last + 1)


def _is_block(types: Sequence[int]) -> bool:
    return len(types) == 7 and types[4] == types[5] == blob_type(DIGEST_BYTES)


def _read_header(sealed: bytes) -> BlockHeader | None:
    try:
        return parse_header(sealed)
    except SealError:
        return None
