"""Shows the metrics of a service in the text format of Prometheus, by HTTPS, to the site's monitor only.

The monitor has a certificate of a service with the name `MONITOR`: `pulsegate-cloud site issue-service --name metrics`.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn

from cryptography import x509
from cryptography.x509.oid import NameOID
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive, Scope, Send

from cloud.metrics import REGISTRY
from cloud.page_server import make_page_server
from cloud.site import Kind
from cloud.site.authority import anchors_path, crl_path
from cloud.sockets import listen
from config.tls import TlsSetupError, load_identity, load_revoked, make_server_context

MONITOR: Final = "metrics"
"""The name in the monitor's certificate."""
RENEW_INTERVAL_S: Final = 10.0
"""How often the server reads its certificate and the revocation lists again, as the page does."""

_log: Final = logging.getLogger(__name__)


@asynccontextmanager
async def serving_metrics(address: str, port: int, identity: Path, public: Path) -> AsyncIterator[None]:
    """Serve /metrics within the context.

    Args:
        address: a private IP address of this machine.
        port: where to listen.
        identity: the folder with the service's own certificate.
        public: what the certification authority publishes.

    Raises:
        ClinicError: the port cannot be used.
        TlsSetupError: a certificate or a list cannot be used.
    """
    crl = crl_path(public, Kind.SERVICES)
    context = make_server_context(identity, anchors=anchors_path(public, Kind.SERVICES), crl=crl)
    with contextlib.closing(listen(address, port, "--metrics")) as listener:
        server = make_page_server(answer, context, "metrics")
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        renewing = asyncio.create_task(_keep_current(context, identity, crl))
        try:
            yield
        finally:
            renewing.cancel()
            server.should_exit = True
            await serving


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The application: GET /metrics."""
    if scope["type"] != "http":
        return
    if not _is_monitor(scope):
        status, body = 403, b"the certificate is not that of the monitor\n"
    elif (scope["method"], scope["path"]) == ("GET", "/metrics"):
        status, body = 200, generate_latest(REGISTRY)
    else:
        status, body = 404, b""
    headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_monitor(scope: Scope) -> bool:
    chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", ())
    if not chain:
        return False
    names = x509.load_pem_x509_certificate(chain[0].encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [name.value for name in names] == [MONITOR]


async def _keep_current(context: ssl.SSLContext, identity: Path, crl: Path) -> NoReturn:
    while True:
        await asyncio.sleep(RENEW_INTERVAL_S)
        try:
            load_identity(context, identity)
            load_revoked(context, crl)
        except TlsSetupError as error:
            _log.error("the metrics go on with the old certificate or revocation list: %s", error)
