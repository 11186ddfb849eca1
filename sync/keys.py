"""The hub's own key: what opens the buffer on the hub itself."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from sync.seal import KEY_BYTES, NONCE_BYTES, SealError, create_secret_file, random_nonce, refuse_shared_file

_VERSION: Final = b"\x01"
_CHECK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class HubKey:
    """256 random bits. What is sealed with them stays on the hub; the clinic has its own way to the data keys."""

    secret: bytes = field(repr=False)

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Read the key file (32 bytes, mode 0600), or create it with a new random key.

        Raises:
            SealError: open to others than its owner, of another length, or neither readable nor to be created.
        """
        if not path.exists():
            create_secret_file(path, os.urandom(KEY_BYTES))
        refuse_shared_file(path)
        try:
            secret = path.read_bytes()
        except OSError as error:
            raise SealError(f"cannot read the hub key file {path}: {error.strerror}") from error
        if len(secret) != KEY_BYTES:
            raise SealError(f"the hub key file {path} has {len(secret)} bytes, not {KEY_BYTES}: restore it from a copy")
        return cls(secret)

    def check_value(self) -> bytes:
        """16 bytes that tell this key from another and say nothing about it (HKDF-Expand, RFC 5869)."""
        return HKDFExpand(SHA256(), _CHECK_BYTES, b"pulsegate hub key check value").derive(self.secret)

    def seal(self, plaintext: bytes, purpose: bytes) -> bytes:
        """Seal for this hub alone: version (u8 = 1) | nonce (12 bytes) | ciphertext | tag. `purpose` binds it to its use."""
        nonce = random_nonce()
        return _VERSION + nonce + AESGCMSIV(self.secret).encrypt(nonce, plaintext, _VERSION + purpose)

    def open(self, sealed: bytes, purpose: bytes) -> bytes:
        """The inverse of `seal`.

        Raises:
            SealError: sealed with another hub key or for another purpose, changed, or of a newer version.
        """
        start = len(_VERSION) + NONCE_BYTES
        if sealed[: len(_VERSION)] != _VERSION:
            raise SealError("sealed in a form that this pulsegate does not know; update")
        try:
            return AESGCMSIV(self.secret).decrypt(sealed[len(_VERSION) : start], sealed[start:], _VERSION + purpose)
        except (InvalidTag, ValueError) as error:
            raise SealError("sealed with another hub key or for another purpose, or changed since") from error
