"""Makes the certificates and revocation lists of a site (RFC 5280): ECDSA, one issuing CA for each purpose.

    root of generation n ─┬─ hubs     ── client certificates, CN = hub name
    (signed by the root   ├─ staff    ── client certificates, CN = user name
     of n-1 as well)      └─ services ── server and client certificates, CN = service name, SAN = its hosts

Functions only; `cloud.site.authority` keeps the keys.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY_S: Final = 24 * 3600
_YEAR_S: Final = 365 * _DAY_S
ROOT_LIFE_S: Final = 15 * _YEAR_S
"""Hubs pin the root; it outlives three generations of issuing CAs, so that a hub which was away for years still trusts one."""
ISSUING_LIFE_S: Final = 5 * _YEAR_S
"""The time for which one issuing key is in use."""
BACKDATE_S: Final = 300
"""A certificate is valid from so long before it was issued: the clocks of a site's machines differ by less."""
CRL_LIFE_S: Final = 7 * _DAY_S
"""A revocation list is written anew every hour; a site whose timer stops has days until the broker refuses all."""


class Kind(StrEnum):
    """What a certificate is for. Each kind has an issuing CA of its own."""

    HUBS = "hubs"
    STAFF = "staff"
    SERVICES = "services"


LIFE_S: Final = {Kind.HUBS: 7 * _DAY_S, Kind.STAFF: 90 * _DAY_S, Kind.SERVICES: 90 * _DAY_S}
"""Hubs renew by themselves and their keys lie in patients' homes; people and services renew by hand or by a timer."""
_USAGES: Final = {
    Kind.HUBS: (ExtendedKeyUsageOID.CLIENT_AUTH,),
    Kind.STAFF: (ExtendedKeyUsageOID.CLIENT_AUTH,),
    Kind.SERVICES: (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
}
_CA_KEY_USAGE: Final = frozenset({"key_cert_sign", "crl_sign"})
_LEAF_KEY_USAGE: Final = frozenset({"digital_signature"})
_HASH: Final = hashes.SHA384()


@dataclass(frozen=True, slots=True)
class SiteName:
    """Who and where a site is: its name, the code of its country (ISO 3166-1 alpha-2) and a region in it, such as Bayern."""

    site: str
    country: str
    region: str

    def with_common_name(self, common_name: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, self.country),
                x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, self.region),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.site),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )


@dataclass(frozen=True, slots=True)
class Signer:
    """A CA: its certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revoked certificate, and when it was revoked (seconds since 1970)."""

    serial: int
    revoked_s: int


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key of a CA (P-384)."""
    return ec.generate_private_key(ec.SECP384R1())


def make_root(name: x509.Name, key: ec.EllipticCurvePrivateKey, now_s: int) -> x509.Certificate:
    """Return the certificate of a root, signed by itself."""
    builder = _begin(name, key.public_key(), now_s, now_s + ROOT_LIFE_S).issuer_name(name)
    return _add_ca(builder, path_length=None, usages=()).sign(key, _HASH)


def cross_sign(root: x509.Certificate, older: Signer) -> x509.Certificate:
    """Return a certificate of a root signed by the root before it: who trusts that one only accepts the new one too.

    It ends with the older root at the latest (RFC 4210, 4.4: "new with old").
    """
    start_s, end_s = _seconds(root.not_valid_before_utc) + BACKDATE_S, _end_s(root, older)
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    builder = _begin(root.subject, key, start_s, end_s)
    return _sign(_add_ca(builder, path_length=None, usages=()), older)


def make_issuing(
    kind: Kind, name: x509.Name, key: ec.EllipticCurvePrivateKey, root: Signer, now_s: int
) -> tuple[x509.Certificate, x509.Certificate]:
    """Return the certificate of an issuing CA, and one of the same key and name that it signed itself.

    The second is a trust anchor for certificates of this kind only: a server that trusts the root would accept all kinds.
    """
    end_s = min(now_s + ISSUING_LIFE_S, _seconds(root.certificate.not_valid_after_utc))
    builder = _add_ca(_begin(name, key.public_key(), now_s, end_s), path_length=0, usages=_USAGES[kind])
    return _sign(builder, root), builder.issuer_name(name).sign(key, _HASH)


def make_leaf(
    kind: Kind, name: x509.Name, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], issuer: Signer, now_s: int
) -> x509.Certificate:
    """Return the certificate of a hub, a person or a service. It ends with its issuing CA at the latest."""
    end_s = min(now_s + LIFE_S[kind], _seconds(issuer.certificate.not_valid_after_utc))
    builder = (
        _begin(name, key, now_s, end_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(_LEAF_KEY_USAGE), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES[kind]), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(_host_name, hosts)), critical=False)
    return _sign(builder, issuer)


def make_crl(issuer: Signer, revoked: Iterable[Revocation], number: int, now_s: int) -> x509.CertificateRevocationList:
    """Return the revocation list of an issuing CA (RFC 5280, section 5)."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(_time(now_s - BACKDATE_S))
        .next_update(_time(now_s + CRL_LIFE_S))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key_id(issuer), critical=False)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(_time(one.revoked_s)).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, _HASH)


def end_s_of(certificate: x509.Certificate) -> int:
    """Return when a certificate expires, in seconds since 1970."""
    return _seconds(certificate.not_valid_after_utc)


def _begin(name: x509.Name, key: ec.EllipticCurvePublicKey, start_s: int, end_s: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(start_s - BACKDATE_S))
        .not_valid_after(_time(end_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _add_ca(
    builder: x509.CertificateBuilder, *, path_length: int | None, usages: Sequence[x509.ObjectIdentifier]
) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(_key_usage(_CA_KEY_USAGE), critical=True)
    return builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False) if usages else builder


def _sign(builder: x509.CertificateBuilder, issuer: Signer) -> x509.Certificate:
    builder = builder.issuer_name(issuer.certificate.subject)
    return builder.add_extension(_authority_key_id(issuer), critical=False).sign(issuer.key, _HASH)


def _authority_key_id(issuer: Signer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def _key_usage(allowed: frozenset[str]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital_signature" in allowed,
        key_cert_sign="key_cert_sign" in allowed,
        crl_sign="crl_sign" in allowed,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _end_s(root: x509.Certificate, older: Signer) -> int:
    return min(end_s_of(root), end_s_of(older.certificate))


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
