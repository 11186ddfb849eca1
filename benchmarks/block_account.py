"""The account of a kill storm's blocks: where each block is that the hub ever sealed, by the digests in the databases.

A roll-back of the hub's buffer loses the blocks that were sealed after the copy was made, where the clinic does not hold them.
The clinic lists those that a head or a later block named. Of the others it has not heard, or forgot it when it was restored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.database_copies import query_copy
from sync.outbox.block_tables import SEQ_BITS
from sync.wire import BlockId

Blocks = Mapping[BlockId, bytes]
"""Blocks with their digests."""

_VOLATILE: Final = frozenset({"id", "revision"})
"""Columns of the projections that depend on the order in which blocks were opened."""
_UNCOMPARED: Final = frozenset({"source", "changes", "counters"})
"""Tables of the projections without contents of blocks."""


@dataclass(frozen=True, slots=True)
class BlockAccount:
    """Counts of blocks. Every count from `lost` on must be 0.

    Attributes:
        sealed: blocks that the hub sealed, as far as a buffer shows that was rolled back, or the last one.
        stored: blocks that the clinic holds.
        listed: blocks lost by roll-backs that the clinic lists as missing.
        unknown: blocks lost by roll-backs of which the clinic does not know.
        without_receipt: blocks in the hub's buffer that were acknowledged and have no receipt.
        lost: blocks in the hub's buffer that the clinic does not hold, or holds with other bytes.
        altered: blocks of rolled-back buffers that the clinic holds with other bytes.
        listed_wrongly: blocks that the clinic lists as missing, and no roll-back has lost.
        invented: blocks that the clinic holds, and no buffer ever had.
    """

    sealed: int
    stored: int
    listed: int
    unknown: int
    without_receipt: int
    lost: int
    altered: int
    listed_wrongly: int
    invented: int

    @property
    def passed(self) -> bool:
        """Whether the clinic holds all that the hub holds, and lists nothing else than what roll-backs have lost."""
        return not (self.lost or self.altered or self.listed_wrongly or self.invented)

    def counts(self) -> dict[str, int]:
        return {f"blocks_{name}": count for name, count in asdict(self).items()}


def account_blocks(
    held: Blocks, rolled_back: Sequence[Blocks], stored: Blocks, missing: Iterable[BlockId], without_receipt: int = 0
) -> BlockAccount:
    """Compare the blocks in the hub's buffer, in those that were rolled back, in the clinic's store, and missing there."""
    former = {id_: digest for blocks in rolled_back for id_, digest in blocks.items() if id_ not in held}
    listed = set(missing)
    lost_by_rollback = former.keys() - stored.keys()
    return BlockAccount(
        sealed=len(held) + len(former),
        stored=len(stored),
        listed=len(listed & lost_by_rollback),
        unknown=len(lost_by_rollback - listed),
        without_receipt=without_receipt,
        lost=sum(stored.get(id_) != digest for id_, digest in held.items()),
        altered=sum(stored.get(id_, digest) != digest for id_, digest in former.items()),
        listed_wrongly=len(listed - lost_by_rollback),
        invented=len(stored.keys() - held.keys() - former.keys()),
    )


def read_buffer(database: Path) -> dict[BlockId, bytes]:
    """Return the blocks in a hub's buffer."""
    lanes = {int(id_): (lane, int(epoch)) for id_, lane, epoch in query_copy(database, "SELECT id, lane, epoch FROM sequences")}
    found: dict[BlockId, bytes] = {}
    for table in ("blocks_alert", "blocks_vital", "blocks_wave"):
        for row_id, digest in query_copy(database, f"SELECT id, digest FROM {table}"):  # noqa: S608
            found[BlockId(*lanes[row_id >> SEQ_BITS], row_id & ((1 << SEQ_BITS) - 1))] = digest
    return found


def count_without_receipt(database: Path) -> int:
    """Return the number of blocks in a hub's buffer that were acknowledged and have no receipt."""
    return int(query_copy(database, "SELECT total(unopened) FROM sequences")[0][0])


def read_store(database: Path) -> dict[BlockId, bytes]:
    """Return the blocks in a clinic's store of one hub."""
    rows = query_copy(database, "SELECT lane, epoch, seq, digest FROM blocks")
    return {BlockId(lane, epoch, seq): digest for lane, epoch, seq, digest in rows}


def list_missing(totals: Mapping[str, Any]) -> list[BlockId]:
    """Return the blocks in the missing ranges of `pulsegate-cloud open`."""
    return [
        BlockId(gap["lane"], gap["epoch"], seq) for gap in totals["missing"] for seq in range(gap["first"], gap["last"] + 1)
    ]


def read_projections(database: Path) -> dict[str, list[str]]:
    """Return the rows of each table that come from blocks alone, sorted: two projections of the same blocks have the same."""
    tables = [name for (name,) in query_copy(database, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: _read_rows(database, name) for name in sorted(tables) if name not in _UNCOMPARED}


def _read_rows(database: Path, table: str) -> list[str]:
    columns = [row[1] for row in query_copy(database, f"PRAGMA table_info({table})") if row[1] not in _VOLATILE]
    return sorted(map(repr, query_copy(database, f"SELECT {', '.join(columns)} FROM {table}")))  # noqa: S608
