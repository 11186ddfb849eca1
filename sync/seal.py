"""Sealing: from plaintext to a block that only the clinic (or, on the hub, the hub's own key) opens.

    block = b"PG" | format version (u8) | header length (u16, big endian) | header (CBOR) | ciphertext | tag (16 bytes)

All before the ciphertext is the associated data of AES-256-GCM-SIV (RFC 8452), which stays safe if a cloned or restored hub
repeats a nonce. A data key serves one subject and one UTC day; for the clinic it is wrapped with HPKE (RFC 9180) over
ML-KEM-768 + X25519, so that recorded traffic stays closed to a later quantum computer. `docs/protocol.md` is the reference.
"""

import hashlib
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from sync.errors import Permanent
from sync.wire import LANES, Lane, WireError, dumps, is_count, is_name, load_map

FORMAT: Final = 1
MAGIC: Final = b"PG"
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 16
TAG_BYTES: Final = 16

_PREFIX: Final = struct.Struct(">2sBH")
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_WRAP_VERSION: Final = 1
_FINGERPRINT_BYTES: Final = 8
_HEADER_FIELDS: Final = {"hub", "subject", "epoch", "lane", "seq", "key", "nonce"}
_PUBLIC_FILE: Final = b"pulsegate clinic public key, version 1\n"
_PRIVATE_FILE: Final = b"pulsegate clinic private key, version 1\n"
_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64
_X25519_BYTES: Final = 32
T = TypeVar("T")


class SealError(Permanent):
    """Bytes that are no block, or that this key does not open."""


def random_nonce() -> bytes:
    return os.urandom(NONCE_BYTES)


@dataclass(frozen=True, slots=True)
class Header:
    """A block's clear part: where it belongs and which key opens it. No time and no value.

    `epoch` names one run of the agent, `seq` counts from 1 in each lane and epoch. `prev` is (epoch, seq) of the lane's last
    block before this epoch; only the first block of an epoch has it, and only if the lane is older than the epoch.

    Raises:
        SealError: a field is not of this form.
    """

    hub: str
    subject: str
    epoch: int
    lane: Lane
    seq: int
    key: bytes
    nonce: bytes = field(default_factory=random_nonce)
    prev: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        valid = {
            "hub": is_name(self.hub),
            "subject": is_name(self.subject),
            "epoch": is_count(self.epoch),
            "lane": self.lane in LANES,
            "seq": is_count(self.seq) and self.seq >= 1,
            "key": isinstance(self.key, bytes) and len(self.key) == KEY_ID_BYTES,
            "nonce": isinstance(self.nonce, bytes) and len(self.nonce) == NONCE_BYTES,
            "prev": self.prev is None or (self.seq == 1 and len(self.prev) == 2 and all(map(is_count, self.prev))),
        }
        wrong = [name for name, is_valid in valid.items() if not is_valid]
        if wrong:
            raise SealError(f"block header: {', '.join(wrong)} not of the form that docs/protocol.md gives")


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key of one subject and UTC day: a random id (16 bytes), which is public, and 256 random secret bits."""

    id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        return cls(os.urandom(KEY_ID_BYTES), os.urandom(KEY_BYTES))


def seal_block(header: Header, plaintext: bytes, key: DataKey) -> bytes:
    """The block of this header and plaintext.

    Raises:
        SealError: the header names another key.
    """
    if header.key != key.id:
        raise SealError("the block's header names another key than the one to seal it with")
    clear = _encode_header(header)
    return clear + AESGCMSIV(key.secret).encrypt(header.nonce, plaintext, clear)


def open_block(block: bytes, key: DataKey) -> tuple[Header, bytes]:
    """Header and plaintext of a block, both proven to be as they were sealed.

    Raises:
        SealError: not a block, sealed with another key, or changed since.
    """
    header, length = _split(block)
    if header.key != key.id:
        raise SealError("the block was sealed with another key")
    try:
        return header, AESGCMSIV(key.secret).decrypt(header.nonce, block[length:], block[:length])
    except InvalidTag as error:
        raise SealError("the block was changed after it was sealed, or its key is wrong") from error


def parse_header(block: bytes) -> Header:
    """The clear part of a block. Nothing proves it until the block is opened.

    Raises:
        SealError: not a block, or of a newer format.
    """
    return _split(block)[0]


@dataclass(frozen=True, slots=True)
class ClinicPublicKey:
    """What a hub wraps data keys for: an ML-KEM-768 and an X25519 public key."""

    mlkem: MLKEM768PublicKey
    x25519: X25519PublicKey

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """From the ML-KEM key (1184 bytes) followed by the X25519 key (32 bytes).

        Raises:
            SealError: another length, or no such keys.
        """
        if len(data) != _MLKEM_PUBLIC_BYTES + _X25519_BYTES:
            raise SealError(f"a clinic public key has {_MLKEM_PUBLIC_BYTES + _X25519_BYTES} bytes, not {len(data)}")
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_PUBLIC_BYTES])
            return cls(mlkem, X25519PublicKey.from_public_bytes(data[_MLKEM_PUBLIC_BYTES:]))
        except ValueError as error:
            raise SealError("these bytes are no clinic public key") from error

    def to_bytes(self) -> bytes:
        return self.mlkem.public_bytes_raw() + self.x25519.public_bytes_raw()

    @property
    def fingerprint(self) -> bytes:
        """The first 8 bytes of SHA-256 over `to_bytes()`."""
        return hashlib.sha256(self.to_bytes()).digest()[:_FINGERPRINT_BYTES]

    def save(self, path: Path) -> None:
        """Write the key as a text file: one line that says what it is, one of hexadecimal digits."""
        path.write_bytes(_PUBLIC_FILE + self.to_bytes().hex().encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SealError: no such file, or not a public key.
        """
        return _load(path, _PUBLIC_FILE, cls.from_bytes, "clinic public key")


@dataclass(frozen=True, slots=True)
class ClinicKeyPair:
    """What the clinic opens data keys with."""

    mlkem: MLKEM768PrivateKey = field(repr=False)
    x25519: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @property
    def public(self) -> ClinicPublicKey:
        return ClinicPublicKey(self.mlkem.public_key(), self.x25519.public_key())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """From the ML-KEM seed (64 bytes) followed by the X25519 private key (32 bytes).

        Raises:
            SealError: another length.
        """
        if len(data) != _MLKEM_SEED_BYTES + _X25519_BYTES:
            raise SealError(f"a clinic private key has {_MLKEM_SEED_BYTES + _X25519_BYTES} bytes, not {len(data)}")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(data[:_MLKEM_SEED_BYTES])
        return cls(mlkem, X25519PrivateKey.from_private_bytes(data[_MLKEM_SEED_BYTES:]))

    def to_bytes(self) -> bytes:
        return self.mlkem.private_bytes_raw() + self.x25519.private_bytes_raw()

    def save(self, path: Path) -> None:
        """Create the file, readable by its owner only. An existing file is never replaced.

        Raises:
            SealError: the file exists, or cannot be written.
        """
        create_secret_file(path, _PRIVATE_FILE + self.to_bytes().hex().encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SealError: no such file, readable by others than its owner, or not a private key.
        """
        refuse_shared_file(path)
        return _load(path, _PRIVATE_FILE, cls.from_bytes, "clinic private key")


def wrap_for_clinic(key: DataKey, *, hub: str, subject: str, clinic: ClinicPublicKey) -> bytes:
    """The data key, to be opened by the clinic only, and only as this hub's and subject's.

    version (u8 = 1) | fingerprint of the clinic's key (8 bytes) | HPKE encapsulation and ciphertext
    """
    recipient = MLKEM768X25519PublicKey(clinic.mlkem, clinic.x25519)
    sealed = _SUITE.encrypt(key.secret, recipient, _wrap_info(hub, subject, key.id))
    return bytes([_WRAP_VERSION]) + clinic.fingerprint + sealed


def unwrap_at_clinic(wrapped: bytes, *, key_id: bytes, hub: str, subject: str, clinic: ClinicKeyPair) -> DataKey:
    """The inverse of `wrap_for_clinic`; hub, subject and key id must be those it was wrapped with.

    Raises:
        SealError: of a newer version, wrapped for another clinic key, or for another hub, subject or key id, or changed.
    """
    if wrapped[:1] != bytes([_WRAP_VERSION]):
        raise SealError("the wrapped key is of a version that this pulsegate does not know; update")
    if wrapped[1 : 1 + _FINGERPRINT_BYTES] != clinic.public.fingerprint:
        raise SealError(
            "the data key was wrapped for another clinic key; give the clinic the private key that the hub enrolled"
        )
    recipient = MLKEM768X25519PrivateKey(clinic.mlkem, clinic.x25519)
    try:
        secret = _SUITE.decrypt(wrapped[1 + _FINGERPRINT_BYTES :], recipient, _wrap_info(hub, subject, key_id))
    except (InvalidTag, ValueError) as error:
        raise SealError("the wrapped key was changed, or belongs to another hub, subject or key id") from error
    if len(secret) != KEY_BYTES:
        raise SealError(f"the wrapped key holds {len(secret)} bytes, not {KEY_BYTES}")
    return DataKey(key_id, secret)


def create_secret_file(path: Path, content: bytes) -> None:
    """Create a file with mode 0600 and bring it and its name to the disk.

    Raises:
        SealError: it exists, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise SealError(f"cannot create the key file {path}: {error.strerror}") from error


def refuse_shared_file(path: Path) -> None:
    """Raise SealError where others than the owner may read or write the key file, or where there is none."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise SealError(f"cannot read the key file {path}: {error.strerror}") from error
    if mode & 0o077:
        raise SealError(f"the key file {path} is open to other users (mode {mode:04o}): run chmod 600 on it")


def _encode_header(header: Header) -> bytes:
    fields: dict[str, Any] = {name: getattr(header, name) for name in _HEADER_FIELDS}
    if header.prev is not None:
        fields["prev"] = list(header.prev)
    encoded = dumps(fields)
    return _PREFIX.pack(MAGIC, FORMAT, len(encoded)) + encoded


def _split(block: bytes) -> tuple[Header, int]:
    """The header, and how many bytes come before the ciphertext."""
    if len(block) < _PREFIX.size or not block.startswith(MAGIC):
        raise SealError("not a pulsegate block")
    _, version, length = _PREFIX.unpack_from(block)
    if version != FORMAT:
        raise SealError(f"a block of format {version}; this pulsegate reads format {FORMAT}: update")
    end = _PREFIX.size + length
    if len(block) < end + TAG_BYTES:
        raise SealError(f"a block cut short: {len(block)} bytes, at least {end + TAG_BYTES} expected")
    return _decode_header(block[_PREFIX.size : end]), end


def _decode_header(data: bytes) -> Header:
    try:
        fields = load_map(data, what="block header")
    except WireError as error:
        raise SealError(str(error)) from error
    if fields.keys() - {"prev"} != _HEADER_FIELDS:
        raise SealError("block header: fields are missing or unknown")
    if "prev" in fields:
        if not isinstance(fields["prev"], list):
            raise SealError("block header: prev is no list")
        fields["prev"] = tuple(fields["prev"])
    return Header(**fields)


def _wrap_info(hub: str, subject: str, key_id: bytes) -> bytes:
    return dumps(["pulsegate data key for the clinic", _WRAP_VERSION, hub, subject, key_id])


def _load(path: Path, first_line: bytes, parse: Callable[[bytes], T], what: str) -> T:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SealError(f"cannot read the {what} {path}: {error.strerror}") from error
    if not content.startswith(first_line):
        raise SealError(f"{path} is no {what} of version 1")
    try:
        return parse(bytes.fromhex(content[len(first_line) :].decode()))
    except ValueError as error:
        raise SealError(f"{path} is damaged: its second line is not hexadecimal") from error
