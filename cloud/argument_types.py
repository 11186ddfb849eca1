"""Types of command-line arguments of the clinic."""

import argparse

from config.endpoint import is_host, parse_port

Address = tuple[str, int]
"""Host and port."""


def parse_address(text: str) -> Address:
    """Return host and port of HOST:PORT; an IPv6 address is in brackets.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    host, _, port_text = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    port = parse_port(port_text)
    if port is None or not is_host(host):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address: give one such as clinic.example:8443")
    return host, port
