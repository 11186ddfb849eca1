"""The enrolment service over HTTPS: a small ASGI application of its own, apart from the page."""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.enrolment.service import EnrolmentService, Moment, answer
from sync.enrolment import REQUEST_LIMIT_BYTES

_GET_PATHS: Final = frozenset({"/v2/roots"})
_HEADERS: Final = [(b"content-type", b"application/cbor"), (b"cache-control", b"no-store")]


def make_app(service: EnrolmentService, clock: Callable[[], Moment]) -> ASGIApp:
    """Return the application. Requests are answered on worker threads, since they read and write files."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] != ("GET" if scope["path"] in _GET_PATHS else "POST"):
            await _send(send, 405, b"")
            return
        body = await _read_body(receive)
        if body is None:
            await _send(send, 413, b"")
            return
        address = scope["client"][0]
        await _send(send, *await asyncio.to_thread(answer, service, scope["path"], body, address, clock()))

    return app


async def _read_body(receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too large or the client has gone."""
    body = b""
    while len(body) <= REQUEST_LIMIT_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body if len(body) <= REQUEST_LIMIT_BYTES else None
    return None


async def _send(send: Send, status: int, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*_HEADERS, length]})
    await send({"type": "http.response.body", "body": body})
