"""Where a server is reached, and the one rule for servers without TLS: they run on this computer."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ALLOWED_HOST: Final = (
    "a loopback address (127.0.0.1 or ::1); a server on another computer needs TLS and enrolment, which this version lacks"
)
ALLOWED_PORT: Final = "a number from 1 to 65535"
_MAX_PORT: Final = 65535
"""A port has 16 bits (RFC 9293, 3.1). No server is reached at port 0 (RFC 6335, 6)."""
_LOOPBACK_IPV4: Final = ipaddress.ip_network("127.0.0.0/8")  # RFC 1122, 3.2.1.3
_LOOPBACK_IPV6: Final = ipaddress.ip_address("::1")  # RFC 4291, 2.5.3


class EndpointError(ValueError):
    """A part of an endpoint is not allowed. The message begins with its name, and says what is allowed."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The PEM files with which a client of TLS 1.3 proves who it is: its certificate, and the private key to it."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server: its address, the client's credentials for it, and the country where it is (ISO 3166-1 alpha-2).

    A server on this computer needs neither credentials nor a region. A server elsewhere needs both, and is refused: there is no
    TLS until hubs can be enrolled. Until then both are None, and the settings file has no keys for them.

    Raises:
        EndpointError: the host is no loopback address, the port is out of range, or credentials or a region are given.
    """

    host: str
    port: int
    credentials: Credentials | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        if not is_loopback(self.host):
            raise EndpointError(f"host = {self.host!r} is not allowed: set it to {ALLOWED_HOST}")
        if not 1 <= self.port <= _MAX_PORT:
            raise EndpointError(f"port = {self.port!r} is not allowed: set it to {ALLOWED_PORT}")
        if self.credentials is not None or self.region is not None:
            raise EndpointError("credentials and region are not allowed: omit them; they need TLS, which this version lacks")

    def __str__(self) -> str:
        """Host and port as in a URL: an IPv6 address is in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether the host is an address of this computer itself: 127.0.0.0/8 or ::1.

    Names are not, "localhost" included: where a name leads is decided by a file or by a server that answers the lookup. Nor are
    an IPv6 address with a zone, which may hold any text, and an IPv4 address written as IPv6.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address in _LOOPBACK_IPV4 or address == _LOOPBACK_IPV6


def parse_port(text: str) -> int | None:
    """Return the port that the decimal digits name, from 1 to 65535; None for any other text."""
    is_short = len(text) <= len(str(_MAX_PORT))  # Python refuses to convert thousands of digits
    port = int(text) if is_short and text.isascii() and text.isdecimal() else 0
    return port if 1 <= port <= _MAX_PORT else None
