"""Recipients: for each subject, the key pair at the clinic for which the hub wraps data keys (HPKE, ML-KEM-768 + X25519).

Destroying the pair makes every block of the subject unreadable, in every copy.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from sync.key_files import create_private_file, load_private_file
from sync.wire import FINGERPRINT_BYTES, FORMAT

_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64
_X25519_BYTES: Final = 32
_PRIVATE_TITLE: Final = f"pulsegate recipient private key, version {FORMAT}"


@dataclass(frozen=True, slots=True)
class RecipientPublicKey:
    """The key that a hub wraps data keys of one subject for: an ML-KEM-768 and an X25519 public key."""

    mlkem: MLKEM768PublicKey
    x25519: X25519PublicKey

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse the ML-KEM key (1184 bytes) followed by the X25519 key (32 bytes).

        Raises:
            ValueError: another length, or not valid keys.
        """
        if len(data) != _MLKEM_PUBLIC_BYTES + _X25519_BYTES:
            raise ValueError(f"a recipient's public key has {_MLKEM_PUBLIC_BYTES + _X25519_BYTES} bytes, not {len(data)}")
        mlkem = MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_PUBLIC_BYTES])
        return cls(mlkem, X25519PublicKey.from_public_bytes(data[_MLKEM_PUBLIC_BYTES:]))

    def to_bytes(self) -> bytes:
        return self.mlkem.public_bytes_raw() + self.x25519.public_bytes_raw()

    @property
    def fingerprint(self) -> bytes:
        """The first 8 bytes of SHA-256 over `to_bytes()`."""
        return hashlib.sha256(self.to_bytes()).digest()[:FINGERPRINT_BYTES]


@dataclass(frozen=True, slots=True)
class RecipientKeyPair:
    """The private keys that unwrap the data keys of one subject."""

    mlkem: MLKEM768PrivateKey = field(repr=False)
    x25519: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @property
    def public(self) -> RecipientPublicKey:
        return RecipientPublicKey(self.mlkem.public_key(), self.x25519.public_key())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse the ML-KEM seed (64 bytes) followed by the X25519 private key (32 bytes).

        Raises:
            ValueError: another length.
        """
        if len(data) != _MLKEM_SEED_BYTES + _X25519_BYTES:
            raise ValueError(f"a recipient's private key has {_MLKEM_SEED_BYTES + _X25519_BYTES} bytes, not {len(data)}")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(data[:_MLKEM_SEED_BYTES])
        return cls(mlkem, X25519PrivateKey.from_private_bytes(data[_MLKEM_SEED_BYTES:]))

    def to_bytes(self) -> bytes:
        return self.mlkem.private_bytes_raw() + self.x25519.private_bytes_raw()

    def create(self, path: Path) -> None:
        """Create the file with access for its owner only. An existing file is never replaced.

        Raises:
            KeyFileError: the file exists, or cannot be written.
        """
        create_private_file(path, _PRIVATE_TITLE, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `create` wrote.

        Raises:
            KeyFileError: the file is missing, accessible to other users, of another kind, or damaged.
        """
        return load_private_file(path, _PRIVATE_TITLE, cls.from_bytes)
