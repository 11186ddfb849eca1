"""Makes all TLS contexts: TLS 1.3 only, AES-GCM only (BSI TR-02102-2), chain and name checked. No setting weakens them.

The suites are set by OpenSSL's configuration (`config.openssl`), because Python 3.11 cannot set those of TLS 1.3. A process
whose OpenSSL offers another suite gets no context.
"""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from config.egress import allow_endpoint
from config.endpoint import Endpoint
from config.identity import IDENTITY_FILE, ROOTS_FILE
from config.openssl import TLS_POLICY
from config.regions import ALLOWED_REGION, is_allowed_region

SUITES: Final = frozenset({"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"})
"""BSI TR-02102-2, suites of TLS 1.3, without those of CCM, which OpenSSL does not offer by default."""
_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h): a client checks the time itself, by a clock that may not be the system's."""


class TlsSetupError(Exception):
    """TLS cannot be used: a file is missing or damaged, or OpenSSL offers more than is allowed. The message says what to do."""


class PeerError(ssl.SSLCertVerificationError):
    """The server's certificate is refused by a check of ours: its country, or its validity. The message says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(ssl.SSLErrorNumber.SSL_ERROR_SSL, reason)


class ClientContext(ssl.SSLContext):
    """A context of a client. Each handshake with it also checks the server's country, and the validity of its chain.

    `failure` is the last error of TLS on a connection: paho does not pass it on.
    """

    region: str
    now_s: Callable[[], float] | None
    failure: ssl.SSLError | None = None


def make_client_context(
    roots: str,
    region: str,
    *,
    identity: Path | None = None,
    password: bytes = b"",
    now_s: Callable[[], float] | None = time.time,
) -> ClientContext:
    """Return the context of a client.

    Args:
        roots: the roots of the site as PEM; nothing else is trusted.
        region: the country where the server must be, by its issuing CA (ISO 3166-1 alpha-2).
        identity: the folder with `identity.pem`; None for a client without a certificate.
        password: opens the private key in it, if that is encrypted.
        now_s: the time by which certificates are valid, in seconds since 1970. A hub's own clock may be wrong. None: the hub
            does not know the time yet, and asks for nothing but a signed time.

    Raises:
        TlsSetupError: the region is outside the EU and the EEA, a file cannot be used, or OpenSSL offers more than is allowed.
    """
    if not is_allowed_region(region):
        raise TlsSetupError(f"region {region!r} is not allowed: set it to {ALLOWED_REGION}")
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.region, context.now_s = region, now_s
    context.sslsocket_class, context.sslobject_class = _CheckedSocket, _CheckedObject
    _restrict(context)
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | ssl.VERIFY_X509_STRICT | _NO_CHECK_TIME)
    _load_trust(context, roots)
    if identity is not None:
        load_identity(context, identity, password)
    return context


def make_fetching_context() -> ssl.SSLContext:
    """Return the context of a client that does not know the site's roots yet. It checks nothing of the server.

    Nothing but the roots is fetched with it, which are then compared with a fingerprint, and nothing is sent.

    Raises:
        TlsSetupError: OpenSSL offers more than is allowed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _restrict(context)
    return context


def make_endpoint_context(
    endpoint: Endpoint, now_s: Callable[[], float] = time.time, password: bytes = b""
) -> ClientContext | None:
    """Return the context for a configured server, which this process may then connect to; None for one here without TLS.

    The files are read each time, so a renewed certificate is used by the next connection.

    Raises:
        TlsSetupError: as `make_client_context` does.
    """
    if endpoint.identity is None or endpoint.region is None:
        return None
    allow_endpoint(endpoint.host, endpoint.port)
    roots = read_roots(endpoint.identity)
    return make_client_context(roots, endpoint.region, identity=endpoint.identity, password=password, now_s=now_s)


def make_server_context(
    identity: Path, *, anchors: Path | None = None, crl: Path | None = None, is_required: bool = True
) -> ssl.SSLContext:
    """Return the context of a server.

    To use renewed files without a restart, call `load_identity` and `load_revoked` on it: new connections follow them.

    Args:
        identity: the folder with `identity.pem`.
        anchors: whose client certificates are accepted (`cloud.site`: one kind only); None asks for no certificate.
        crl: their revocation lists; given with `anchors`.
        is_required: refuse clients without a certificate. Otherwise the application must.

    Raises:
        TlsSetupError: the files cannot be used, or OpenSSL offers more than is allowed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    load_identity(context, identity)
    if anchors is not None and crl is not None:
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
        context.num_tickets = 0  # a resumed session would not check the certificate again
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_LEAF
        _load_trust(context, _read(anchors))
        load_revoked(context, crl)
    return context


def read_roots(identity: Path) -> str:
    """Return the roots in the folder of an identity as PEM.

    Raises:
        TlsSetupError: the file cannot be read.
    """
    return _read(identity / ROOTS_FILE)


def load_identity(context: ssl.SSLContext, identity: Path, password: bytes = b"") -> None:
    """Load `identity.pem`: a private key and the chain of its certificate, in one file so that both change at once.

    Raises:
        TlsSetupError: the file is missing, damaged, or accessible to other users.
    """
    path = identity / IDENTITY_FILE
    try:
        if path.stat().st_mode & 0o077:
            raise TlsSetupError(f"{path} is accessible to other users: run chmod 600 on it")
        context.load_cert_chain(path, password=lambda: password)  # without it OpenSSL would ask at the terminal
    except ssl.SSLError as error:
        raise TlsSetupError(f"{path} holds no key with its certificate ({error.reason}): get a new certificate") from error
    except OSError as error:
        raise TlsSetupError(f"cannot read {path} ({error.strerror}): get a certificate of the site first") from error


def load_revoked(context: ssl.SSLContext, crl: Path) -> None:
    """Load revocation lists; of two lists by the same issuer the newer one counts.

    Raises:
        TlsSetupError: the file is missing or damaged.
    """
    try:
        context.load_verify_locations(crl)
    except OSError as error:
        raise TlsSetupError(f"cannot read the revocation lists {crl} ({error}): write them again") from error


def explain_failure(error: ssl.SSLError) -> str:
    """Return what a failed handshake means and what to do, as the continuation of "the server …"."""
    if isinstance(error, PeerError):
        return str(error.strerror)
    if isinstance(error, ssl.SSLCertVerificationError):
        default = (
            f"has a certificate that is not valid ({error.verify_message}): check that host and port are those of your site"
        )
        return _VERIFY_FAILURES.get(error.verify_code, default)
    return _ALERTS.get(error.reason or "", f"cannot agree on TLS ({error.reason or error}): check host and port")


_OTHER_SITE: Final = "has a certificate of another site: check host and port; if your site has a new root, enrol again"
_OTHER_NAME: Final = "has a certificate for another name: set host to the name by which your site is reached"
_VERIFY_FAILURES: Final = {
    **dict.fromkeys((2, 18, 19, 20, 21), _OTHER_SITE),  # X509_V_ERR_…: no chain to one of our roots
    **dict.fromkeys((62, 64), _OTHER_NAME),  # …_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH
    26: "has a certificate that is not for servers: check host and port",  # …_INVALID_PURPOSE
}
_TOO_OLD: Final = "speaks no TLS 1.3: update it; nothing older is used"
_ALERTS: Final = {
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "refuses our certificate, which has expired: it is used again when it is renewed",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "refuses our certificate, which was revoked: ask the clinic, and enrol again",
    "TLSV1_ALERT_UNKNOWN_CA": "refuses our certificate, which is of another site or purpose: enrol again",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "asks for a certificate: enrol first",
    "SSLV3_ALERT_BAD_CERTIFICATE": "refuses our certificate: enrol again",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "offers no cipher suite that BSI TR-02102-2 lists: change its configuration",
    "TLSV1_ALERT_PROTOCOL_VERSION": _TOO_OLD,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "WRONG_VERSION_NUMBER": "does not speak TLS at this port: check the port",
}
"""OpenSSL's reason codes; those with ALERT are what the other side says."""


class _CheckedSocket(ssl.SSLSocket):
    """A socket of a `ClientContext`."""

    def do_handshake(self, block: bool = False) -> None:
        with _noting_failure(self):
            super().do_handshake(block)
            _check_server(self)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """Read; in TLS 1.3 a server refuses a client's certificate only after the client's handshake has ended."""
        with _noting_failure(self):
            return super().read(len, buffer)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send. If the server has closed, read what it said first: why it refuses a certificate."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            with suppress(OSError, ValueError):  # ValueError: the socket is closed
                self.read(1)
            self.close()
            raise


class _CheckedObject(ssl.SSLObject):
    """TLS without a socket, as asyncio uses it, of a `ClientContext`."""

    def do_handshake(self) -> None:
        with _noting_failure(self):
            super().do_handshake()
            _check_server(self)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        with _noting_failure(self):
            return super().read(len, buffer)


@contextmanager
def _noting_failure(tls: ssl.SSLSocket | ssl.SSLObject) -> Iterator[None]:
    """Keep an error of TLS in the context, and close the socket: it is of no use then, and pg8000 leaves it open."""
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise
    except ssl.SSLError as error:
        if isinstance(tls.context, ClientContext):
            tls.context.failure = error
        if isinstance(tls, ssl.SSLSocket):
            tls.close()
        raise


def _check_server(tls: Any) -> None:
    """Check what OpenSSL did not: the validity of the chain by the context's clock, and the country of the issuing CA.

    Raises:
        PeerError: one of them is not right.
    """
    context: ClientContext = tls.context
    chain = [certificate.get_info() for certificate in tls._sslobj.get_verified_chain()]  # public since Python 3.13, as bytes
    if context.now_s is not None:
        _check_validity(chain, context.now_s())
    country = dict(part for (part, *_) in chain[0]["issuer"]).get("countryName")
    if country != context.region:
        raise PeerError(f"is in {country}, and region is {context.region}: check host and region; the server is not used")


def _check_validity(chain: list[dict[str, Any]], now_s: float) -> None:
    for certificate in chain:
        if now_s > ssl.cert_time_to_seconds(certificate["notAfter"]):
            raise PeerError(f"has a certificate that expired on {certificate['notAfter']}: the site must renew it")
        if now_s < ssl.cert_time_to_seconds(certificate["notBefore"]):
            raise PeerError(
                f"has a certificate that is not valid before {certificate['notBefore']}: check this computer's clock"
            )


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    offered = {suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.3"}
    if offered - SUITES:
        raise TlsSetupError(
            f"OpenSSL offers {', '.join(sorted(offered - SUITES))}, which BSI TR-02102-2 does not list: another package loaded"
            f" OpenSSL before pulsegate; start the program with OPENSSL_CONF={TLS_POLICY}"
        )


def _load_trust(context: ssl.SSLContext, roots: str) -> None:
    try:
        context.load_verify_locations(cadata=roots)
    except (ssl.SSLError, ValueError) as error:
        raise TlsSetupError(f"the roots of the site are damaged ({error}): get them again from the site") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise TlsSetupError(f"cannot read {path} ({error}): get it again from the site") from error
