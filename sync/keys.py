"""The hub's keys. The hub key encrypts what only the hub itself needs to read: the data keys and the state in its buffer."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from sync.data_keys import KEY_BYTES
from sync.key_files import check_private_file, create_secret_file
from sync.seal import NONCE_BYTES, SealError, random_nonce
from sync.signing import SigningKey

_VERSION: Final = b"\x01"
_CHECK_VALUE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class HubKey:
    """A secret of 256 random bits that never leaves the hub. The clinic unwraps data keys with a private key of its own."""

    secret: bytes = field(repr=False)

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Read a plain key file (32 bytes, mode 0600), or create it with a new random key.

        Raises:
            SealError: the file is accessible to other users, has another length, or can be neither read nor created.
        """
        if not path.exists():
            create_secret_file(path, os.urandom(KEY_BYTES))
        check_private_file(path)
        try:
            secret = path.read_bytes()
        except OSError as error:
            raise SealError(
                f"cannot read the hub key file {path}: {error.strerror}; make it readable to the user who runs pulsegate"
            ) from error
        if len(secret) != KEY_BYTES:
            raise SealError(
                f"the hub key file {path} has {len(secret)} bytes, not {KEY_BYTES}: restore it from a backup,"
                " or delete it if this hub has no buffer yet"
            )
        return cls(secret)

    def tls_password(self) -> bytes:
        """The password of the file with the hub's TLS key, where key files are sealed: 64 digits (HKDF-Expand, RFC 5869)."""
        return HKDFExpand(SHA256(), KEY_BYTES, b"pulsegate TLS key file").derive(self.secret).hex().encode()

    def check_value(self) -> bytes:
        """16 bytes that identify this key without revealing it (HKDF-Expand, RFC 5869)."""
        return HKDFExpand(SHA256(), _CHECK_VALUE_BYTES, b"pulsegate hub key check value").derive(self.secret)

    def seal(self, plaintext: bytes, purpose: bytes) -> bytes:
        """Seal for this hub only; `open` needs the same `purpose`.

        version (u8 = 1) | nonce (12 bytes) | ciphertext | tag
        """
        nonce = random_nonce()
        return _VERSION + nonce + AESGCMSIV(self.secret).encrypt(nonce, plaintext, _VERSION + purpose)

    def open(self, sealed: bytes, purpose: bytes) -> bytes:
        """The inverse of `seal`.

        Raises:
            SealError: sealed with another hub key or for another purpose, changed since, or of a newer version.
        """
        start = len(_VERSION) + NONCE_BYTES
        if sealed[: len(_VERSION)] != _VERSION:
            raise SealError("data in the buffer has a format that this version cannot open: update pulsegate")
        try:
            return AESGCMSIV(self.secret).decrypt(sealed[len(_VERSION) : start], sealed[start:], _VERSION + purpose)
        except (InvalidTag, ValueError) as error:
            raise SealError(
                "cannot open data in the buffer: it was changed, or sealed with another hub key or for another purpose;"
                " restore the key file that belongs to this buffer"
            ) from error


@dataclass(frozen=True, slots=True)
class HubKeys:
    """The secrets of a hub: `hub` seals what stays on the hub, `device` signs what the clinic receives."""

    hub: HubKey
    device: SigningKey
