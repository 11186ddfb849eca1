"""Sealing: encrypt a plaintext to a block that only the clinic, or the hub with its own key, can open.

    block = b"PG" | format version (u8) | header length (u16, big endian) | header (CBOR) | ciphertext | tag (16 bytes)

The bytes before the ciphertext are the associated data of AES-256-GCM-SIV (RFC 8452), a cipher that stays safe if a cloned or
restored hub repeats a nonce. A data key is for one subject and one UTC day. It is wrapped for the clinic with HPKE (RFC 9180)
over ML-KEM-768 + X25519, so a future quantum computer cannot decrypt recorded traffic. `docs/protocol.md` is the reference.
"""

import hashlib
import os
import stat
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from config.files import replacing
from sync.cbor import encode_cbor
from sync.errors import PermanentError
from sync.wire import LANES, Lane, WireError, decode_cbor_map, is_name, is_uint63

FORMAT: Final = 1
MAGIC: Final = b"PG"
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 16
TAG_BYTES: Final = 16
PUBLIC_MODE: Final = 0o644
"""Mode of a public key file: any user may read it. `umask` does not apply to it."""
HEADER_LIMIT_BYTES: Final = 1024
"""A header takes less than 400 bytes; the rest is room for the fields of a later format."""

_PREFIX: Final = struct.Struct(">2sBH")
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_WRAP_VERSION: Final = 1
_FINGERPRINT_BYTES: Final = 8
_HEADER_FIELDS: Final = {"hub", "subject", "epoch", "lane", "seq", "key", "nonce"}
_PUBLIC_TITLE: Final = b"pulsegate clinic public key, version 1\n"
_PRIVATE_TITLE: Final = b"pulsegate clinic private key, version 1\n"
_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64
_X25519_BYTES: Final = 32
T = TypeVar("T")


class SealError(PermanentError):
    """Bytes are not a valid block, key or key file, or this key does not open them."""


def random_nonce() -> bytes:
    return os.urandom(NONCE_BYTES)


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """The unencrypted header of a block: its id and the key that opens it. It contains no value and no time of a reading.

    `epoch` identifies one run of the agent; `seq` counts from 1 in each lane and epoch. `prev` is (epoch, seq) of the lane's
    last block before this epoch. Only the first block of an epoch has it, and only if the lane has earlier blocks.

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
    prev: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        valid = {
            "hub": is_name(self.hub),
            "subject": is_name(self.subject),
            "epoch": is_uint63(self.epoch),
            "lane": self.lane in LANES,
            "seq": is_uint63(self.seq) and self.seq >= 1,
            "key": isinstance(self.key, bytes) and len(self.key) == KEY_ID_BYTES,
            "nonce": isinstance(self.nonce, bytes) and len(self.nonce) == NONCE_BYTES,
            "prev": self.prev is None or (self.seq == 1 and len(self.prev) == 2 and all(map(is_uint63, self.prev))),
        }
        invalid = [name for name, is_valid in valid.items() if not is_valid]
        if invalid:
            raise SealError(f"block header: invalid {', '.join(invalid)}; docs/protocol.md gives the allowed values")


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key for one subject and UTC day: a random public id (16 bytes) and a secret of 256 random bits."""

    id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        return cls(os.urandom(KEY_ID_BYTES), os.urandom(KEY_BYTES))


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
    fields: dict[str, Any] = {name: getattr(header, name) for name in _HEADER_FIELDS}
    if header.prev is not None:
        fields["prev"] = list(header.prev)
    encoded = encode_cbor(fields)
    return _PREFIX.pack(MAGIC, FORMAT, len(encoded)) + encoded


def parse_header(block: bytes) -> BlockHeader:
    """The header of a block. It is not authenticated until the block is opened.

    Raises:
        SealError: not a block, or of a newer format.
    """
    return _split_block(block)[0]


@dataclass(frozen=True, slots=True)
class ClinicPublicKey:
    """The key that a hub wraps data keys for: an ML-KEM-768 and an X25519 public key."""

    mlkem: MLKEM768PublicKey
    x25519: X25519PublicKey

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse the ML-KEM key (1184 bytes) followed by the X25519 key (32 bytes).

        Raises:
            SealError: another length, or not valid keys.
        """
        if len(data) != _MLKEM_PUBLIC_BYTES + _X25519_BYTES:
            raise SealError(f"a clinic public key has {_MLKEM_PUBLIC_BYTES + _X25519_BYTES} bytes, not {len(data)}")
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_PUBLIC_BYTES])
            return cls(mlkem, X25519PublicKey.from_public_bytes(data[_MLKEM_PUBLIC_BYTES:]))
        except ValueError as error:
            raise SealError("these bytes are not a clinic public key") from error

    def to_bytes(self) -> bytes:
        return self.mlkem.public_bytes_raw() + self.x25519.public_bytes_raw()

    @property
    def fingerprint(self) -> bytes:
        """The first 8 bytes of SHA-256 over `to_bytes()`."""
        return hashlib.sha256(self.to_bytes()).digest()[:_FINGERPRINT_BYTES]

    def save(self, path: Path) -> None:
        """Write the key as a text file: a title line, then a line of hexadecimal digits. A file of that name is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        with replacing(path, durable=True, mode=PUBLIC_MODE) as draft:
            draft.write_bytes(_PUBLIC_TITLE + self.to_bytes().hex().encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            SealError: the file is missing, unreadable or not a public key.
        """
        return _load_key_file(path, _PUBLIC_TITLE, cls.from_bytes, "clinic public key")


@dataclass(frozen=True, slots=True)
class ClinicKeyPair:
    """The clinic's private keys, which unwrap data keys."""

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
        """Parse the ML-KEM seed (64 bytes) followed by the X25519 private key (32 bytes).

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
        """Create the file with access for its owner only. An existing file is never replaced.

        Raises:
            SealError: the file exists, or cannot be written.
        """
        create_secret_file(path, _PRIVATE_TITLE + self.to_bytes().hex().encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            SealError: the file is missing, accessible to other users, or not a private key.
        """
        check_private_file(path)
        return _load_key_file(path, _PRIVATE_TITLE, cls.from_bytes, "clinic private key")


def wrap_for_clinic(key: DataKey, *, hub: str, subject: str, clinic: ClinicPublicKey) -> bytes:
    """Wrap a data key for the clinic; unwrapping requires the same hub, subject and key id.

    version (u8 = 1) | fingerprint of the clinic's key (8 bytes) | HPKE encapsulation and ciphertext
    """
    recipient = MLKEM768X25519PublicKey(clinic.mlkem, clinic.x25519)
    sealed = _SUITE.encrypt(key.secret, recipient, _wrap_info(hub, subject, key.id))
    return bytes([_WRAP_VERSION]) + clinic.fingerprint + sealed


def unwrap_at_clinic(wrapped: bytes, *, key_id: bytes, hub: str, subject: str, clinic: ClinicKeyPair) -> DataKey:
    """The inverse of `wrap_for_clinic`, for the same hub, subject and key id.

    Raises:
        SealError: of a newer version, changed, or wrapped for another clinic key, hub, subject or key id.
    """
    if wrapped[:1] != bytes([_WRAP_VERSION]):
        raise SealError("cannot unwrap the data key: it was wrapped by a newer version; update pulsegate")
    if wrapped[1 : 1 + _FINGERPRINT_BYTES] != clinic.public.fingerprint:
        raise SealError(
            "the data key was wrapped for another clinic key; give the clinic the private key whose public key the hub uses"
        )
    recipient = MLKEM768X25519PrivateKey(clinic.mlkem, clinic.x25519)
    try:
        secret = _SUITE.decrypt(wrapped[1 + _FINGERPRINT_BYTES :], recipient, _wrap_info(hub, subject, key_id))
    except (InvalidTag, ValueError) as error:
        raise SealError("cannot unwrap the data key: it was changed, or belongs to another hub, subject or key id") from error
    if len(secret) != KEY_BYTES:
        raise SealError(f"cannot unwrap the data key: it has {len(secret)} bytes, not {KEY_BYTES}")
    return DataKey(key_id, secret)


def create_secret_file(path: Path, content: bytes) -> None:
    """Create a file with mode 0600, complete and on the disk, or not at all: on a full disk or after a crash it does not exist.

    Raises:
        SealError: the file exists, or cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # creates it with mode 0600
        draft = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # unlike a rename, it never replaces an existing file
        finally:
            draft.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise SealError(
            f"cannot create the key file {path}: {error.strerror}; check that its folder is writable, has room and holds no"
            " such file"
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_private_file(path: Path) -> None:
    """Raise SealError if the key file is missing or accessible to users other than its owner."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise SealError(f"cannot read the key file {path}: {error.strerror}; check the path and its permissions") from error
    if mode & 0o077:
        raise SealError(f"the key file {path} is accessible to other users (mode {mode:04o}): run chmod 600 on it")


def _split_block(block: bytes) -> tuple[BlockHeader, int]:
    """The header, and the number of bytes before the ciphertext."""
    if len(block) < _PREFIX.size or not block.startswith(MAGIC):
        raise SealError("not a pulsegate block: it does not begin with 'PG'")
    _, version, length = _PREFIX.unpack_from(block)
    if version != FORMAT:
        raise SealError(f"the block has format {version}, this version reads format {FORMAT}: update pulsegate")
    end = _PREFIX.size + length
    if len(block) < end + TAG_BYTES:
        raise SealError(f"the block is truncated: it has {len(block)} bytes, at least {end + TAG_BYTES} expected")
    return _decode_header(block[_PREFIX.size : end]), end


def _decode_header(data: bytes) -> BlockHeader:
    try:
        fields = decode_cbor_map(data, limit_bytes=HEADER_LIMIT_BYTES, what="block header")
    except WireError as error:
        raise SealError(str(error)) from error
    if fields.keys() - {"prev"} != _HEADER_FIELDS:
        raise SealError("block header: fields are missing or unknown")
    if "prev" in fields:
        if not isinstance(fields["prev"], list):
            raise SealError("block header: prev is not a list")
        fields["prev"] = tuple(fields["prev"])
    return BlockHeader(**fields)


def _wrap_info(hub: str, subject: str, key_id: bytes) -> bytes:
    return encode_cbor(["pulsegate data key for the clinic", _WRAP_VERSION, hub, subject, key_id])


def _load_key_file(path: Path, title_line: bytes, parse: Callable[[bytes], T], what: str) -> T:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SealError(f"cannot read the {what} {path}: {error.strerror}; check the path and its permissions") from error
    if not content.startswith(title_line):
        raise SealError(f"{path} is not a {what} of version 1: give the path of a file that pulsegate created")
    try:
        return parse(bytes.fromhex(content[len(title_line) :].decode()))
    except ValueError as error:
        raise SealError(f"{path} is damaged: its second line is not hexadecimal; restore it from a backup") from error
