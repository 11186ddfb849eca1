"""Listening sockets on the loopback interface, with port errors as one clear line."""

import errno
import socket
from typing import Final

from cloud.errors import ClinicError

HOST: Final = "127.0.0.1"
LISTEN_BACKLOG: Final = 128
"""Connections that may wait to be accepted."""


def listen_on_loopback(port: int, option: str) -> socket.socket:
    """Return a socket that listens on `port`; 0 chooses a free port. `option` is the command-line option of the port.

    Raises:
        ClinicError: the port is in use or cannot be bound.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise _port_error(port, option, error) from error
    return listener


def _port_error(port: int, option: str, error: OSError) -> ClinicError:
    problem = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return ClinicError(f"port {port} {problem}: choose another with {option}")
