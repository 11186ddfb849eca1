"""Security headers and checks of every request: who may look, and no other site can read or frame the page."""

import contextlib
import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.audit_actors import LOOPBACK
from config.endpoint import is_loopback
from sync.audit import Actor

_log: Final = logging.getLogger(__name__)

_POLICY_VIOLATION: Final = 1008
_INTERNAL_ERROR: Final = 1011
"""Codes with which a WebSocket is closed (RFC 6455, section 7.4.1)."""

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_RAW_HEADERS: Final = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
_NO_STORE: Final = (b"cache-control", b"no-store")
BODY_LIMIT_BYTES: Final = 4096
"""The largest body of a request: four names take less."""


class Access(Protocol):
    """Under which names the page is served, and to whom. `refusal` is the answer to a request for another name."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]: ...

    @property
    def refusal(self) -> str: ...

    def serves(self, host: str) -> bool: ...

    def find_reader(self, scope: Scope, /) -> Actor | None: ...


class LoopbackAccess:
    """The demo: everybody on this computer may look, by a loopback address or localhost, which browsers resolve to one."""

    headers: Sequence[tuple[bytes, bytes]] = ()
    refusal: str = "this page is served on loopback names only"

    def serves(self, host: str) -> bool:
        return host == "localhost" or is_loopback(host)

    def find_reader(self, _scope: Scope) -> Actor:
        return LOOPBACK


class SecurityMiddleware:
    """ASGI middleware: strict headers; only the page's names as Host (DNS rebinding); only those who may look.

    A WebSocket, and a request that changes something, come from the page's own Origin only: a browser sends the reader's
    certificate also with requests that another site's page makes. The application finds the reader in `state.reader`.

    An error in the application is answered without its text, and logged by its type and place: its text can quote data.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._headers = [*_RAW_HEADERS, *access.headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request, or pass it to the application."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        send = _with_headers(send, [*self._headers, *([_NO_STORE] if scope["path"].startswith("/api/") else [])])
        reader = self._access.find_reader(scope)
        if not self._access.serves(_host_name(host)):
            await _reject(scope, send, 421, self._access.refusal.encode())
        elif reader is None:
            await _reject(scope, send, 403, b"a valid staff certificate is needed")
        elif scope["type"] == "websocket" and origin and not _is_same_origin(origin, host, scope["scheme"]):
            await _reject(scope, send, 403, b"the WebSocket serves its own page only")
        elif not _only_reads(scope) and not _may_change(headers, host, scope["scheme"]):
            await _reject(scope, send, 403, b"changes are accepted from the page itself only")
        elif not _only_reads(scope) and not _is_short(headers):
            await _reject(scope, send, 413, b"the request is too long, or does not say how long it is")
        else:
            scope["state"]["reader"] = reader
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001
            _log.error("a request of the page failed: %s", _describe_place(error))
            with contextlib.suppress(RuntimeError):  # an answer had already begun: the server closes the connection
                await _reject(scope, send, 500, b"Internal Server Error", _INTERNAL_ERROR)


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port; empty if it is damaged."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _only_reads(scope: Scope) -> bool:
    return scope["type"] == "websocket" or scope["method"] in {"GET", "HEAD"}


def _is_same_origin(origin: str, host: str, scheme: str) -> bool:
    """Whether this host served the page that sends the request."""
    return origin == f"{'https' if scheme in {'https', 'wss'} else 'http'}://{host}"


def _may_change(headers: Mapping[bytes, bytes], host: str, scheme: str) -> bool:
    """Whether a request that changes something comes from the page itself. Browsers send Origin with each (Fetch, 3.2)."""
    origin = headers.get(b"origin", b"").decode("latin-1")
    return _is_same_origin(origin, host, scheme) and headers.get(b"sec-fetch-site", b"same-origin") == b"same-origin"


def _is_short(headers: Mapping[bytes, bytes]) -> bool:
    length = headers.get(b"content-length", b"")
    return length.isdigit() and int(length) <= BODY_LIMIT_BYTES and b"transfer-encoding" not in headers


def _describe_place(error: Exception) -> str:
    """The type of an error, or of the first one in a group, and the line that raised it."""
    if isinstance(error, ExceptionGroup):
        return _describe_place(error.exceptions[0])
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, line {frame.lineno} of {frame.filename}"


def _with_headers(send: Send, headers: Sequence[tuple[bytes, bytes]]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return send_with_headers


async def _reject(scope: Scope, send: Send, status: int, reason: bytes, code: int = _POLICY_VIOLATION) -> None:
    """Answer a request with a status and a reason, or close a WebSocket with a code."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": code})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason})
