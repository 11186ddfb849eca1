"""Finds the blocks that hubs sealed and the clinic does not hold: gaps below the known end of each sequence.

The end of a sequence (a lane of an epoch) is the highest of: a block held, a mark, the head that the hub signed last, and the
end that the first block of the lane's next epoch names.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, select

from cloud.store import tables
from sync.cbor import decode_cbor
from sync.wire import MESSAGE_LIMIT_BYTES, ON_REQUEST_LANE


class SequenceId(NamedTuple):
    """Identifies a sequence of blocks."""

    hub: str
    lane: str
    epoch: int


class BlockRange(NamedTuple):
    """Blocks `first` … `last` of a sequence."""

    hub: str
    lane: str
    epoch: int
    first: int
    last: int


@dataclass(slots=True)
class Completeness:
    """What is known of each sequence: the numbers held, its highest known number, and the ranges that the hub dropped.

    Blocks of `erased` sequences are not missing.
    """

    held: dict[SequenceId, set[int]] = field(default_factory=lambda: defaultdict(set))
    ends: dict[SequenceId, int] = field(default_factory=lambda: defaultdict(int))
    dropped: list[BlockRange] = field(default_factory=list)
    erased: set[SequenceId] = field(default_factory=set)

    def add_end(self, sequence: SequenceId, end: int) -> None:
        """Note that a sequence has at least `end` blocks."""
        self.ends[sequence] = max(self.ends[sequence], end)

    def lost(self) -> list[BlockRange]:
        """Return the dropped ranges, in order, without what the clinic holds: a damaged hub does not know that."""
        lost = list[BlockRange]()
        for dropped in self.dropped:
            if dropped.lane == ON_REQUEST_LANE:  # they were not requested
                continue
            held = ((seq, seq) for seq in self.held.get(SequenceId(*dropped[:3]), ()) if seq <= dropped.last)
            gaps = find_gaps([(1, dropped.first - 1), *held], dropped.last)
            lost += [dropped._replace(first=first, last=last) for first, last in gaps]
        return lost

    def missing(self) -> list[BlockRange]:
        """Return the ranges of missing blocks, in order. Of `archive` the clinic has only what it requested."""
        known = defaultdict[SequenceId, list[tuple[int, int]]](list)
        for dropped in self.dropped:
            known[SequenceId(*dropped[:3])].append((dropped.first, dropped.last))
        for sequence, seqs in self.held.items():
            known[sequence].extend((seq, seq) for seq in seqs)
        return [
            BlockRange(*sequence, *gap)
            for sequence in sorted((known.keys() | self.ends.keys()) - self.erased)
            for gap in find_gaps(known[sequence], self.ends[sequence])
        ]


def find_gaps(ranges: Iterable[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """Return the (first, last) of 1 … `end` that no range covers. Ranges may overlap and may go beyond `end`."""
    gaps, next_ = list[tuple[int, int]](), 1
    for first, last in sorted(ranges):
        if first > next_:
            gaps.append((next_, first - 1))
        next_ = max(next_, last + 1)
    if next_ <= end:
        gaps.append((next_, end))
    return gaps


def read_completeness(connection: Connection) -> Completeness:
    """Return what the store knows besides its blocks: heads, marks, dropped ranges, quarantined blocks, erased sequences."""
    found = Completeness()
    epochs, marks, quarantine = tables.epochs.c, tables.marks.c, tables.quarantine.c
    for hub, epoch, heads in connection.execute(select(epochs.hub, epochs.epoch, epochs.heads)):
        for lane, seq, *_ in decode_cbor(heads, limit_bytes=MESSAGE_LIMIT_BYTES):
            found.add_end(SequenceId(hub, lane, epoch), seq)
    for hub, lane, epoch, seq in connection.execute(select(marks.hub, marks.lane, marks.epoch, marks.seq)):
        found.add_end(SequenceId(hub, lane, epoch), seq)
    positions = select(quarantine.hub, quarantine.lane, quarantine.epoch, quarantine.seq).where(quarantine.seq.is_not(None))
    for hub, lane, epoch, seq in connection.execute(positions):
        found.held[SequenceId(hub, lane, epoch)].add(seq)
    dropped = [tables.dropped.c[name] for name in BlockRange._fields]
    found.dropped = [BlockRange(*row) for row in connection.execute(select(*dropped).order_by(*dropped))]
    found.erased = {SequenceId(*row) for row in connection.execute(select(*tables.erased_sequences.c))}
    return found
