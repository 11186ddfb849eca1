"""Runs the enrolment service: HTTPS by TLS 1.3, with certificates that it takes from the site and renews by itself."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

import uvicorn
from starlette.types import ASGIApp

from cloud.audit_log import AuditLog
from cloud.clock import now_us
from cloud.enrolment.app import make_app
from cloud.enrolment.identities import keep_tls_identity, load_time_signer
from cloud.enrolment.service import EnrolmentService, Moment
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.page_server import SHUTDOWN_TIMEOUT_S, PageConnection, PageServer
from cloud.site import Authority
from cloud.sockets import LISTEN_BACKLOG, listen
from cloud.store import Store
from cloud.tls_gate import make_gate
from config.tls import TlsSetupError, load_identity, make_server_context
from sync.enrolment import Broker
from sync.key_files import KeyFileError

_log: Final = logging.getLogger(__name__)

RENEWAL_INTERVAL_S: Final = 60.0
"""How often the service looks whether its own certificates are due: a month before they end, and after the site took a new
root, which new codes name."""


@dataclass(frozen=True, slots=True)
class EnrolmentOptions:
    """Where the service listens, the hosts by which hubs reach it, and the brokers that they send to."""

    address: str
    port: int
    hosts: Sequence[str]
    brokers: Sequence[tuple[str, int]]


async def run_enrolment(
    folder: ClinicFolder, options: EnrolmentOptions, stop: asyncio.Event, print_line: Callable[[str], None]
) -> None:
    """Serve until `stop` is set.

    Raises:
        ClinicError: there is no site, the port cannot be used, or a file cannot be written.
        KeyFileError: a key of the site is missing, damaged or readable by others.
        TlsSetupError: OpenSSL offers more than is allowed.
        SyncError: the store, in which the audit log is, cannot be used.
    """
    authority = Authority.load(folder.site)
    brokers = [Broker(host, port, authority.name.country) for host, port in options.brokers]
    own, hosts = folder.path / "enrolment", list(options.hosts)
    identity = keep_tls_identity(authority, own, hosts, int(time.time()))
    context = make_server_context(identity)
    signer = load_time_signer(authority, own, int(time.time()))
    store = Store.open(folder.blocks)
    service = EnrolmentService(folder, authority, brokers, signer, AuditLog(store, now_us))

    def renew() -> None:
        keep_tls_identity(authority, own, hosts, int(time.time()))
        load_identity(context, identity)
        service.signer = load_time_signer(authority, own, int(time.time()))

    with contextlib.closing(store), contextlib.closing(listen(options.address, options.port, "--port")) as listener:
        server = make_server(make_app(service, read_moment), context)
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]))
            renewing = tasks.create_task(_repeat(renew))
            host, port = listener.getsockname()[:2]
            print_line(f"enrolment  https://{f'[{host}]' if ':' in host else host}:{port}/")
            await stop.wait()
            server.should_exit = True
            await serving
            renewing.cancel()


def read_moment() -> Moment:
    """Return the time by this machine's clocks."""
    return Moment(int(time.time()), time.monotonic())


async def _repeat(renew: Callable[[], None]) -> NoReturn:
    while True:
        await asyncio.sleep(RENEWAL_INTERVAL_S)
        try:
            await asyncio.to_thread(renew)
        except (ClinicError, KeyFileError, TlsSetupError) as error:
            _log.error("cannot renew the certificates of the enrolment service: %s", error)


def make_server(app: ASGIApp, context: ssl.SSLContext) -> PageServer:
    """Return a server that `serve(sockets=[…])` runs until `should_exit` is set."""
    return PageServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # a hub could write any address, and so escape the throttle
            http=cast("Any", make_gate(PageConnection, context, "enrolment")),
            ws="none",
            backlog=LISTEN_BACKLOG,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        )
    )
