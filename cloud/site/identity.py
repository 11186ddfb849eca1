"""Keeps the certificate of a service: issues it, and a new one in its last third, for other hosts or below a new root."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud.errors import ClinicError
from cloud.site.authority import Authority
from config.identity import IDENTITY_FILE, write_identity

_RENEW_AFTER: Final = 2 / 3
"""The part of a certificate's life after which the service takes a new one."""


def keep_identity(authority: Authority, folder: Path, name: str, hosts: Collection[str], now_s: int) -> bool:
    """Write key and certificate of a service to a folder if they are missing or due; returns whether it did.

    Raises:
        ClinicError: the site cannot issue it, or a file cannot be written.
    """
    path = folder / IDENTITY_FILE
    try:
        if path.exists() and not _is_due(path.read_bytes(), authority, hosts, now_s):
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = authority.issue_service(name, list(hosts), key.public_key(), now_s)
        write_identity(folder, pem, chain, authority.roots)
    except (OSError, ValueError) as error:
        raise ClinicError(f"cannot use {path} ({error}): delete it, and check its folder") from error
    return True


def _is_due(pem: bytes, authority: Authority, hosts: Collection[str], now_s: int) -> bool:
    leaf, issuing, *_ = x509.load_pem_x509_certificates(pem)
    begin_s, end_s = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    is_of_older_root = issuing.issuer != x509.load_pem_x509_certificates(authority.roots)[0].subject
    return is_of_older_root or _hosts_of(leaf) != set(hosts) or now_s >= begin_s + _RENEW_AFTER * (end_s - begin_s)


def _hosts_of(leaf: x509.Certificate) -> set[str]:
    """Names and addresses of a certificate; a service that only connects has none."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
