"""Where a server is reached, and the one rule for servers without TLS: they run on this computer."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.regions import ALLOWED_REGION, is_allowed_region

ALLOWED_HOST: Final = (
    "a loopback address (127.0.0.1 or ::1); a server on another computer needs TLS: set identity and region, too"
)
ALLOWED_TLS_HOST: Final = "a host name or an IP address"
LISTED_USES: Final = ("mail", "object-storage", "error-reports")
"""What a server on the allow-list may be for."""
ALLOWED_PORT: Final = "a number from 1 to 65535"
_MAX_PORT: Final = 65535
"""A port has 16 bits (RFC 9293, 3.1). No server is reached at port 0 (RFC 6335, 6)."""
_LOOPBACK_IPV4: Final = ipaddress.ip_network("127.0.0.0/8")  # RFC 1122, 3.2.1.3
_LOOPBACK_IPV6: Final = ipaddress.ip_address("::1")  # RFC 4291, 2.5.3
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
"""A host name (RFC 1123, 2.1), without wildcards."""


class EndpointError(ValueError):
    """A part of an endpoint is not allowed. The message begins with its name, and says what is allowed."""


class RegionError(EndpointError):
    """The region of an endpoint is outside the EU and the EEA. `endpoint` is its host and port."""

    def __init__(self, endpoint: str, region: object) -> None:
        super().__init__(f"region = {region!r} is not allowed: set it to {ALLOWED_REGION}")
        self.endpoint = endpoint


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server: its address, the folder with the client's identity, and its country (ISO 3166-1 alpha-2).

    With identity and region the connection uses TLS. A server elsewhere needs both; one on this computer may go without.
    `config.tls` reads the folder: `identity.pem` holds the client's private key and its certificates, `roots.pem` the roots
    of the site.

    Raises:
        EndpointError: the host is not allowed, the port is out of range, or identity or region are missing or not allowed.
    """

    host: str
    port: int
    identity: Path | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        has_tls = self.identity is not None
        if not (is_host(self.host) if has_tls else is_loopback(self.host)):
            raise EndpointError(
                f"host = {self.host!r} is not allowed: set it to {ALLOWED_TLS_HOST if has_tls else ALLOWED_HOST}"
            )
        if not 1 <= self.port <= _MAX_PORT:
            raise EndpointError(f"port = {self.port!r} is not allowed: set it to {ALLOWED_PORT}")
        if has_tls and not is_allowed_region(self.region):
            raise RegionError(str(self), self.region)
        if self.region is not None and not has_tls:
            raise EndpointError("region is set without identity: set identity too, to the folder that pulsegate enroll wrote")

    def __str__(self) -> str:
        """Host and port as in a URL: an IPv6 address is in brackets."""
        return format_endpoint(self.host, self.port)


@dataclass(frozen=True, slots=True)
class ListedEndpoint:
    """A server on the allow-list: what it is for, its address, and the country where it is (ISO 3166-1 alpha-2).

    It has no certificate of the site, so the operator vouches for its region (GDPR, article 44).

    Raises:
        EndpointError: a part is not allowed.
    """

    use: str
    host: str
    port: int
    region: str

    def __post_init__(self) -> None:
        if self.use not in LISTED_USES:
            raise EndpointError(f"use = {self.use!r} is not allowed: set it to one of {', '.join(LISTED_USES)}")
        if not isinstance(self.host, str) or not is_host(self.host):
            raise EndpointError(f"host = {self.host!r} is not allowed: set it to {ALLOWED_TLS_HOST}")
        if parse_port(str(self.port)) is None:
            raise EndpointError(f"port = {self.port!r} is not allowed: set it to {ALLOWED_PORT}")
        if not is_allowed_region(self.region):
            raise RegionError(format_endpoint(self.host, self.port), self.region)


def parse_listed(tables: object) -> tuple[ListedEndpoint, ...]:
    """Return the endpoints of a list of tables, as TOML has them.

    Raises:
        EndpointError: it is not such a list, or an endpoint is not allowed.
    """
    names = set(ListedEndpoint.__slots__)
    if not isinstance(tables, list) or not all(isinstance(table, dict) and table.keys() == names for table in tables):
        raise EndpointError("each [[endpoint]] table has use, host, port and region")
    return tuple(ListedEndpoint(**table) for table in tables)


def format_endpoint(host: str, port: int) -> str:
    """Return host and port as in a URL: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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


def is_host(host: str) -> bool:
    """Whether this is a host name or an IP address without a zone. A name of digits and dots only must be an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST_NAME.fullmatch(host) is not None and not host.replace(".", "").isdecimal()
    return "%" not in host


def parse_port(text: str) -> int | None:
    """Return the port that the decimal digits name, from 1 to 65535; None for any other text."""
    is_short = len(text) <= len(str(_MAX_PORT))  # Python refuses to convert thousands of digits
    port = int(text) if is_short and text.isascii() and text.isdecimal() else 0
    return port if 1 <= port <= _MAX_PORT else None
