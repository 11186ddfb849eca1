"""Data keys of format 1 that the clinic wrapped again, for their subject's recipient. No hub has committed to such a key."""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from sync.cbor import encode_cbor
from sync.data_keys import DataKey, DataKeyError, WrappedKey
from sync.recipients import RecipientKeyPair, RecipientPublicKey
from sync.wire import FORMAT

_LABEL: Final = "pulsegate data key of format 1 for a recipient"
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def wrap_again(key: DataKey, *, hub: str, subject: str, recipient: RecipientPublicKey) -> WrappedKey:
    """Wrap a data key of format 1 for a recipient (HPKE, RFC 9180)."""
    public = MLKEM768X25519PublicKey(recipient.mlkem, recipient.x25519)
    return WrappedKey(key.id, recipient.fingerprint, _SUITE.encrypt(key.secret, public, _info(hub, subject, key.id)))


def unwrap_again(wrapped: WrappedKey, *, hub: str, subject: str, recipient: RecipientKeyPair) -> DataKey:
    """The inverse of `wrap_again`.

    Raises:
        DataKeyError: changed, or wrapped for another recipient, hub, subject or key id.
    """
    private = MLKEM768X25519PrivateKey(recipient.mlkem, recipient.x25519)
    try:
        return DataKey(wrapped.id, _SUITE.decrypt(wrapped.wrapped, private, _info(hub, subject, wrapped.id)))
    except (InvalidTag, ValueError) as error:
        text = "cannot unwrap the data key: it was changed, or belongs to another recipient, hub, subject or key id"
        raise DataKeyError(text) from error


def _info(hub: str, subject: str, key_id: bytes) -> bytes:
    return encode_cbor([_LABEL, FORMAT, hub, subject, key_id])
