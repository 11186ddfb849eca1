"""No connection leaves this computer, and no name is looked up, but to servers of the settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.egress import REFUSED_LIMIT, EndpointGuard, RefusedEndpointError
from config.endpoint import EndpointError, ListedEndpoint, RegionError, parse_listed

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, smtplib, socket, sys, urllib.request
from config.egress import allow_endpoint, guard_connections, take_refused_endpoints
guard_connections()
guard_connections()
allow_endpoint("mail.clinic.invalid", 465)
async def connect(host):
    await asyncio.open_connection(host, 443)
attempts = [
    lambda: socket.create_connection(("192.0.2.1", 443), timeout=1),
    lambda: socket.create_connection(("2001:db8::1", 443), timeout=1),
    lambda: socket.create_connection(("third.party.invalid", 443), timeout=1),
    lambda: socket.gethostbyname("third.party.invalid"),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, ("192.0.2.1", 53)),
    lambda: urllib.request.urlopen("http://third.party.invalid/", timeout=1),
    lambda: smtplib.SMTP("mail.other.invalid", 25, timeout=1),
    lambda: asyncio.run(connect("192.0.2.7")),
]
for attempt in attempts:
    try:
        attempt()
    except OSError as error:
        assert "is not an endpoint of the settings" in str(error), error
    else:
        raise AssertionError("connected")
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
try:
    socket.create_connection(("mail.clinic.invalid", 465))
except socket.gaierror:  # it was looked up
    print(sorted(take_refused_endpoints().items()))
"""


def test_no_library_of_a_guarded_process_connects_elsewhere() -> None:
    """A name under `.invalid` never resolves (RFC 6761), 192.0.2.0/24 and 2001:db8::/32 lead nowhere (RFC 5737, RFC 3849)."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = [
        ("192.0.2.1:443", 1),
        ("192.0.2.1:53", 2),
        ("192.0.2.7:443", 1),
        ("2001:db8::1:443", 1),
        ("mail.other.invalid", 1),
        ("third.party.invalid", 3),
    ]
    assert done.stdout == f"{counts}\n"
    assert done.stderr.count("third.party.invalid is not an endpoint of the settings") == 1


@pytest.fixture
def guard() -> EndpointGuard:
    guard = EndpointGuard()
    guard.allow("Broker.clinic.example", 8883)
    guard.allow("198.51.100.7", 465)
    return guard


@pytest.mark.parametrize("host", ["broker.clinic.example", b"BROKER.clinic.example", "localhost", "", None, "192.0.2.1", "::1"])
def test_names_of_the_settings_and_addresses_are_looked_up(guard: EndpointGuard, host: str | bytes | None) -> None:
    guard.on_event("socket.getaddrinfo", (host, 8883, 0, 0, 0))


@pytest.mark.parametrize("host", ["clinic.example", "x.broker.clinic.example", b"evil.example", "198.51.100.7.example"])
def test_other_names_are_not_looked_up(guard: EndpointGuard, host: str | bytes) -> None:
    with pytest.raises(RefusedEndpointError):
        guard.on_event("socket.getaddrinfo", (host, 8883, 0, 0, 0))


@pytest.mark.parametrize(
    "address",
    [("127.0.0.1", 1), ("127.9.9.9", 80), ("::1", 80, 0, 0), ("198.51.100.7", 465), ("203.0.113.9", 8883), "/run/socket", None],
)
def test_allowed_addresses(guard: EndpointGuard, address: object) -> None:
    guard.on_event("socket.connect", (None, address))


@pytest.mark.parametrize(
    "address", [("198.51.100.7", 466), ("203.0.113.9", 465), ("::ffff:127.0.0.1", 80), ("fe80::1", 80, 0, 2)]
)
def test_other_addresses_and_ports_are_refused(guard: EndpointGuard, address: tuple[object, ...]) -> None:
    for event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        with pytest.raises(RefusedEndpointError):
            guard.on_event(event, (None, address))
    assert guard.take_refused() == {f"{address[0]}:{address[1]}": 3}
    assert guard.take_refused() == {}


def test_a_flood_of_refused_endpoints_takes_no_memory(guard: EndpointGuard) -> None:
    for port in range(1, 3 * REFUSED_LIMIT):
        with pytest.raises(RefusedEndpointError):
            guard.check_address(("192.0.2.1", port))
    assert len(guard.take_refused()) == REFUSED_LIMIT


GOOD = {"use": "mail", "host": "mail.clinic.example", "port": 465, "region": "DE"}


class TestAllowList:
    def test_an_endpoint_has_use_address_and_region(self) -> None:
        assert parse_listed([GOOD]) == (ListedEndpoint("mail", "mail.clinic.example", 465, "DE"),)
        assert parse_listed([]) == ()

    @pytest.mark.parametrize("region", ["US", "CH", "GB", "de", "", None, 7])
    def test_a_region_outside_the_eu_and_the_eea_is_refused(self, region: object) -> None:
        with pytest.raises(RegionError, match="is not allowed: set it to the code of a country of the EU") as refused:
            parse_listed([{**GOOD, "region": region}])
        assert refused.value.endpoint == "mail.clinic.example:465"

    @pytest.mark.parametrize(
        "changes",
        [{"use": "analytics"}, {"host": "*.example"}, {"host": 7}, {"host": ""}, {"port": 0}, {"port": "x"}, {"more": 1}],
    )
    def test_a_mistake_is_refused(self, changes: dict[str, object]) -> None:
        with pytest.raises(EndpointError):
            parse_listed([{**GOOD, **changes}])

    @pytest.mark.parametrize("tables", [{}, "mail", [1], [{"use": "mail"}]])
    def test_another_form_is_refused(self, tables: object) -> None:
        with pytest.raises(EndpointError, match="has use, host, port and region"):
            parse_listed(tables)
