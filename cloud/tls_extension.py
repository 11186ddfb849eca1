"""Passes the verified certificate of a client to the application: the TLS extension of ASGI (version 0.2)."""

import ssl
from asyncio import BaseTransport
from typing import Any, Final

from cryptography import x509
from starlette.types import ASGIApp, Receive, Scope, Send

TLS_1_3: Final = 0x0304
"""Its number (RFC 8446, 4.2.1)."""


def read_certificate(transport: BaseTransport) -> bytes | None:
    """Return the certificate (DER) that a client proved to own; None without one, or when the connection has ended."""
    try:
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    except AttributeError:  # asyncio's TLS transport was closed a second time: it has dropped its state
        return None
    return None if tls is None else tls.getpeercert(binary_form=True)


def add_certificate(app: Any, transport: BaseTransport) -> Any:
    """Return the application with the client's certificate in the scope of each request; itself if there is none."""
    der = read_certificate(transport)
    return app if der is None else _with_extension(app, der)


def _with_extension(app: ASGIApp, der: bytes) -> ASGIApp:
    extension = {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)],
        "client_cert_name": x509.load_der_x509_certificate(der).subject.rfc4514_string(),
        "client_cert_error": None,
        "tls_version": TLS_1_3,
        "cipher_suite": None,
    }

    async def with_extension(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {**scope.get("extensions", {}), "tls": extension}}, receive, send)

    return with_extension
