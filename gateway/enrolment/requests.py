"""Enrols a hub at a site, and renews its certificate.

roots, compared with the fingerprint ─▶ the site's time, signed ─▶ TLS checked at that time ─▶ request ─▶ files

The secret of a code is sent only after the roots were compared with the code's fingerprint, and chain, name, country and
validity of the server's certificate were checked by them.
"""

import hashlib
import hmac
import secrets
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from config.identity import ROOTS_FILE
from config.regions import is_allowed_region
from config.tls import make_client_context, make_fetching_context
from gateway.enrolment.identity import REGISTRATION_FILE, NewIdentity, NewTlsKey, SiteRecord, load_roots
from gateway.enrolment.site_client import SiteAddress, SiteError, request
from gateway.enrolment.site_clock import SiteClock
from sync.enrolment import (
    TIME_NONCE_BYTES,
    EnrolRequest,
    Grant,
    RenewRequest,
    SignedTime,
    decode_nonce,
    decode_roots,
    encode_nonce_request,
    encode_time_request,
)
from sync.invitation import Invitation
from sync.keys import HubKey
from sync.recipients import RecipientPublicKey
from sync.registration import Registration
from sync.signing import SignatureError, SigningKey, Use
from sync.site_time import verify_time
from sync.wire import WireError

_ATTACK: Final = "do not go on, and call your clinic"


def enrol(
    invitation: Invitation,
    device: SigningKey,
    command: RecipientPublicKey,
    folder: Path,
    clock: SiteClock,
    hub_key: HubKey | None = None,
) -> SiteRecord:
    """Enrol this hub with a code, and write its identity to `folder`. It may be repeated with the same code and device key.

    `hub_key` opens the TLS key that is written, where key files are sealed.

    Raises:
        SiteError: the site cannot be reached, is not the one of the code, or refuses.
        IdentityError, SiteTimeError, TlsSetupError: a file cannot be written, or TLS cannot be used.
    """
    address = SiteAddress(invitation.host, invitation.port)
    root = _fetch_root(address, invitation.root_fingerprint)
    region = _country_of(root)
    time_s = _fetch_time(address, (root,), region)
    if (folder / ROOTS_FILE).exists() and root in load_roots(folder):
        clock.set(time_s)
    else:
        clock.begin(time_s)
    context = make_client_context(ssl.DER_cert_to_PEM_cert(root), region, now_s=lambda: time_s)
    tls = SigningKey.generate(Use.TLS)
    answer = request(address, context, "/v2/enrol", EnrolRequest.make(invitation.secret, device, tls, command).encode())
    return _save(answer, NewTlsKey(tls, hub_key), address, region, folder)


def renew(device: SigningKey, folder: Path, clock: SiteClock, hub_key: HubKey | None = None) -> SiteRecord:
    """Take a new certificate for a new TLS key. The present one may have expired: the device key signs.

    `hub_key` opens the TLS key that is written, where key files are sealed.

    Raises:
        SiteError: the site cannot be reached, or refuses.
        IdentityError, SiteTimeError, TlsSetupError: the hub is not enrolled, a file cannot be used, or TLS cannot be used.
    """
    site, roots = SiteRecord.load(folder), load_roots(folder)
    address = SiteAddress(site.host, site.port)
    time_s = _fetch_time(address, roots, site.region)
    clock.set(time_s)
    context = make_client_context("".join(map(ssl.DER_cert_to_PEM_cert, roots)), site.region, now_s=lambda: time_s)
    tls = SigningKey.generate(Use.TLS)
    try:
        nonce = decode_nonce(request(address, context, "/v2/nonce", encode_nonce_request(site.hub)))
    except WireError as error:
        raise _not_understood(address, error) from error
    answer = request(address, context, "/v2/renew", RenewRequest.make(site.hub, nonce, device, tls).encode())
    return _save(answer, NewTlsKey(tls, hub_key), address, site.region, folder, hub=site.hub)


def _fetch_root(address: SiteAddress, fingerprint: bytes) -> bytes:
    """Return the root certificate that the code names. The server that sends it proves nothing."""
    try:
        roots = decode_roots(request(address, make_fetching_context(), "/v2/roots"))
    except WireError as error:
        raise _not_understood(address, error) from error
    for root in roots:
        if hmac.compare_digest(hashlib.sha256(root).digest(), fingerprint):
            return root
    raise SiteError(f"the server {address} is not the site that made this code; the code was not sent to it: {_ATTACK}")


def _country_of(root: bytes) -> str:
    names = x509.load_der_x509_certificate(root).subject.get_attributes_for_oid(NameOID.COUNTRY_NAME)
    country = str(names[0].value) if names else "an unknown country"
    if not is_allowed_region(country):
        raise SiteError(f"the site of this code is in {country}, outside the EU and the EEA: {_ATTACK}")
    return country


def _fetch_time(address: SiteAddress, roots: tuple[bytes, ...], region: str) -> int:
    """Return the site's time in seconds since 1970. Chain and name of the server are checked, its validity is not yet."""
    context = make_client_context("".join(map(ssl.DER_cert_to_PEM_cert, roots)), region, now_s=None)
    nonce = secrets.token_bytes(TIME_NONCE_BYTES)
    try:
        return verify_time(SignedTime.decode(request(address, context, "/v2/time", encode_time_request(nonce))), nonce, roots)
    except WireError as error:
        raise _not_understood(address, error) from error
    except SignatureError as error:
        raise SiteError(f"the server {address} tells a time that your clinic did not sign: {_ATTACK}") from error


def _save(
    answer: bytes, tls: NewTlsKey, address: SiteAddress, region: str, folder: Path, *, hub: str | None = None
) -> SiteRecord:
    """Check what was granted, and write it. A renewal is for the same hub."""
    try:
        grant = Grant.decode(answer)
        leaf = x509.load_der_x509_certificate(grant.chain[0])
        for root in grant.roots:
            x509.load_der_x509_certificate(root)
    except (WireError, ValueError) as error:
        raise _not_understood(address, error) from error
    registration = Registration.parse(grant.registration, folder / REGISTRATION_FILE, grant.hub)
    is_ours = leaf.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) == tls.key.public.to_bytes()
    if not is_ours or grant.subject not in registration.recipients or hub not in (None, grant.hub):
        raise SiteError(f"the server {address} sent a certificate or registration for another hub: call your clinic")
    if not all(is_allowed_region(broker.region) for broker in grant.brokers):
        raise SiteError(f"the server {address} names a broker outside the EU and the EEA: call your clinic")
    record = SiteRecord(
        address.host,
        address.port,
        region,
        grant.hub,
        grant.subject,
        int(leaf.not_valid_before_utc.timestamp()),
        int(leaf.not_valid_after_utc.timestamp()),
        [[broker.host, broker.port, broker.region] for broker in grant.brokers],
    )
    NewIdentity(grant, tls.to_pem(), record).save(folder)
    return record


def _not_understood(address: SiteAddress, error: Exception) -> SiteError:
    return SiteError(f"the answer of {address} cannot be understood ({error}): check the code, or update pulsegate")
