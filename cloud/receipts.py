"""Receipts: the signed outcomes of blocks at the opener, by which a hub may delete them.

A receipt may be lost: the hub then sends the block again, and its outcome is said again.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cloud.block_reader import ERASED, UnreadableError
from cloud.store import Store
from cloud.store.commands import CommandAnswer
from cloud.store.stored_blocks import StoredBlock, StoreIdentity
from sync.chain import block_digest
from sync.errors import TransientError
from sync.message_rows import REASON_LIMIT_CHARS, Outcome, join_consecutive
from sync.messages import Receipt, encode_receipt
from sync.signing import SigningKey
from sync.wire import BlockId, Lane, receipt_topic

RECEIPT_BLOCKS: Final = 64
"""Blocks in one receipt: at most 56 kB of the 64 KiB, if every reason has its full length in characters of four bytes."""
QUEUED_RECEIPTS: Final = 1000
"""Receipts that wait for the broker: those of 64,000 blocks. Further ones are dropped; the hub asks for them again."""
OPENED_LANES: Final[frozenset[Lane]] = frozenset({"alert", "vital"})
"""The lanes whose blocks a hub keeps until the receipt says that they are opened."""

_log: Final = logging.getLogger(__name__)

Publish = Callable[[str, bytes], Awaitable[None]]
"""Sends a payload to a topic; raises TransientError if it cannot."""


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """What became of a block: opened, or not, and why."""

    block: StoredBlock
    error: UnreadableError | None = None
    answers: tuple[CommandAnswer, ...] = ()
    """What its records say of commands to the hub."""


def make_receipts(outcomes: Iterable[BlockOutcome], store: StoreIdentity, key: SigningKey) -> Iterator[tuple[str, bytes]]:
    """Yield hubs and the payloads of their receipts; each hub's outcomes in the order given."""
    of_hub: dict[str, list[BlockOutcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.error is not None or outcome.block.position.lane in OPENED_LANES:
            of_hub[outcome.block.hub].append(outcome)
    for hub, found in of_hub.items():
        for first in range(0, len(found), RECEIPT_BLOCKS):
            yield hub, encode_receipt(_make_receipt(hub, found[first : first + RECEIPT_BLOCKS], store), key)


def _make_receipt(hub: str, outcomes: Sequence[BlockOutcome], store: StoreIdentity) -> Receipt:
    failed = [(one.block, one.error) for one in outcomes if one.error is not None]
    return Receipt(
        hub,
        store.id,
        store.fence,
        opened=tuple(join_consecutive(_with_digest(one.block) for one in outcomes if one.error is None)),
        aside=tuple(_as_row(block, f"{error.reason}: {error}") for block, error in failed if error.reason != ERASED),
        refused=tuple(_as_row(block, ERASED) for block, error in failed if error.reason == ERASED),
    )


def _as_row(block: StoredBlock, reason: str) -> Outcome:
    position, digest = _with_digest(block)
    return Outcome(*position, digest, reason[:REASON_LIMIT_CHARS])


def _with_digest(block: StoredBlock) -> tuple[BlockId, bytes]:
    return block.position, block_digest(block.block)


class ReceiptQueue:
    """Signs and publishes receipts beside the opener, which never waits for the broker."""

    def __init__(self, store: Store, key: SigningKey, publish: Publish) -> None:
        self._store = store
        self._key = key
        self._publish = publish
        self._queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(QUEUED_RECEIPTS)
        self._loop = asyncio.get_running_loop()

    def put(self, outcomes: Sequence[BlockOutcome]) -> None:
        """Queue the receipts of a batch; drop them if the queue is full or the store cannot be read. Any thread may call it."""
        try:
            receipts = list(make_receipts(outcomes, self._store.identity(), self._key))
        except TransientError as error:
            _log.warning("receipts were not sent: %s; hubs will send their blocks again", error)
            return
        self._loop.call_soon_threadsafe(self._put, receipts)

    async def run(self) -> None:
        """Publish receipts until cancelled. A receipt that cannot be published is dropped."""
        while True:
            hub, payload = await self._queue.get()
            try:
                await self._publish(receipt_topic(hub), payload)
            except TransientError as error:
                _log.warning("a receipt was not sent: %s; hub %s will send its blocks again", error, hub)

    def _put(self, receipts: Iterable[tuple[str, bytes]]) -> None:
        for receipt in receipts:
            if not self._queue.full():
                self._queue.put_nowait(receipt)
