"""Data keys: each encrypts the blocks of one subject that are sealed on one UTC day.

A data key is committed to by HMAC-SHA-256, since AES-256-GCM-SIV alone does not bind a block to one key. The hub's device key
signs the commitment with subject and day (`KeyStatement`). A wrapped key is checked against the commitment, so anyone who has
the data key may wrap it again. `docs/protocol.md` is the reference.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from sync.cbor import encode_cbor
from sync.errors import PermanentError
from sync.recipients import RecipientKeyPair, RecipientPublicKey
from sync.signing import Label, SigningKey, VerifyingKey
from sync.wire import FORMAT, KEY_ID_BYTES

KEY_BYTES: Final = 32
_COMMITMENT_LABEL: Final = b"pulsegate data key commitment"
_WRAP_LABEL: Final = "pulsegate data key for a recipient"
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class DataKeyError(PermanentError):
    """A wrapped key does not give the data key that the hub committed to."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A random public id (16 bytes) and a secret of 256 random bits."""

    id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        return cls(os.urandom(KEY_ID_BYTES), os.urandom(KEY_BYTES))

    @property
    def commitment(self) -> bytes:
        """HMAC-SHA-256 of the data key over the label and the key's id (32 bytes)."""
        return hmac.digest(self.secret, _COMMITMENT_LABEL + self.id, hashlib.sha256)


class KeyStatement(NamedTuple):
    """The hub's signed statement for a data key: its id and commitment, the subject of its blocks, their UTC day since 1970."""

    id: bytes
    commitment: bytes
    subject: str
    day: int
    signature: bytes

    def verify(self, hub: str, device: VerifyingKey) -> None:
        """Raise SignatureError if the hub's device key did not sign this statement."""
        device.verify(self.signature, Label.DATA_KEY, hub, *self[:-1])


class WrappedKey(NamedTuple):
    """A data key's id, the fingerprint of the recipient that it is wrapped for, and the wrapped key."""

    id: bytes
    recipient: bytes
    wrapped: bytes


def sign_statement(key: DataKey, *, hub: str, subject: str, day: int, device: SigningKey) -> KeyStatement:
    """Commit to a data key, for the blocks of a subject that the hub seals on a day."""
    signature = device.sign(Label.DATA_KEY, hub, key.id, key.commitment, subject, day)
    return KeyStatement(key.id, key.commitment, subject, day, signature)


def wrap_key(key: DataKey, *, hub: str, subject: str, recipient: RecipientPublicKey) -> WrappedKey:
    """Wrap a data key for a recipient (HPKE, RFC 9180)."""
    public = MLKEM768X25519PublicKey(recipient.mlkem, recipient.x25519)
    return WrappedKey(key.id, recipient.fingerprint, _SUITE.encrypt(key.secret, public, _wrap_info(hub, subject, key.id)))


def unwrap_key(wrapped: WrappedKey, statement: KeyStatement, *, hub: str, recipient: RecipientKeyPair) -> DataKey:
    """The inverse of `wrap_key`. The statement must have been verified.

    Raises:
        DataKeyError: changed, wrapped for another recipient, hub, subject or key id, or not the key that was committed to.
    """
    private = MLKEM768X25519PrivateKey(recipient.mlkem, recipient.x25519)
    try:
        secret = _SUITE.decrypt(wrapped.wrapped, private, _wrap_info(hub, statement.subject, statement.id))
    except (InvalidTag, ValueError) as error:
        text = "cannot unwrap the data key: it was changed, or belongs to another recipient, hub, subject or key id"
        raise DataKeyError(text) from error
    key = DataKey(statement.id, secret)
    if len(secret) != KEY_BYTES or not hmac.compare_digest(key.commitment, statement.commitment):
        raise DataKeyError("the wrapped data key is not the one that the hub committed to")
    return key


def _wrap_info(hub: str, subject: str, key_id: bytes) -> bytes:
    return encode_cbor([_WRAP_LABEL, FORMAT, hub, subject, key_id])
