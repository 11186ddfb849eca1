"""Without TLS a server is reached at a loopback address only, and never at a name; with TLS, in the EU and the EEA only."""

import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.endpoint import Endpoint, EndpointError, is_host, is_loopback, parse_port


@given(st.ip_addresses(v=4) | st.ip_addresses(v=4, network="126.0.0.0/7"))
def test_loopback_ipv4_addresses_begin_with_127(address: IPv4Address) -> None:
    assert is_loopback(str(address)) == (address.packed[0] == 127)


@given(st.ip_addresses(v=6) | st.ip_addresses(v=6, network="::/126") | st.ip_addresses(v=6, network="::ffff:127.0.0.0/104"))
def test_one_ipv6_address_is_loopback_however_it_is_written(address: IPv6Address) -> None:
    is_one = address.packed == bytes(15) + b"\1"
    assert is_loopback(str(address)) == is_loopback(address.exploded) == is_one


@given(st.from_regex(r"127(\.[0-9]{1,3}){3}", fullmatch=True) | st.text("127.0", max_size=9))
def test_an_accepted_host_is_an_address_for_the_system_too(host: str) -> None:
    if is_loopback(host):
        assert socket.inet_pton(socket.AF_INET, host).startswith(b"\x7f")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "broker.example.org",
        "127.0.0.1.example.org",
        "0.0.0.0",  # noqa: S104 - rejected
        "::",
        "::ffff:127.0.0.1",
        "::1%lo",
        "::1%a\nb",
        "[::1]",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        " 127.0.0.1",
        "127.0.0.1\n",
        "127.0.0.1:1883",
        "\u0661\u0662\u0667.0.0.1",
    ],
)
def test_names_and_other_spellings_are_refused(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(EndpointError, match=r"^host = .* is not allowed: set it to a loopback address \(127\.0\.0\.1 or ::1\)"):
        Endpoint(host, 1883)


@pytest.mark.parametrize(("host", "text"), [("127.0.0.1", "127.0.0.1:1883"), ("::1", "[::1]:1883")])
def test_the_text_is_host_and_port_as_in_a_url(host: str, text: str) -> None:
    assert str(Endpoint(host, 1883)) == text


@pytest.mark.parametrize("port", [-1, 0, 65536, 10**30])
def test_refuses_a_port_that_does_not_exist(port: int) -> None:
    with pytest.raises(EndpointError, match=rf"^port = {port} is not allowed: set it to a number from 1 to 65535$"):
        Endpoint("127.0.0.1", port)


@pytest.mark.parametrize("host", ["broker.example.org", "localhost", "192.0.2.1", "2001:db8::1", "127.0.0.1", "a-1.b"])
def test_a_server_anywhere_is_allowed_with_an_identity_and_a_region_in_the_eu_or_the_eea(host: str) -> None:
    assert Endpoint(host, 8883, Path("identity"), "DE").region == "DE"
    assert Endpoint(host, 8883, Path("identity"), "NO").host == host


@pytest.mark.parametrize("region", [None, "", "US", "CH", "GB", "de", "D", "DEU", "EU"])
def test_refuses_a_region_outside_the_eu_and_the_eea(region: str | None) -> None:
    with pytest.raises(EndpointError, match=rf"^region = {region!r} is not allowed: set it to the code of a country of the EU"):
        Endpoint("broker.example.org", 8883, Path("identity"), region)


def test_refuses_a_region_without_an_identity() -> None:
    with pytest.raises(EndpointError, match=r"^region is set without identity: set identity too"):
        Endpoint("127.0.0.1", 8883, region="DE")


@pytest.mark.parametrize(
    "host", ["", "*.example.org", "a b", "-a", "a..b", "fe80::1%eth0", "a\n", "127.1", "256.1.1.1", "a:1", "ä"]
)
def test_refuses_what_is_no_host(host: str) -> None:
    assert not is_host(host)
    with pytest.raises(EndpointError, match=r"^host = .* is not allowed: set it to a host name or an IP address$"):
        Endpoint(host, 8883, Path("identity"), "DE")


@given(st.integers(1, 65535))
def test_parses_every_port(port: int) -> None:
    assert parse_port(str(port)) == port
    assert Endpoint("127.0.0.1", port).port == port


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "-1",
        "+1",
        " 1",
        "1\n",
        "1_0",
        "1.0",
        "0x1",
        "²",
        "\u0661",
        pytest.param("9" * 5000, id="long"),
        "000001",
    ],
)
def test_other_text_is_no_port(text: str) -> None:
    assert parse_port(text) is None
