"""Blocks and wrapped data keys of format 1. Their origin is not proven: the clinic's public key was enough to make them."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

from sync.cbor import CborError, decode_cbor, encode_cbor
from sync.data_keys import KEY_BYTES, DataKey, DataKeyError
from sync.key_files import load_private_file
from sync.recipients import RecipientKeyPair
from sync.seal import HEADER_LIMIT_BYTES, MAGIC, NONCE_BYTES, TAG_BYTES, SealError
from sync.wire import KEY_ID_BYTES, LANES, Lane, is_bytes, is_name

FORMAT_1: Final = 1
_PREFIX: Final = struct.Struct(">2sBH")
_FIELDS: Final = ("hub", "subject", "epoch", "lane", "seq", "key", "nonce")
_MAX_INTEGER: Final = 2**63 - 1
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_WRAP_VERSION: Final = 1
_TITLE: Final = "pulsegate clinic private key, version 1"


@dataclass(frozen=True, slots=True)
class Header1:
    """The header of a block of format 1. `prev` is (epoch, seq) of the lane's last block before this epoch."""

    hub: str
    subject: str
    epoch: int
    lane: Lane
    seq: int
    key: bytes
    nonce: bytes
    prev: tuple[int, int] | None


def parse_header(block: bytes) -> Header1:
    """The header of a block of format 1.

    Raises:
        SealError: not such a block.
    """
    return _split(block)[0]


def open_block(block: bytes, key: DataKey) -> bytes:
    """The plaintext of a block of format 1.

    Raises:
        SealError: not such a block, sealed with another key, or changed since.
    """
    header, length = _split(block)
    if header.key != key.id:
        raise SealError("cannot open the block: it was sealed with another key")
    try:
        return AESGCMSIV(key.secret).decrypt(header.nonce, block[length:], block[:length])
    except InvalidTag as error:
        raise SealError("cannot open the block: it was changed after it was sealed, or its key is wrong") from error


@dataclass(frozen=True, slots=True)
class ClinicKeyPair1:
    """The clinic's one key pair of format 1, for which every data key was wrapped."""

    pair: RecipientKeyPair = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the private key file.

        Raises:
            KeyFileError: the file is missing, accessible to other users, of another kind, or damaged.
        """
        return cls(load_private_file(path, _TITLE, RecipientKeyPair.from_bytes))

    def unwrap(self, wrapped: bytes, *, key_id: bytes, hub: str, subject: str) -> DataKey:
        """The data key of a wrapped key: version (u8 = 1) | fingerprint (8 bytes) | HPKE encapsulation and ciphertext.

        Raises:
            DataKeyError: changed, or wrapped for another clinic key, hub, subject or key id.
        """
        start = bytes([_WRAP_VERSION]) + self.pair.public.fingerprint
        if not wrapped.startswith(start):
            raise DataKeyError("the data key was wrapped for another clinic key")
        private = MLKEM768X25519PrivateKey(self.pair.mlkem, self.pair.x25519)
        info = encode_cbor(["pulsegate data key for the clinic", _WRAP_VERSION, hub, subject, key_id])
        try:
            secret = _SUITE.decrypt(wrapped[len(start) :], private, info)
        except (InvalidTag, ValueError) as error:
            text = "cannot unwrap the data key: it was changed, or belongs to another hub, subject or key id"
            raise DataKeyError(text) from error
        if len(secret) != KEY_BYTES:
            raise DataKeyError(f"cannot unwrap the data key: it has {len(secret)} bytes, not {KEY_BYTES}")
        return DataKey(key_id, secret)


def _split(block: bytes) -> tuple[Header1, int]:
    """The header, and the number of bytes before the ciphertext."""
    if len(block) < _PREFIX.size or not block.startswith(MAGIC + bytes([FORMAT_1])):
        raise SealError("not a pulsegate block of format 1")
    end = _PREFIX.size + int(_PREFIX.unpack_from(block)[2])
    if len(block) < end + TAG_BYTES:
        raise SealError(f"the block is truncated: it has {len(block)} bytes, at least {end + TAG_BYTES} expected")
    try:
        fields = decode_cbor(block[_PREFIX.size : end], limit_bytes=HEADER_LIMIT_BYTES)
    except CborError as error:
        raise SealError(f"block header is not valid CBOR: {error}") from error
    return _parse_fields(fields), end


def _parse_fields(fields: Any) -> Header1:
    if not isinstance(fields, dict) or fields.keys() - {"prev"} != set(_FIELDS):
        raise SealError("block header: fields are missing or unknown")
    prev = fields.get("prev")
    is_valid = (
        is_name(fields["hub"])
        and is_name(fields["subject"])
        and fields["lane"] in LANES
        and _is_uint63(fields["epoch"])
        and _is_uint63(fields["seq"])
        and is_bytes(fields["key"], KEY_ID_BYTES)
        and is_bytes(fields["nonce"], NONCE_BYTES)
        and (prev is None or (isinstance(prev, list) and len(prev) == 2 and all(map(_is_uint63, prev))))
    )
    if not is_valid:
        raise SealError("block header: a field has an invalid value")
    values = {name: fields[name] for name in _FIELDS}
    return Header1(**values, prev=None if prev is None else cast("tuple[int, int]", tuple(prev)))


def _is_uint63(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_INTEGER
