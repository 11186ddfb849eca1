"""A TLS server in a thread: it greets each client and echoes one line."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def run_tls_server(context: ssl.SSLContext) -> Iterator[int]:
    """Serve one client after the other; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError):
        while True:
            plain, _ = listener.accept()
            with suppress(OSError), plain:
                plain.settimeout(10)
                with context.wrap_socket(plain, server_side=True) as tls:
                    tls.sendall(b"hello")
                    tls.recv(1)


def greet(context: ssl.SSLContext, port: int, name: str = "localhost") -> bytes:
    """Connect and return the greeting."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return tls.recv(5)
