"""Listening sockets, with port errors as one clear line, and limits on open connections."""

import errno
import logging
import socket
from typing import Final

from cloud.errors import ClinicError

HOST: Final = "127.0.0.1"
LISTEN_BACKLOG: Final = 128
"""Connections that may wait to be accepted. asyncio accepts as many at once, before it knows that one is too many."""
MAX_CONNECTIONS: Final = 200
"""Open connections of the page, and of the broker: some thirty browsers, or two hundred hubs. The usual limit of a process is
1,024 open files. Twice this number and the backlog take 656; the rest is for the databases."""

_log: Final = logging.getLogger(__name__)


class ConnectionLimit:
    """Refuses connections beyond `MAX_CONNECTIONS`. Logs when it begins to, and again only if half of them had closed."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._is_reached = False

    def allows(self, open_connections: int) -> bool:
        """Whether so many connections, the new one included, may be open."""
        is_allowed = open_connections <= MAX_CONNECTIONS
        if not is_allowed and not self._is_reached:
            self._is_reached = True
            _log.warning("the %s has %d connections, its limit: refusing more", self._server, MAX_CONNECTIONS)
        elif open_connections <= MAX_CONNECTIONS // 2:
            self._is_reached = False
        return is_allowed


def listen_on_loopback(port: int, option: str) -> socket.socket:
    """Return a socket that listens on `port` of this computer only, as `listen` does."""
    return listen(HOST, port, option)


def listen(address: str, port: int, option: str) -> socket.socket:
    """Return a socket that listens on an IP address and port; 0 chooses a free port.

    `option` is the command-line option of the port.

    Raises:
        ClinicError: the port is in use or cannot be bound.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise _port_error(port, option, error) from error
    return listener


def _port_error(port: int, option: str, error: OSError) -> ClinicError:
    problem = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return ClinicError(f"port {port} {problem}: choose another with {option}")
