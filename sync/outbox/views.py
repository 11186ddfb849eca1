"""What the outbox says about itself: to the status page, and to the clinic in each envelope."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sync.chain import start_chain
from sync.message_rows import AcceptedMark, Dropped, Head, SeenStore
from sync.outbox.block_tables import BlockTables
from sync.outbox.database import OutboxDatabase
from sync.outbox.room import dropped_ranges
from sync.wire import LANES, UPLINK_LANES, Lane

MARKS_LIMIT: Final = 32
"""Marks of earlier epochs in a message, the newest: 26 bytes each at most. A day has an epoch, and one more for each start of
the agent, with three lanes each, so these are of several days: clinics back up every day."""
_STATISTICS = """SELECT lane, total(pending), total(last), total(bytes), total(unopened), total(released), total(aside),
                 total(refused), total(dropped) FROM sequences GROUP BY lane"""


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """Blocks ever `stored`, and ever `acknowledged`: the clinic holds them or has set them aside; it need not have opened them.

    Blocks of `archive` are not among the acknowledged ones.

    `pending` waits to be sent, by lane; `unopened` waits for a receipt. `released` and `aside` are kept until retention.
    `refused` and `dropped` were deleted.
    `bytes` is the size of all blocks in the buffer. `oldest_s` is how long the oldest pending block of a lane has waited.
    """

    stored: int
    pending: Mapping[Lane, int]
    acknowledged: int
    bytes: int
    oldest_s: Mapping[Lane, int]
    unopened: int = 0
    released: int = 0
    aside: int = 0
    refused: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class ClinicView:
    """What an envelope says about the buffer besides its blocks. The fields are those of `sync.messages.Envelope`.

    `marks` are those of earlier epochs, the newest epoch first.
    """

    epoch: int
    previous_epoch: int | None
    heads: tuple[Head, ...]
    seen: SeenStore | None
    dropped: tuple[Dropped, ...]
    marks: tuple[AcceptedMark, ...]


def read_statistics(database: OutboxDatabase, tables: BlockTables, now_s: int) -> OutboxStatistics:
    rows = {row[0]: [int(value) for value in row[1:]] for row in database.rows(_STATISTICS)}
    lanes: dict[Lane, list[int]] = {lane: rows.get(lane, [0] * 8) for lane in LANES}
    _, stored, size, unopened, released, aside, refused, dropped = map(sum, zip(*lanes.values(), strict=True))
    return OutboxStatistics(
        stored=stored,
        pending={lane: lanes[lane][0] for lane in LANES},
        acknowledged=sum(lanes[lane][1] - lanes[lane][0] - lanes[lane][6] - lanes[lane][7] for lane in UPLINK_LANES),
        bytes=size,
        oldest_s={lane: max(0, now_s - since) for lane in LANES if (since := _oldest_since(tables, lane)) is not None},
        unopened=unopened,
        released=released,
        aside=aside,
        refused=refused,
        dropped=dropped,
    )


def _oldest_since(tables: BlockTables, lane: Lane) -> int | None:
    """When the first pending block of a lane became pending; None without one."""
    for sequence in tables.where("lane = ? AND pending > 0", lane):
        for row in tables.read_pending(sequence, 1):
            return row.since
    return None


def read_clinic_view(database: OutboxDatabase, hub: str) -> ClinicView:
    epoch, previous, store, fence, commits = database.rows("SELECT epoch, previous, store, fence, commits FROM buffer")[0]
    rows = database.rows("SELECT lane, last, chain, mark FROM sequences WHERE epoch = ?", epoch)
    heads = {row[0]: Head(*row) for row in rows}
    earlier = "SELECT lane, epoch, mark FROM sequences WHERE epoch < ? AND mark > 0 ORDER BY epoch DESC, lane LIMIT ?"
    return ClinicView(
        epoch,
        previous,
        heads=tuple(heads.get(lane, Head(lane, 0, start_chain(hub, lane, epoch), 0)) for lane in UPLINK_LANES),
        seen=None if store is None else SeenStore(store, fence, commits),
        dropped=dropped_ranges(database),
        marks=tuple(AcceptedMark(*row) for row in database.rows(earlier, epoch, MARKS_LIMIT)),
    )
