"""Security headers of every response and checks of every request: no other site can read or frame the page."""

import contextlib
import logging
import traceback
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.endpoint import is_loopback

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


class SecurityMiddleware:
    """ASGI middleware: strict headers; only loopback names as Host (DNS rebinding); only the page's Origin on a WebSocket.

    An error in the application is answered without its text, and logged by its type and place: its text can quote data.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request, or pass it to the application."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not _names_this_computer(host):
            await _reject(scope, send, 421, b"this page is served on loopback names only")
        elif scope["type"] == "websocket" and not _is_same_origin(headers.get(b"origin", b"").decode("latin-1"), host):
            await _reject(scope, send, 403, b"the WebSocket serves its own page only")
        else:
            try:
                await self._app(scope, receive, _with_headers(send, no_store=scope["path"].startswith("/api/")))
            except Exception as error:  # noqa: BLE001
                _log.error("a request of the page failed: %s", _describe_place(error))
                with contextlib.suppress(RuntimeError):  # an answer had already begun: the server closes the connection
                    await _reject(scope, send, 500, b"Internal Server Error", _INTERNAL_ERROR)


def _names_this_computer(host: str) -> bool:
    """Whether a browser reached the page by a loopback address, or by localhost, which browsers themselves resolve to one."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or is_loopback(name)


def _is_same_origin(origin: str, host: str) -> bool:
    """Whether this host served the page that opens the socket. Browsers always send Origin; other clients may omit it."""
    return origin in {"", f"http://{host}", f"https://{host}"}


def _describe_place(error: Exception) -> str:
    """The type of an error, or of the first one in a group, and the line that raised it."""
    if isinstance(error, ExceptionGroup):
        return _describe_place(error.exceptions[0])
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, line {frame.lineno} of {frame.filename}"


def _with_headers(send: Send, *, no_store: bool) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_RAW_HEADERS, *([_NO_STORE] if no_store else [])]
        await send(message)

    return send_with_headers


async def _reject(scope: Scope, send: Send, status: int, reason: bytes, code: int = _POLICY_VIOLATION) -> None:
    """Answer a request with a status and a reason, or close a WebSocket with a code."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": code})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_RAW_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason})
