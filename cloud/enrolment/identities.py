"""The certificates of the enrolment service itself: one for TLS, and one for the key that signs the time.

folder/tls/identity.pem     private key and chain for TLS (`config.tls`)
folder/time/identity.pem    the same for the time; `sync.site_time` verifies it
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from cloud.errors import ClinicError
from cloud.site import Authority
from config.identity import IDENTITY_FILE, write_identity
from sync.enrolment import TIME_SERVICE_NAME, SignedTime
from sync.signing import SigningKey, Use

TLS_NAME: Final = "enrolment"
TIME_NAME: Final = "time"
"""Names of the two services in their certificates."""
_RENEW_AFTER: Final = 2 / 3
"""The part of a certificate's life after which the service takes a new one."""


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
    _keep(authority, folder / "tls", TLS_NAME, hosts, now_s)
    return folder / "tls"


def load_time_signer(authority: Authority, folder: Path, now_s: int) -> TimeSigner:
    """Return the signer of the time; its certificate is made, or renewed when it is due.

    Raises:
        ClinicError: the site cannot issue it, or a file cannot be read or written.
    """
    pem = _keep(authority, folder / "time", TIME_NAME, [TIME_SERVICE_NAME], now_s)
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in x509.load_pem_x509_certificates(pem))
    return TimeSigner(SigningKey(Use.TIME, key), chain)


def _keep(authority: Authority, folder: Path, name: str, hosts: list[str], now_s: int) -> bytes:
    """Return an identity file's content; the file is replaced if it is missing, due or for other hosts."""
    path = folder / IDENTITY_FILE
    try:
        if path.exists() and not _is_due(path.read_bytes(), authority, hosts, now_s):
            return path.read_bytes()
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = authority.issue_service(name, hosts, key.public_key(), now_s)
        write_identity(folder, pem, chain, authority.roots)
    except (OSError, ValueError) as error:
        raise ClinicError(f"cannot use {path} ({error}): delete it, and check its folder") from error
    return pem + chain


def _is_due(pem: bytes, authority: Authority, hosts: list[str], now_s: int) -> bool:
    """Whether a certificate is for other hosts, issued below an older root than new codes name, or in its last third."""
    leaf, issuing, *_ = x509.load_pem_x509_certificates(pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    present = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
    begin_s, end_s = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    is_of_older_root = issuing.issuer != x509.load_pem_x509_certificates(authority.roots)[0].subject
    return is_of_older_root or present != set(hosts) or now_s >= begin_s + _RENEW_AFTER * (end_s - begin_s)
