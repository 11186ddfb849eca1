"""The files of an enrolled hub, in the folder `identity` of its data folder. Each is replaced atomically and durably.

time.json           the site's time (`gateway.enrolment.site_clock`)
registration.toml   what `sync.registration` reads
roots.pem           the site's root certificates
identity.pem        the TLS key and the chain of its certificate (`config.identity`); only the owner may read it
site.json           where the hub enrolled, as whom, and until when the certificate is valid

They are written in this order: `site.json` says that all are there. A process that is killed in between leaves files that the
next enrolment or renewal replaces.
"""

import json
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from config.files import PRIVATE_MODE, replacing
from config.identity import ROOTS_FILE, write_identity
from sync.errors import PermanentError
from sync.key_files import PUBLIC_MODE
from sync.keys import HubKey
from sync.signing import SigningKey

if TYPE_CHECKING:
    from sync.enrolment import Grant

FOLDER: Final = "identity"
REGISTRATION_FILE: Final = "registration.toml"
SITE_FILE: Final = "site.json"
_END: Final = "-----END CERTIFICATE-----"


class IdentityError(PermanentError):
    """The hub is not enrolled, or a file of its identity cannot be used. The message says what to do."""


@dataclass(frozen=True, slots=True)
class SiteRecord:
    """Where a hub renews (`host`, `port`), the site's country, who the hub is, and the life of its certificate.

    Times are in seconds since 1970; `brokers` are lists of host, port and country.
    """

    host: str
    port: int
    region: str
    hub: str
    subject: str
    from_s: int
    until_s: int
    brokers: list[list[Any]]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record in an identity's folder.

        Raises:
            IdentityError: the hub is not enrolled, or the file is damaged.
        """
        path = folder / SITE_FILE
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError as error:
            raise IdentityError("this hub is not enrolled: run pulsegate enroll with a code of your clinic") from error
        except (OSError, ValueError, TypeError) as error:
            raise IdentityError(f"cannot read {path}: enrol this hub again, with a new code of your clinic") from error


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """What a hub was granted, and the key (PEM) of its new certificate."""

    grant: "Grant"
    key: bytes
    record: SiteRecord

    def save(self, folder: Path) -> None:
        """Write the files.

        Raises:
            IdentityError: a file cannot be written. What was there before still works.
        """
        try:
            _replace(folder / REGISTRATION_FILE, self.grant.registration.encode(), PUBLIC_MODE)
            write_identity(folder, self.key, _as_pem(self.grant.chain), _as_pem(self.grant.roots))
            _replace(folder / SITE_FILE, json.dumps(asdict(self.record)).encode())
        except OSError as error:
            raise IdentityError(f"cannot write to {folder} ({error.strerror}): check the folder and the disk") from error


@dataclass(frozen=True, slots=True)
class NewTlsKey:
    """The key that a certificate was asked for, and the hub key, where key files are sealed with it."""

    key: SigningKey
    hub_key: HubKey | None

    def to_pem(self) -> bytes:
        return encode_tls_key(self.key.key, self.hub_key)


def encode_tls_key(key: EllipticCurvePrivateKey, hub_key: HubKey | None) -> bytes:
    """Return a private key for TLS as PEM, encrypted where key files are sealed with the hub key."""
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  1 MB that the agent needs at a renewal only
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    encryption = NoEncryption() if hub_key is None else BestAvailableEncryption(hub_key.tls_password())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def load_roots(folder: Path) -> tuple[bytes, ...]:
    """Return the site's root certificates (DER) of an enrolled hub.

    Raises:
        IdentityError: the file is missing or damaged.
    """
    path = folder / ROOTS_FILE
    try:
        blocks = path.read_text(encoding="ascii").split(_END)[:-1]
        return tuple(ssl.PEM_cert_to_DER_cert(block.lstrip() + _END) for block in blocks)
    except (OSError, ValueError) as error:
        raise IdentityError(f"cannot read {path}: enrol this hub again, with a new code of your clinic") from error


def _as_pem(certificates: tuple[bytes, ...]) -> bytes:
    return "".join(ssl.DER_cert_to_PEM_cert(certificate) for certificate in certificates).encode()


def _replace(path: Path, content: bytes, mode: int = PRIVATE_MODE) -> None:
    with replacing(path, durable=True, mode=mode) as draft:
        draft.write_bytes(content)
