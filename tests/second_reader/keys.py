"""Keys, signatures and wrapped keys, as `docs/protocol.md` describes them."""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

from tests.second_reader import cbor
from tests.second_reader.cbor import RefusedError

VERSION: Final = 2
WRAPPED_KEY_BYTES: Final = 1120 + 48
_POINT_BYTES: Final = 65
_SEED_BYTES: Final = 64
_X25519_BYTES: Final = 32
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True)
class Recipient:
    """A key pair of the clinic for one subject."""

    private: MLKEM768X25519PrivateKey
    public: bytes

    @property
    def fingerprint(self) -> bytes:
        """The first 8 bytes of the hash of the public key."""
        return hashlib.sha256(self.public).digest()[:8]


@dataclass(frozen=True)
class Statement:
    """What a device key signed for a data key."""

    key_id: bytes
    commitment: bytes
    subject: str
    day: int
    signature: bytes


def load_recipient(private: bytes) -> Recipient:
    """Return the key pair of a private key: ML-KEM seed, then X25519 key.

    Raises:
        RefusedError: it has another length.
    """
    if len(private) != _SEED_BYTES + _X25519_BYTES:
        raise RefusedError("a recipient's private key has 96 bytes")
    kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(private[:_SEED_BYTES])
    curve = x25519.X25519PrivateKey.from_private_bytes(private[_SEED_BYTES:])
    public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    return Recipient(MLKEM768X25519PrivateKey(kem, curve), public)


def read_private_key(path: Path, title: str) -> bytes:
    """Return the content of a private key file.

    Raises:
        RefusedError: others can access it, or it has another title or form.
    """
    if path.stat().st_mode & 0o077:
        raise RefusedError(f"{path.name}: users other than the owner can access it")
    try:
        first, digits = path.read_text().splitlines()
        private = bytes.fromhex(digits)
    except ValueError:
        raise RefusedError(f"{path.name}: not a title and a line of hexadecimal digits") from None
    if first != title:
        raise RefusedError(f"{path.name}: not a {title}")
    return private


def verify_signature(point: bytes, signature: bytes, label: str, hub: str, *fields: Any) -> None:
    """Return if the key signed these fields.

    Raises:
        RefusedError: it did not, or the point is none of the curve.
    """
    if len(signature) != 64 or len(point) != _POINT_BYTES:
        raise RefusedError("a signature has 64 bytes, a public key 65")
    der = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        key.verify(der, cbor.encode([label, VERSION, hub, *fields]), ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        raise RefusedError(f"the signature of a {label} is wrong") from None


def verify_statement(point: bytes, hub: str, statement: Statement) -> None:
    """Return if the device key signed this statement.

    Raises:
        RefusedError: it did not.
    """
    fields = (statement.key_id, statement.commitment, statement.subject, statement.day)
    verify_signature(point, statement.signature, "pulsegate data key", hub, *fields)


def commit(data_key: bytes, key_id: bytes) -> bytes:
    """Return the commitment of a data key."""
    return hmac.digest(data_key, b"pulsegate data key commitment" + key_id, "sha256")


def unwrap_key(wrapped: bytes, recipient: Recipient, hub: str, statement: Statement) -> bytes:
    """Return the data key that a statement names.

    Raises:
        RefusedError: it was wrapped for others, or the statement names another key.
    """
    info = cbor.encode(["pulsegate data key for a recipient", VERSION, hub, statement.subject, statement.key_id])
    if len(wrapped) != WRAPPED_KEY_BYTES:
        raise RefusedError(f"a wrapped key has {WRAPPED_KEY_BYTES} bytes")
    try:
        data_key = _SUITE.decrypt(wrapped, recipient.private, info)
    except (InvalidTag, ValueError):
        raise RefusedError("the wrapped key does not open") from None
    if not hmac.compare_digest(commit(data_key, statement.key_id), statement.commitment):
        raise RefusedError("the statement names another data key")
    return data_key
