"""Sealing: encrypt a plaintext to a block that only the clinic, or the hub with its own key, can open.

    block = b"PG" | format (u8) | header length (u16, big endian) | header (CBOR) | ciphertext | tag (16 bytes)

The bytes before the ciphertext are the associated data of AES-256-GCM-SIV (RFC 8452), a cipher that stays safe if a cloned or
restored hub repeats a nonce. `docs/protocol.md` is the reference.
"""

import os
import struct
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from sync.cbor import encode_cbor
from sync.data_keys import DataKey
from sync.errors import PermanentError
from sync.wire import (
    DIGEST_BYTES,
    FORMAT,
    KEY_ID_BYTES,
    LANES,
    Lane,
    WireError,
    decode_cbor_map,
    is_bytes,
    is_count,
    is_epoch,
    is_name,
)

MAGIC: Final = b"PG"
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
HEADER_LIMIT_BYTES: Final = 1024
"""A header takes less than 400 bytes; the rest is room for the fields of a later version."""

_PREFIX: Final = struct.Struct(">2sBH")
_FIELDS: Final = ("hub", "subject", "epoch", "lane", "seq", "key", "nonce")


class SealError(PermanentError):
    """Bytes are not a valid block, or this key does not open them."""


class LaneEnd(NamedTuple):
    """The last block of a lane in an epoch, and the chain value there."""

    epoch: int
    seq: int
    chain: bytes


def random_nonce() -> bytes:
    return os.urandom(NONCE_BYTES)


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """The unencrypted header of a block: its id and the key that opens it. It contains no value and no time of a reading.

    `prev` is the end of the lane's previous epoch. Only the first block of an epoch has it, and only if the lane has an earlier
    epoch.

    Raises:
        SealError: a field has an invalid value.
    """

    hub: str
    subject: str
    epoch: int
    lane: Lane
    seq: int
    key: bytes
    nonce: bytes = field(default_factory=random_nonce)
    prev: LaneEnd | None = None

    def __post_init__(self) -> None:
        valid = {
            "hub": is_name(self.hub),
            "subject": is_name(self.subject),
            "epoch": is_epoch(self.epoch),
            "lane": self.lane in LANES,
            "seq": is_count(self.seq) and self.seq >= 1,
            "key": is_bytes(self.key, KEY_ID_BYTES),
            "nonce": is_bytes(self.nonce, NONCE_BYTES),
            "prev": self.prev is None or (self.seq == 1 and _is_lane_end(self.prev)),
        }
        invalid = [name for name, is_valid in valid.items() if not is_valid]
        if invalid:
            raise SealError(f"block header: invalid {', '.join(invalid)}; docs/protocol.md gives the allowed values")


def seal_block(header: BlockHeader, plaintext: bytes, key: DataKey) -> bytes:
    """Encrypt a plaintext to a block with this header.

    Raises:
        SealError: the header names another key.
    """
    if header.key != key.id:
        raise SealError("cannot seal the block: its header names another key than the one given")
    associated = encode_header(header)
    return associated + AESGCMSIV(key.secret).encrypt(header.nonce, plaintext, associated)


def open_block(block: bytes, key: DataKey) -> tuple[BlockHeader, bytes]:
    """Decrypt a block. Returns its header and plaintext, both authenticated.

    Raises:
        SealError: not a block, sealed with another key, or changed since.
    """
    header, length = _split_block(block)
    if header.key != key.id:
        raise SealError("cannot open the block: it was sealed with another key")
    try:
        return header, AESGCMSIV(key.secret).decrypt(header.nonce, block[length:], block[:length])
    except InvalidTag as error:
        raise SealError("cannot open the block: it was changed after it was sealed, or its key is wrong") from error


def encode_header(header: BlockHeader) -> bytes:
    """The part of a block before its ciphertext."""
    fields: dict[str, Any] = {name: getattr(header, name) for name in _FIELDS}
    if header.prev is not None:
        fields["prev"] = list(header.prev)
    encoded = encode_cbor(fields)
    return _PREFIX.pack(MAGIC, FORMAT, len(encoded)) + encoded


def parse_header(block: bytes) -> BlockHeader:
    """The header of a block. It is not authenticated until the block is opened.

    Raises:
        SealError: not a block, or of another format.
    """
    return _split_block(block)[0]


def block_format(block: bytes) -> int | None:
    """The format byte of a block; None if these bytes are not a block."""
    return block[len(MAGIC)] if len(block) >= _PREFIX.size and block.startswith(MAGIC) else None


def _split_block(block: bytes) -> tuple[BlockHeader, int]:
    """The header, and the number of bytes before the ciphertext."""
    if len(block) < _PREFIX.size or not block.startswith(MAGIC):
        raise SealError("not a pulsegate block: it does not begin with 'PG'")
    _, version, length = _PREFIX.unpack_from(block)
    if version != FORMAT:
        side = "hub" if version < FORMAT else "clinic"
        raise SealError(f"the block has format {version}, this version reads format {FORMAT}: update pulsegate on the {side}")
    end = _PREFIX.size + length
    if len(block) < end + TAG_BYTES:
        raise SealError(f"the block is truncated: it has {len(block)} bytes, at least {end + TAG_BYTES} expected")
    return _decode_header(block[_PREFIX.size : end]), end


def _decode_header(data: bytes) -> BlockHeader:
    try:
        fields = decode_cbor_map(data, limit_bytes=HEADER_LIMIT_BYTES, fields=_FIELDS, optional=("prev",), what="block header")
    except WireError as error:
        raise SealError(str(error)) from error
    prev = fields.get("prev")
    if prev is not None:
        if not isinstance(prev, list) or len(prev) != len(LaneEnd._fields):
            raise SealError("block header: prev is not [epoch, seq, chain value]")
        prev = LaneEnd(*prev)
    return BlockHeader(**{name: fields[name] for name in _FIELDS}, prev=prev)


def _is_lane_end(end: LaneEnd) -> bool:
    return is_epoch(end.epoch) and is_count(end.seq) and end.seq >= 1 and is_bytes(end.chain, DIGEST_BYTES)
