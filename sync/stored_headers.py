"""Restores the header of a block that was damaged while it was stored.

The clinic could not acknowledge the block, or would take it for another one. All fields of the header but the nonce are known
from the block's row in the buffer.
"""

import logging
from collections.abc import Callable
from typing import Final

from sync.cbor import encode_cbor
from sync.seal import NONCE_BYTES, BlockHeader, encode_header
from sync.wire import BlockId, Lane

log: Final = logging.getLogger(__name__)

_SEQ: Final = encode_cbor("seq")
_CACHED: Final = 64
"""Sequences whose headers are remembered: three lanes, a few days of keys, and the lengths of a sequence number."""
_Sequence = tuple[Lane, int, bytes, int]
"""Lane, epoch, key, and the length of the encoded sequence number: the headers differ in that number and the nonce."""


class StoredHeaders:
    """Compares blocks with the header that they were stored with. `make_header` gives it; None if the key is unknown."""

    def __init__(self, make_header: Callable[[BlockId, bytes], BlockHeader | None]) -> None:
        self._make_header = make_header
        self._around: dict[_Sequence, tuple[bytes, bytes, bytes]] = {}

    def restore(self, id_: BlockId, key: bytes, sealed: bytes) -> bytes:
        """The block, with its header restored if it is not the one that it was stored with."""
        seq = encode_cbor(id_.seq)
        around = self._around.get((id_.lane, id_.epoch, key, len(seq)))
        if id_.seq > 1 and around is not None:
            start = around[0] + seq + around[1]
            if sealed.startswith(start) and sealed.startswith(around[2], len(start) + NONCE_BYTES):
                return sealed
        header = self._make_header(id_, key)
        return sealed if header is None else self._compare(id_, header, seq, sealed)

    def _compare(self, id_: BlockId, header: BlockHeader, seq: bytes, sealed: bytes) -> bytes:
        clear = encode_header(header)
        seq_at = clear.index(_SEQ + seq) + len(_SEQ)
        nonce_at = clear.index(header.nonce)
        nonce_end = nonce_at + NONCE_BYTES
        if id_.seq > 1:  # the first of an epoch has a field more
            if len(self._around) >= _CACHED:
                self._around.clear()
            sequence = (id_.lane, id_.epoch, header.key, len(seq))
            self._around[sequence] = clear[:seq_at], clear[seq_at + len(seq) : nonce_at], clear[nonce_end:]
        restored = clear[:nonce_at] + sealed[nonce_at:nonce_end] + clear[nonce_end:] + sealed[len(clear) :]
        if restored != sealed:
            log.warning("restored the damaged header of block %d of epoch %d in lane %s", id_.seq, id_.epoch, id_.lane)
        return restored
