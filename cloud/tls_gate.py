"""Makes the TLS handshake of each connection before an HTTP server sees it: asyncio itself drops failed ones in silence."""

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from uvicorn.server import ServerState

from cloud.connection_log import ConnectionLog
from cloud.sockets import ConnectionLimit
from cloud.tls_extension import read_certificate

HANDSHAKE_TIMEOUT_S: Final = 10.0
"""A handshake takes two round trips: a second on a slow link."""

MakeConnection = Callable[..., asyncio.Protocol]


def make_gate(make_connection: MakeConnection, context: ssl.SSLContext, server: str) -> Callable[..., "TlsGate"]:
    """Return what uvicorn takes as its class of HTTP connections, of which `make_connection` makes one after a handshake.

    `server` is its name in the log.
    """
    return partial(TlsGate, make_connection, context, ConnectionLog(server), ConnectionLimit(server), set())


class TlsGate(asyncio.Protocol):
    """One connection until its handshake has ended, which is logged. `open_gates` are the handshakes that go on now."""

    def __init__(
        self,
        make_connection: MakeConnection,
        context: ssl.SSLContext,
        log: ConnectionLog,
        limit: ConnectionLimit,
        open_gates: set["TlsGate"],
        *,
        server_state: ServerState,
        **options: Any,
    ) -> None:
        self._make_connection = partial(make_connection, server_state=server_state, **options)
        self._context, self._log, self._limit, self._open_gates = context, log, limit, open_gates
        self._tasks = server_state.tasks
        self._early = b""
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        address = "{}:{}".format(*transport.get_extra_info("peername"))
        if not self._limit.allows(len(self._open_gates) + 1):
            self._log.refuse(address, "too many handshakes at once")
            transport.abort()
            return
        self._open_gates.add(self)
        task = asyncio.get_running_loop().create_task(self._shake_hands(transport, address))
        self._tasks.add(task)  # uvicorn cancels them when it stops
        task.add_done_callback(self._tasks.discard)

    def data_received(self, data: bytes) -> None:
        """Keep what arrives with the end of the handshake."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True

    async def _shake_hands(self, transport: asyncio.Transport, address: str) -> None:
        try:
            tls = await asyncio.get_running_loop().start_tls(
                transport, self, self._context, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
            )
        except OSError as error:
            self._log.refuse(address, explain_failure(error))
            return
        finally:
            self._open_gates.discard(self)
        if tls is None or self._is_lost:
            self._log.refuse(address, explain_failure(ConnectionResetError()))
            return
        self._log.accept(address, _name_of(tls))
        connection = self._make_connection()
        tls.set_protocol(connection)
        connection.connection_made(tls)
        if self._early:
            connection.data_received(self._early)


def explain_failure(error: OSError) -> str:
    """Return why a handshake failed, in OpenSSL's words: nothing that the client wrote is in them."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (error.reason or "tls failed").lower().replace("_", " ")
    if isinstance(error, ConnectionAbortedError):
        return f"no handshake within {HANDSHAKE_TIMEOUT_S:.0f} s"
    return "closed by the client before the end of the handshake"


def _name_of(tls: asyncio.Transport) -> str | None:
    der = read_certificate(tls)
    if der is None:
        return None
    return str(x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
