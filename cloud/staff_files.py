"""Makes what a person needs to look at the page: a PKCS#12 file for a browser, or a certificate for a key of their own."""

import secrets
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from cloud.errors import ClinicError

_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters and digits that nobody mistakes for another: no i, l, o, 0 and 1."""
_GROUPS: Final = 5
_GROUP_CHARS: Final = 5
"""25 characters of 31 hold 123 bits: nobody guesses a password of a stolen file."""
KDF_ROUNDS: Final = 100_000
"""Rounds of PBKDF2 (SHA-256) over the password. It is random, so that they need not slow down guesses; browsers take 0.1 s."""


def make_password() -> str:
    """Return a new random password of a file, in groups."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_CHARS)) for _ in range(_GROUPS))


def make_pkcs12(name: str, key: ec.EllipticCurvePrivateKey, chain: bytes, password: str) -> bytes:
    """Return a PKCS#12 file (RFC 7292) with a key and its certificates (PEM, the leaf first), encrypted by AES-256."""
    leaf, *issuers = x509.load_pem_x509_certificates(chain)
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(KDF_ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(password.encode())
    )
    return pkcs12.serialize_key_and_certificates(name.encode(), key, leaf, issuers, encryption)


def read_request(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a certificate request (PKCS#10). Its name and extensions are not used.

    Raises:
        ClinicError: it is damaged, not signed by its own key, or of another kind of key.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        key, is_signed = request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise ClinicError("the file holds no certificate request in PEM: make it with openssl req -new") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not is_signed:
        raise ClinicError("the request is not signed by a key on the curve P-256 or P-384 of its own: make a new one")
    return key
