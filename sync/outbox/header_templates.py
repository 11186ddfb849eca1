"""Headers of blocks of one lane, epoch and key: encoded once, since only the sequence number and the nonce differ."""

from typing import Final, NamedTuple

from sync.cbor import encode_cbor
from sync.seal import NONCE_BYTES, BlockHeader, LaneEnd, encode_header
from sync.wire import BlockId, Lane

_SEQ: Final = encode_cbor("seq")
_CACHED: Final = 64
"""Templates that are remembered: four lanes, a few days of keys, and the lengths of a sequence number."""


class HeaderTemplate(NamedTuple):
    """The encoded header before the nonce and after it."""

    before: bytes
    after: bytes


class HeaderTemplates:
    """Encodes the headers of one hub's blocks."""

    def __init__(self, hub: str) -> None:
        self._hub = hub
        self._around_seq: dict[tuple[Lane, int, bytes, int], tuple[bytes, bytes, bytes]] = {}

    def make(self, id_: BlockId, key: bytes, subject: str, prev: LaneEnd | None = None) -> HeaderTemplate:
        """The header of a block without its nonce. `prev` is for the first block of an epoch."""
        seq = encode_cbor(id_.seq)
        sequence = (id_.lane, id_.epoch, key, len(seq))
        around = self._around_seq.get(sequence) if id_.seq > 1 else None
        if around is None:
            around = self._encode(BlockHeader(self._hub, subject, id_.epoch, id_.lane, id_.seq, key, prev=prev), seq)
            if id_.seq > 1:  # the first of an epoch has a field more
                if len(self._around_seq) >= _CACHED:
                    self._around_seq.clear()
                self._around_seq[sequence] = around
        return HeaderTemplate(around[0] + seq + around[1], around[2])

    def _encode(self, header: BlockHeader, seq: bytes) -> tuple[bytes, bytes, bytes]:
        clear = encode_header(header)
        seq_at = clear.index(_SEQ + seq) + len(_SEQ)
        nonce_at = clear.index(header.nonce)
        return clear[:seq_at], clear[seq_at + len(seq) : nonce_at], clear[nonce_at + NONCE_BYTES :]
