"""The certificates of the enrolment service itself: one for TLS, and one for the key that signs the time.

folder/tls/identity.pem     private key and chain for TLS (`config.tls`)
folder/time/identity.pem    the same for the time; `sync.site_time` verifies it
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from cloud.errors import ClinicError
from cloud.site import Authority
from cloud.site.identity import keep_identity
from config.identity import IDENTITY_FILE
from sync.enrolment import TIME_SERVICE_NAME, SignedTime
from sync.signing import SigningKey, Use

TLS_NAME: Final = "enrolment"
TIME_NAME: Final = "time"
"""Names of the two services in their certificates."""


@dataclass(frozen=True, slots=True)
class TimeSigner:
    """Signs the site's time."""

    key: SigningKey
    chain: tuple[bytes, ...]

    def sign(self, nonce: bytes, time_s: int) -> SignedTime:
        return SignedTime.make(nonce, time_s, self.key, self.chain)


def keep_tls_identity(authority: Authority, folder: Path, hosts: list[str], now_s: int) -> Path:
    """Return the folder with a TLS identity for `hosts`; it is made, or renewed when it is due.

    Raises:
        ClinicError: the site cannot issue it, or a file cannot be written.
    """
    keep_identity(authority, folder / "tls", TLS_NAME, hosts, now_s)
    return folder / "tls"


def load_time_signer(authority: Authority, folder: Path, now_s: int) -> TimeSigner:
    """Return the signer of the time; its certificate is made, or renewed when it is due.

    Raises:
        ClinicError: the site cannot issue it, or a file cannot be read or written.
    """
    keep_identity(authority, folder / "time", TIME_NAME, [TIME_SERVICE_NAME], now_s)
    path = folder / "time" / IDENTITY_FILE
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise ClinicError(f"cannot read {path} ({error}): check its folder") from error
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in x509.load_pem_x509_certificates(pem))
    return TimeSigner(SigningKey(Use.TIME, key), chain)
