"""The HTTP server of the clinic's page: uvicorn with limits on connections, without signal handlers and logs of its own.

A browser's connection is idle until its request is complete, and between two requests. A viewer's WebSocket is never idle: it
gets a message every two seconds and answers uvicorn's pings.
"""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from cloud.sockets import LISTEN_BACKLOG, ConnectionLimit
from cloud.tls_extension import add_certificate
from cloud.tls_gate import make_gate

SHUTDOWN_TIMEOUT_S: Final = 1
"""Time for open requests and WebSockets to close at shutdown; uvicorn then cuts the remaining connections."""
IDLE_TIMEOUT_S: Final = 10.0
"""Time for a complete request to arrive on an open connection. A browser that had no request for so long opens another."""
STALL_TIMEOUT_S: Final = 30.0
"""Time for a client to read a response that fills its buffers. On loopback that takes ms, in a suspended tab some seconds."""


class PageConnection(H11Protocol):
    """Uvicorn's HTTP connection, cut when too many are open, when it is idle, or when the client does not read a response."""

    _limit: ClassVar = ConnectionLimit("page")
    _deadline: asyncio.TimerHandle | None = None
    _timeout_s: float | None = None
    _is_upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = add_certificate(self.app, transport)
        if self._limit.allows(len(self.connections)):
            self._update_deadline()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_deadline()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._is_upgraded = True
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update_deadline()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._update_deadline()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._update_deadline()

    def _update_deadline(self) -> None:
        """Start the timeout of the connection's state when the state changes: bytes of an incomplete request change nothing."""
        is_responding = bool(self.cycle and not self.cycle.response_complete)
        timeout_s = None if is_responding or self._is_upgraded else IDLE_TIMEOUT_S
        if self.flow.write_paused and not self._is_upgraded:
            timeout_s = STALL_TIMEOUT_S
        if timeout_s != self._timeout_s:
            self._set_deadline(timeout_s)

    def _set_deadline(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if timeout_s is None else self.loop.call_later(timeout_s, self.transport.abort)


class ViewerConnection(WebSocketsSansIOProtocol):
    """Uvicorn's WebSocket, cut when a ping is not answered: a close would wait until the client reads what was sent before."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = add_certificate(self.app, transport)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()

    def shutdown(self) -> None:
        if self.transport.is_closing():  # the viewer closes it already: uvicorn would send a second close frame, and raise
            self.stop_keepalive()
        else:
            super().shutdown()


class PageServer(uvicorn.Server):
    """Uvicorn without its signal handlers: the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_page_server(app: ASGIApp, context: ssl.SSLContext | None = None, name: str = "page") -> PageServer:
    """Return a server that `serve(sockets=[…])` runs until `should_exit` is set; with a context by HTTPS.

    `name` is what the connection log calls it.
    """
    connection: Any = PageConnection if context is None else make_gate(PageConnection, context, name)
    return PageServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            http=connection,
            ws=ViewerConnection,
            proxy_headers=False,  # anybody could write them: no proxy ends TLS before us
            backlog=LISTEN_BACKLOG,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        )
    )
