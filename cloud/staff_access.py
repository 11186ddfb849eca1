"""Who may look at the page of a site: persons whose staff certificate is neither expired nor revoked.

OpenSSL checks the certificate in the handshake. What has changed since then is checked here: at each request, and for open
connections every `CHECK_INTERVAL_S`.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import uvicorn
from cryptography import x509
from cryptography.x509.oid import NameOID
from starlette.types import Scope

from cloud.audit_actors import staff
from cloud.tls_extension import read_certificate
from config.tls import TlsSetupError, load_identity, load_revoked
from sync.audit import Actor

CHECK_INTERVAL_S: Final = 10.0
"""Time between two checks of the open connections: a revoked person's page ends within a minute, with a reserve."""
HSTS_S: Final = 365 * 24 * 3600
"""How long browsers use nothing but HTTPS for the page's name (RFC 6797)."""
_END: Final = b"-----END X509 CRL-----"

_log: Final = logging.getLogger(__name__)


class StaffAccess:
    """Decides by the revocation lists of the staff's issuing CAs, which it reads again when the file has changed.

    Not thread-safe: it belongs to the event loop of the page's server.
    """

    headers: Sequence[tuple[bytes, bytes]] = ((b"strict-transport-security", f"max-age={HSTS_S}".encode()),)
    refusal: str = "this page is served under its own name only"

    def __init__(
        self, hosts: Collection[str], crl: Path, context: ssl.SSLContext, now_s: Callable[[], float] = time.time
    ) -> None:
        """Read the lists.

        Args:
            hosts: the names by which browsers reach the page.
            crl: revocation lists in PEM, one for each issuing CA.
            context: the server's context; it gets new lists as well.
            now_s: the clock, seconds since 1970.

        Raises:
            TlsSetupError: the lists cannot be read.
        """
        self._hosts = frozenset(host.lower() for host in hosts)
        self._crl, self._context, self._now_s = crl, context, now_s
        self._read_of: tuple[int, int] | None = None
        self._lists: list[x509.CertificateRevocationList] = []
        self.refresh()

    def serves(self, host: str) -> bool:
        """Whether the page is reached by this name or address."""
        return host in self._hosts

    def find_reader(self, scope: Scope) -> Actor | None:
        """Return the person who sends a request; None if their certificate does not allow it now."""
        chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", ())
        if not chain:
            return None
        certificate = x509.load_pem_x509_certificate(chain[0].encode())
        name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return staff(str(name)) if self.allows(certificate) else None

    def allows(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate that OpenSSL verified in the handshake is still valid."""
        now = datetime.fromtimestamp(self._now_s(), UTC)
        try:
            self.refresh()
        except TlsSetupError as error:
            _log.error("nobody may look: %s", error)
            return False
        is_current = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
        return is_current and self._is_listed_as_good(certificate, now)

    def refresh(self) -> None:
        """Read the lists again if the file has changed.

        Raises:
            TlsSetupError: the file is missing or damaged.
        """
        try:
            stat = self._crl.stat()
            if (stat.st_mtime_ns, stat.st_ino) == self._read_of:
                return
            parts = self._crl.read_bytes().split(_END)[:-1]
            self._lists = [x509.load_pem_x509_crl(part + _END) for part in parts]
        except (OSError, ValueError) as error:
            raise TlsSetupError(f"cannot read the revocation lists {self._crl} ({error}): write them again") from error
        load_revoked(self._context, self._crl)
        self._read_of = stat.st_mtime_ns, stat.st_ino

    def _is_listed_as_good(self, certificate: x509.Certificate, now: datetime) -> bool:
        """Whether a list of its issuer is current, and none of them names it."""
        lists = [one for one in self._lists if one.issuer == certificate.issuer]
        is_known = any(one.next_update_utc is not None and now <= one.next_update_utc for one in lists)
        serial = certificate.serial_number
        return is_known and not any(one.get_revoked_certificate_by_serial_number(serial) for one in lists)


async def keep_access(server: uvicorn.Server, access: StaffAccess, context: ssl.SSLContext, identity: Path) -> NoReturn:
    """Cut connections of persons who may not look any more, and use a renewed certificate of the server, until cancelled."""
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        try:
            load_identity(context, identity)
        except TlsSetupError as error:
            _log.error("the page goes on with its old certificate: %s", error)
        cut_refused(server, access)


def cut_refused(server: uvicorn.Server, access: StaffAccess) -> None:
    """Cut the open connections of persons who may not look any more."""
    for connection in tuple(server.server_state.connections):
        transport: asyncio.Transport = connection.transport
        der = read_certificate(transport)
        if der is None or not access.allows(x509.load_der_x509_certificate(der)):
            transport.abort()
