"""The chain over the blocks of one lane and epoch: each value names every block before it (`docs/protocol.md`)."""

import hashlib

from sync.cbor import encode_cbor
from sync.wire import FORMAT, Lane

_LABEL = "pulsegate lane chain"


def start_chain(hub: str, lane: Lane, epoch: int) -> bytes:
    """The chain value before the first block (32 bytes)."""
    return hashlib.sha256(encode_cbor([_LABEL, FORMAT, hub, lane, epoch])).digest()


def extend_chain(chain: bytes, digest: bytes) -> bytes:
    """The chain value after one more block with this digest (32 bytes each)."""
    return hashlib.sha256(chain + digest).digest()


def block_digest(block: bytes) -> bytes:
    """SHA-256 over a block (32 bytes)."""
    return hashlib.sha256(block).digest()
