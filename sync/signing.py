"""Signatures of hub and clinic: ECDSA over P-256 with SHA-256, written as r | s (64 bytes).

Every signature covers a label of its use, the format version and the hub. A key signs for one use of `Use` only.
`docs/protocol.md` is the reference.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from sync.cbor import encode_cbor
from sync.errors import PermanentError
from sync.key_files import Sealer, create_private_file, load_private_file, load_public_file, write_public_file
from sync.wire import FORMAT

SIGNATURE_BYTES: Final = 64
PUBLIC_KEY_BYTES: Final = 65
_SCALAR_BYTES: Final = 32
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())


class SignatureError(PermanentError):
    """A signature is not by the registered key, or not over these values."""


class Use(StrEnum):
    """What a key signs for."""

    DEVICE = "device"
    ACKNOWLEDGEMENT = "acknowledgement"
    RECEIPT = "receipt"
    AUDIT = "audit"
    TLS = "tls"
    TIME = "time"
    COMMAND = "command"


class Label(StrEnum):
    """What a signature is over: the first item of the signed list."""

    DATA_KEY = "pulsegate data key"
    ENVELOPE = "pulsegate envelope"
    ACKNOWLEDGEMENT = "pulsegate acknowledgement"
    RECEIPT = "pulsegate receipt"
    AUDIT_KEY = "pulsegate audit key"
    AUDIT_HEAD = "pulsegate audit head"
    AUDIT_CUT = "pulsegate audit cut"
    ENROLMENT = "pulsegate enrolment"
    RENEWAL = "pulsegate renewal"
    TLS_KEY = "pulsegate TLS key"
    TIME = "pulsegate time"
    STATUS = "pulsegate status"
    COMMAND = "pulsegate command"


_USES: Final = {
    Label.DATA_KEY: Use.DEVICE,
    Label.ENVELOPE: Use.DEVICE,
    Label.ACKNOWLEDGEMENT: Use.ACKNOWLEDGEMENT,
    Label.RECEIPT: Use.RECEIPT,
    Label.AUDIT_KEY: Use.DEVICE,
    Label.AUDIT_HEAD: Use.AUDIT,
    Label.AUDIT_CUT: Use.AUDIT,
    Label.ENROLMENT: Use.DEVICE,
    Label.RENEWAL: Use.DEVICE,
    Label.TLS_KEY: Use.TLS,
    Label.TIME: Use.TIME,
    Label.STATUS: Use.DEVICE,
    Label.COMMAND: Use.COMMAND,
}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """The public key of a signing key, for the same use."""

    use: Use
    key: ec.EllipticCurvePublicKey = field(repr=False)

    @classmethod
    def from_bytes(cls, use: Use, data: bytes) -> Self:
        """Parse an uncompressed point of P-256 (65 bytes: 4, x, y).

        Raises:
            ValueError: not such a point.
        """
        if len(data) != PUBLIC_KEY_BYTES:
            raise ValueError(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(data)}")
        return cls(use, ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data))

    def to_bytes(self) -> bytes:
        """Return the uncompressed point. `public_bytes` needs a module of 1 MB that the agent uses for nothing else."""
        numbers = self.key.public_numbers()
        return b"\x04" + numbers.x.to_bytes(_SCALAR_BYTES, "big") + numbers.y.to_bytes(_SCALAR_BYTES, "big")

    @classmethod
    def load(cls, path: Path, use: Use) -> Self:
        """Read a file that `save` wrote.

        Raises:
            KeyFileError: the file is missing, of another kind, or damaged.
        """
        return load_public_file(path, _title(use, "public"), lambda data: cls.from_bytes(use, data))

    def save(self, path: Path) -> None:
        """Write the key; a file of that name is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        write_public_file(path, _title(self.use, "public"), self.to_bytes())

    def verify(self, signature: bytes, label: Label, hub: str, *values: Any) -> None:
        """Check a signature over [label, format, hub, *values].

        Raises:
            SignatureError: the signature is not by this key over these values, or this key is not for this label.
        """
        if _USES[label] != self.use or len(signature) != SIGNATURE_BYTES:
            raise SignatureError(f"not a signature of the {self.use} key")
        r, s = (int.from_bytes(signature[i : i + _SCALAR_BYTES], "big") for i in (0, _SCALAR_BYTES))
        try:
            self.key.verify(encode_dss_signature(r, s), _signed_bytes(label, hub, values), _ALGORITHM)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(f"the signature is not by the registered {self.use} key of hub {hub}") from error


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key for one use."""

    use: Use
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls, use: Use) -> Self:
        return cls(use, ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_bytes(cls, use: Use, data: bytes) -> Self:
        """Parse a scalar of 32 bytes, big endian.

        Raises:
            ValueError: another length, or not a scalar of P-256.
        """
        if len(data) != _SCALAR_BYTES:
            raise ValueError(f"a private key has {_SCALAR_BYTES} bytes, not {len(data)}")
        return cls(use, ec.derive_private_key(int.from_bytes(data, "big"), ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path, use: Use, sealer: Sealer | None = None) -> Self:
        """Read a file that `create` wrote. `sealer` opens one that is sealed.

        Raises:
            KeyFileError: the file is missing, accessible to other users, of another kind, or damaged.
        """
        return load_private_file(path, _title(use, "private"), lambda data: cls.from_bytes(use, data), sealer)

    @classmethod
    def load_or_create(cls, path: Path, use: Use, sealer: Sealer | None = None) -> Self:
        """Read the key file, or create it with a new random key.

        Raises:
            KeyFileError: as `load`, or the file cannot be created.
        """
        if not path.exists():
            cls.generate(use).create(path, sealer)
        return cls.load(path, use, sealer)

    def create(self, path: Path, sealer: Sealer | None = None) -> None:
        """Create the file with access for its owner only, sealed if there is a sealer. An existing file is never replaced.

        Raises:
            KeyFileError: the file exists, or cannot be written.
        """
        create_private_file(path, _title(self.use, "private"), self.to_bytes(), sealer)

    def to_bytes(self) -> bytes:
        """The scalar (32 bytes, big endian)."""
        return self.key.private_numbers().private_value.to_bytes(_SCALAR_BYTES, "big")

    @property
    def public(self) -> VerifyingKey:
        return VerifyingKey(self.use, self.key.public_key())

    def sign(self, label: Label, hub: str, *values: Any) -> bytes:
        """Sign [label, format, hub, *values]."""
        if _USES[label] != self.use:
            raise ValueError(f"the {self.use} key does not sign '{label}'")
        r, s = decode_dss_signature(self.key.sign(_signed_bytes(label, hub, values), _ALGORITHM))
        return r.to_bytes(_SCALAR_BYTES, "big") + s.to_bytes(_SCALAR_BYTES, "big")


def _signed_bytes(label: Label, hub: str, values: tuple[Any, ...]) -> bytes:
    return encode_cbor([str(label), FORMAT, hub, *values])


def _title(use: Use, part: str) -> str:
    return f"pulsegate {use} {part} key, version {FORMAT}"
