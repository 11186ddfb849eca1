"""Refuses connections of this process to anything but its configured servers, each of which has a region in the EU or the EEA.

The check is an audit hook of Python (PEP 578), so no library can connect or look up a name without it. A server is allowed by
`allow_endpoint`: `config.tls` calls it for servers of the site, whose country a certificate proves, and the programs for the
servers on the allow-list of their settings. This computer itself is always allowed.
"""

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from config.endpoint import is_loopback

REFUSED_LIMIT: Final = 100
"""Different endpoints that wait for the audit log. More than a fault or an attack needs to be noticed."""
_LOCAL_NAMES: Final = frozenset({"localhost", ""})

_log: Final = logging.getLogger(__name__)


class RefusedEndpointError(ConnectionRefusedError):
    """The process may not connect there. The message names the endpoint."""


class EndpointGuard:
    """The endpoints that this process may use, and those that it was refused. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._allowed: set[tuple[str, int]] = set()
        self._refused: dict[str, int] = {}
        self._checks: Mapping[str, Callable[[tuple[Any, ...]], None]] = {
            "socket.connect": lambda arguments: self.check_address(arguments[1]),
            "socket.sendto": lambda arguments: self.check_address(arguments[1]),
            "socket.sendmsg": lambda arguments: self.check_address(arguments[1]),
            "socket.getaddrinfo": lambda arguments: self.check_name(arguments[0]),
            "socket.gethostbyname": lambda arguments: self.check_name(arguments[0]),
        }

    def on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Check an event of the interpreter: what `sys.addaudithook` calls."""
        check = self._checks.get(event)
        if check is not None:
            check(arguments)

    def allow(self, host: str, port: int) -> None:
        with self._lock:
            self._allowed.add((host.lower(), port))

    def check_name(self, host: str | bytes | None) -> None:
        """Check a name that is looked up. An address passes: `check_address` decides.

        Raises:
            RefusedEndpointError: no allowed endpoint has this name.
        """
        name = host.decode("utf-8", "replace") if isinstance(host, bytes) else host or ""
        with self._lock:
            is_allowed = name.lower() in _LOCAL_NAMES or any(name.lower() == allowed for allowed, _ in self._allowed)
        if not is_allowed and _is_name(name):
            self._refuse(name)

    def check_address(self, address: Any) -> None:
        """Check where a socket connects or sends to: an IP address and a port. Other kinds of socket stay on this computer.

        The port of an allowed name is allowed at every address, because a name may have many; TLS then checks the certificate.

        Raises:
            RefusedEndpointError: no allowed endpoint has this address and port.
        """
        if not isinstance(address, tuple) or len(address) < 2 or not isinstance(address[1], int):
            return  # a path, or none for a connected socket
        host, port = str(address[0]), address[1]
        with self._lock:
            is_allowed = (host, port) in self._allowed or any(port == own and _is_name(name) for name, own in self._allowed)
        if not (is_allowed or host in _LOCAL_NAMES or is_loopback(host) or _is_name(host)):
            self._refuse(f"{host}:{port}")

    def take_refused(self) -> dict[str, int]:
        """Return the endpoints that were refused since the last call, with how often."""
        with self._lock:
            refused, self._refused = self._refused, {}
        return refused

    def _refuse(self, endpoint: str) -> None:
        with self._lock:
            is_new = endpoint not in self._refused and len(self._refused) < REFUSED_LIMIT
            if is_new or endpoint in self._refused:
                self._refused[endpoint] = self._refused.get(endpoint, 0) + 1
        error = RefusedEndpointError(f"{endpoint} is not an endpoint of the settings: nothing was sent there")
        if is_new:
            _log.error("%s", error)
        raise error


def _is_name(host: str) -> bool:
    """Whether this is not an IP address: such a host is looked up first, which `check_name` sees."""
    return ":" not in host and not host.replace(".", "").isdigit()


_GUARD: Final = EndpointGuard()
"""Of this process: an audit hook cannot be removed, so there is one."""
_installing: Final = threading.Lock()
_installed: list[EndpointGuard] = []


def guard_connections() -> None:
    """Check every connection of this process from now on. Each program calls it first; again it does nothing."""
    with _installing:
        if not _installed:
            _installed.append(_GUARD)
            sys.addaudithook(_GUARD.on_event)


def allow_endpoint(host: str, port: int) -> None:
    """Let this process connect to a server of its settings."""
    _GUARD.allow(host, port)


def take_refused_endpoints() -> dict[str, int]:
    """Return the endpoints that were refused since the last call, with how often, for the audit log."""
    return _GUARD.take_refused()
