"""Seals the blocks of one transaction: continues the sequence and the chain of each lane."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from os import urandom
from typing import Final

from sync.block_tables import BlockSequence, BlockTables
from sync.chain import start_chain
from sync.errors import PermanentError
from sync.header_templates import HeaderTemplates
from sync.outbox_keys import DayKey
from sync.seal import NONCE_BYTES
from sync.wire import PLAINTEXT_LIMIT_BYTES, BlockId, Lane


@dataclass(slots=True)
class _SealedBlocks:
    """New blocks of a lane: key number, digest, chain value, sealed bytes."""

    sequence: BlockSequence
    rows: list[tuple[int, bytes, bytes, bytes]] = field(default_factory=list)


class OutboxSealer:
    """Seals blocks and stores them. Call it in a transaction."""

    def __init__(self, hub: str, tables: BlockTables, templates: HeaderTemplates) -> None:
        self._hub: Final = hub
        self._tables = tables
        self._templates = templates

    def put(self, blocks: Iterable[tuple[Lane, bytes]], epoch: int, key: DayKey, now_s: int) -> list[BlockId]:
        """Seal and store blocks in this order.

        Raises:
            PermanentError: a plaintext exceeds `PLAINTEXT_LIMIT_BYTES`.
        """
        ids: list[BlockId] = []
        lanes: dict[Lane, _SealedBlocks] = {}
        for lane, plaintext in blocks:
            if len(plaintext) > PLAINTEXT_LIMIT_BYTES:
                raise PermanentError(
                    f"cannot store a block of {len(plaintext)} bytes: the limit is {PLAINTEXT_LIMIT_BYTES}; split its records"
                )
            sealed = lanes.get(lane)
            if sealed is None:
                sealed = lanes[lane] = _SealedBlocks(self._find_or_start(lane, epoch))
            ids.append(self._seal(sealed, plaintext, key))
        for sealed in lanes.values():
            self._tables.append(sealed.sequence, sealed.rows, now_s)
        return ids

    def _find_or_start(self, lane: Lane, epoch: int) -> BlockSequence:
        new = BlockSequence(0, lane, epoch, last=0, chain=start_chain(self._hub, lane, epoch), open_from=1)
        return self._tables.find(lane, epoch) or new

    def _seal(self, lane: _SealedBlocks, plaintext: bytes, key: DayKey) -> BlockId:
        sequence = lane.sequence
        id_ = BlockId(sequence.lane, sequence.epoch, sequence.last + 1)
        prev = self._tables.end_before(id_.lane, id_.epoch) if id_.seq == 1 else None
        before, after = self._templates.make(id_, key.id, key.subject, prev)
        nonce = urandom(NONCE_BYTES)
        header = before + nonce + after
        sealed = header + key.cipher.encrypt(nonce, plaintext, header)
        digest = sha256(sealed).digest()
        chain = sha256(sequence.chain + digest).digest()
        lane.sequence = sequence._replace(last=id_.seq, chain=chain)
        lane.rows.append((key.number, digest, chain, sealed))
        return id_
