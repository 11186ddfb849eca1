"""The ports of a site, each with a way to say something to it and to see whether it answers."""

import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloud.site import Authority, Kind
from config.tls import make_client_context
from tests.mosquitto import HOST

TIMEOUT_S: Final = 20.0
POSTGRES_TLS: Final = struct.pack(">II", 8, 80877103)
"""Asks PostgreSQL for TLS (its documentation, 55.2.10)."""
_STARTUP: Final = b"user\0pulsegate\0database\0blocks\0\0"
POSTGRES_HELLO: Final = struct.pack(">II", 8 + len(_STARTUP), 0x30000) + _STARTUP
MQTT_HELLO: Final = b"\x10\x0d\0\x04MQTT\x04\x02\0\x0a\0\x01h"
"""CONNECT of MQTT 3.1.1 with the client id "h"."""


def http_hello(path: str, *headers: str) -> bytes:
    lines = (f"GET {path} HTTP/1.1", "Host: localhost", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


WEBSOCKET_HELLO: Final = http_hello(
    "/ws",
    "Origin: https://localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


@dataclass(frozen=True)
class Port:
    """A port, whose certificates it accepts, and what to say to it; `reload` makes it read its revocation lists."""

    number: int
    authority: Authority
    kind: Kind | None
    hellos: tuple[bytes, ...]
    answer: bytes
    reload: Callable[[], None]
    host: str = HOST
    is_postgres: bool = False

    @property
    def openssl_options(self) -> tuple[str, ...]:
        return ("-starttls", "postgres") if self.is_postgres else ()

    def answers(self, identity: Path | None) -> bool:
        """Whether every hello of a client with this identity is answered; False if none of them is."""
        found = {self._answers(identity, hello) for hello in self.hellos}
        assert len(found) == 1, "some are answered, some are not"
        return found.pop()

    def _answers(self, identity: Path | None, hello: bytes) -> bool:
        context = make_client_context(self.authority.roots.decode(), "DE", identity=identity)
        try:
            with socket.create_connection((HOST, self.number), timeout=TIMEOUT_S) as plain:
                if self.is_postgres:
                    plain.sendall(POSTGRES_TLS)
                    assert plain.recv(1) == b"S"
                with context.wrap_socket(plain, server_hostname=self.host) as tls:
                    tls.sendall(hello)
                    heard = tls.recv(len(self.answer))
        except (ssl.SSLError, ConnectionError):
            return False
        # PostgreSQL says in an error, after the handshake, that it wants a certificate.
        assert heard in {b"", self.answer, *([b"E"] if self.is_postgres else [])}
        return heard == self.answer
