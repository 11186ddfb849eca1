"""Seals the blocks of one transaction: continues the sequence and the chain of each lane."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from os import urandom
from typing import Final

from sync.chain import start_chain
from sync.errors import PermanentError
from sync.outbox.block_tables import BlockSequence, BlockTables
from sync.outbox.header_templates import HeaderTemplates
from sync.outbox.keys import DayKey
from sync.seal import NONCE_BYTES
from sync.wire import PLAINTEXT_LIMIT_BYTES, BlockId, Lane


class OutboxSealer:
    """Seals blocks and stores them. Call it in a transaction."""

    def __init__(self, hub: str, tables: BlockTables, templates: HeaderTemplates) -> None:
        self._hub: Final = hub
        self._tables = tables
        self._templates = templates

    def put(self, blocks: Sequence[tuple[Lane, bytes]], epoch: int, key: DayKey, now_s: int) -> list[BlockId]:
        """Seal and store blocks in this order. Returns their ids in the same order.

        Raises:
            PermanentError: a plaintext exceeds `PLAINTEXT_LIMIT_BYTES`.
        """
        lanes: dict[Lane, list[bytes]] = {}
        for lane, plaintext in blocks:
            if len(plaintext) > PLAINTEXT_LIMIT_BYTES:
                raise PermanentError(
                    f"cannot store a block of {len(plaintext)} bytes: the limit is {PLAINTEXT_LIMIT_BYTES}; split its records"
                )
            lanes.setdefault(lane, []).append(plaintext)
        ids = {lane: iter(self._seal(lane, epoch, plaintexts, key, now_s)) for lane, plaintexts in lanes.items()}
        return [next(ids[lane]) for lane, _ in blocks]

    def _seal(self, lane: Lane, epoch: int, plaintexts: Iterable[bytes], key: DayKey, now_s: int) -> list[BlockId]:
        """Seal and store the blocks of one lane."""
        sequence = self._tables.find(lane, epoch) or self._start(lane, epoch)
        prev = self._tables.end_before(lane, epoch) if sequence.last == 0 else None
        chain = sequence.chain
        ids: list[BlockId] = []
        rows: list[tuple[int, bytes, bytes, bytes]] = []
        for seq, plaintext in enumerate(plaintexts, sequence.last + 1):
            id_ = BlockId(lane, epoch, seq)
            before, after = self._templates.make(id_, key.id, key.subject, prev if seq == 1 else None)
            nonce = urandom(NONCE_BYTES)
            header = before + nonce + after
            sealed = header + key.cipher.encrypt(nonce, plaintext, header)
            digest = sha256(sealed).digest()
            chain = sha256(chain + digest).digest()
            ids.append(id_)
            rows.append((key.number, digest, chain, sealed))
        self._tables.append(sequence._replace(last=ids[-1].seq, chain=chain), rows, now_s)
        return ids

    def _start(self, lane: Lane, epoch: int) -> BlockSequence:
        return BlockSequence(0, lane, epoch, last=0, chain=start_chain(self._hub, lane, epoch), open_from=1)
