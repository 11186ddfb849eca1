"""Blocks and their lane chains, as `docs/protocol.md` describes them."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from tests.second_reader import cbor
from tests.second_reader.cbor import RefusedError
from tests.second_reader.keys import VERSION, Statement, verify_statement
from tests.second_reader.messages import check_fields, is_digest, is_epoch, is_id, is_lane, is_name, raw, row, whole
from tests.second_reader.records import MAX_PLAINTEXT_BYTES

MAX_HEADER_BYTES: Final = 1024
_START: Final = b"PG" + bytes([VERSION])
_TAG_BYTES: Final = 16
_EPOCH_UNITS_PER_S: Final = 1 << 20
_S_PER_DAY: Final = 86_400
_HEADER: Final = {
    "hub": is_name,
    "subject": is_name,
    "epoch": is_epoch,
    "lane": is_lane,
    "seq": whole(1),
    "key": is_id,
    "nonce": raw(12),
}
_PREV: Final = {"prev": row(is_epoch, whole(1), is_digest)}


@dataclass(frozen=True)
class Block:
    """A block in its parts. `prefix` is everything before the ciphertext."""

    header: dict[str, Any]
    prefix: bytes
    ciphertext: bytes

    @property
    def digest(self) -> bytes:
        """The hash of all bytes."""
        return hashlib.sha256(self.prefix + self.ciphertext).digest()


def parse_block(data: bytes) -> Block:
    """Return a block in its parts; nothing is proven yet.

    Raises:
        RefusedError: it has not the form of a block.
    """
    if data[:3] != _START:
        raise RefusedError("not a block of format 2")
    header_bytes = int.from_bytes(data[3:5])
    end = 5 + header_bytes
    if header_bytes > MAX_HEADER_BYTES or not _TAG_BYTES <= len(data) - end <= MAX_PLAINTEXT_BYTES + _TAG_BYTES:
        raise RefusedError("the header or the plaintext is cut off or too long")
    header = check_fields(cbor.decode(data[5:end]), _HEADER, _PREV)
    if "prev" in header and header["seq"] != 1:
        raise RefusedError("`prev` in a block that is not the first")
    return Block(header, data[:end], data[end:])


def open_block(block: Block, data_key: bytes) -> bytes:
    """Return the plaintext.

    Raises:
        RefusedError: the key is another one, or the block was changed.
    """
    try:
        return AESGCMSIV(data_key).decrypt(block.header["nonce"], block.ciphertext, block.prefix)
    except InvalidTag:
        raise RefusedError("the block does not open") from None


def check_statement(block: Block, statement: Statement, device: bytes) -> None:
    """Return if the device key signed this statement for the block's key, subject and day.

    Raises:
        RefusedError: it did not.
    """
    verify_statement(device, block.header["hub"], statement)
    day = block.header["epoch"] // _EPOCH_UNITS_PER_S // _S_PER_DAY
    if (statement.key_id, statement.subject, statement.day) != (block.header["key"], block.header["subject"], day):
        raise RefusedError("the statement is for another key, subject or day")


def start_chain(hub: str, lane: str, epoch: int) -> bytes:
    """Return the chain value before the first block."""
    return hashlib.sha256(cbor.encode(["pulsegate lane chain", VERSION, hub, lane, epoch])).digest()


def extend_chain(chain: bytes, digest: bytes) -> bytes:
    """Return the chain value after one more block."""
    return hashlib.sha256(chain + digest).digest()
