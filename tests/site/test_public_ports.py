"""What the machine of a site shows to others: the proxy's three ports, and nothing else."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cloud.errors import ClinicError
from cloud.site.layout import PUBLIC_PORTS
from cloud.site.public_ports import ADDRESS_RATE, make_firewall, make_proxy_config
from tests.mosquitto import free_port
from tests.namespaces import unshare_command

LIMIT_S = 120
NOBODY = 65534
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
"""Debian keeps it outside the path of an ordinary user."""


class TestFirewall:
    @pytest.fixture(scope="class")
    @staticmethod
    def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
        """What `network_probe` found in a network of its own."""
        folder = tmp_path_factory.mktemp("firewall")
        rules = [folder / name for name in ("rules.nft", "of-a-service.nft")]
        for path, user in zip(rules, (NOBODY, 0), strict=True):  # in its namespaces the probe is root
            path.write_text(make_firewall([user], []))
        probe = Path(__file__).with_name("network_probe.py")
        command = [*unshare_command("--net"), sys.executable, probe, *rules]
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}  # where Debian keeps nft
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def test_others_reach_the_public_ports_only(self, found: dict[str, object]) -> None:
        assert found["before"] == [22, 443, 8443, 8883, 8600, 8601, 8602, 8603, 8604]
        assert found["after"] == sorted(PUBLIC_PORTS)

    def test_services_reach_each_other_on_this_machine(self, found: dict[str, object]) -> None:
        assert found["loopback"] == found["before"]
        assert found["loopback_of_a_service"] is True

    def test_a_service_connects_to_no_other_machine(self, found: dict[str, object]) -> None:
        assert (found["out_before"], found["out_of_others"]) == (True, True)
        assert found["out_of_a_service"] is False

    def test_applying_the_rules_again_replaces_them(self, found: dict[str, object]) -> None:
        assert found["tables"] == 1

    def test_ssh_is_open_to_the_named_networks_only(self) -> None:
        lines = make_firewall([NOBODY], ["192.0.2.0/24", "2001:db8::/32"]).splitlines()
        assert [line.strip() for line in lines if "22" in line] == [
            "ip saddr 192.0.2.0/24 tcp dport 22 accept",
            "ip6 saddr 2001:db8::/32 tcp dport 22 accept",
        ]
        assert not [line for line in make_firewall([NOBODY], []).splitlines() if "dport 22" in line]

    @pytest.mark.parametrize("network", ["everybody", "192.0.2.1/24", "0.0.0.0/0 accept; drop"])
    def test_refuses_what_is_not_a_network(self, network: str) -> None:
        with pytest.raises(ClinicError, match="is not a network"):
            make_firewall([NOBODY], [network])


@contextmanager
def run_proxy(folder: Path, has_ipv6: bool = False) -> Iterator[tuple[dict[int, int], Path]]:
    """Run the proxy with free ports in place of its own; yields the public ports, and its log."""
    assert HAPROXY is not None, "haproxy is missing: run make site-tools"
    text = make_proxy_config(has_ipv6=has_ipv6)
    ports = {}
    for public, private in PUBLIC_PORTS.items():
        ports[public], ports[private] = free_port(), free_port()
        text = text.replace(f"bind :{public}\n", f"bind 127.0.0.1:{ports[public]}\n")
        text = text.replace(f"127.0.0.1:{private}\n", f"127.0.0.1:{ports[private]}\n")
    config, log = folder / "haproxy.cfg", folder / "log"
    config.write_text(text)
    with log.open("wb") as file:
        process = subprocess.Popen([HAPROXY, "-db", "-f", config], stdout=file, stderr=subprocess.STDOUT)
    try:
        yield ports, log
    finally:
        process.send_signal(signal.SIGUSR1)  # it ends, and logs, its connections first
        process.wait(LIMIT_S)


class Echo:
    """A server that sends back what it gets, on the private port of a service."""

    def __init__(self, port: int) -> None:
        self.client = 0
        """The port from which the latest connection came."""
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, (_, self.client) = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(connection.recv(4096))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def connect(port: int) -> socket.socket:
    """Connect to the proxy as soon as it listens."""
    for _ in range(LIMIT_S * 100):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
        except ConnectionRefusedError:
            threading.Event().wait(0.01)
    raise AssertionError("the proxy does not listen")


class TestProxy:
    @pytest.mark.parametrize("has_ipv6", [False, True])
    def test_haproxy_understands_its_configuration(self, tmp_path: Path, has_ipv6: bool) -> None:
        assert HAPROXY is not None, "haproxy is missing: run make site-tools"
        config = tmp_path / "haproxy.cfg"
        config.write_text(make_proxy_config(has_ipv6=has_ipv6))
        done = subprocess.run([HAPROXY, "-c", "-f", config], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr

    def test_each_port_passes_bytes_to_its_service_and_logs_the_client(self, tmp_path: Path) -> None:
        clients, sources = [], []
        with run_proxy(tmp_path) as (ports, log):
            for public, private in PUBLIC_PORTS.items():
                with closing(Echo(ports[private])) as echo, connect(ports[public]) as client:
                    clients.append(client.getsockname()[1])
                    client.sendall(b"\x16\x03\x01")
                    assert client.recv(4096) == b"\x16\x03\x01"
                    assert client.recv(4096) == b""
                    sources.append(echo.client)
        lines = log.read_text().splitlines()
        for name, port, source in zip(("page", "enrolment", "hubs"), clients, sources, strict=True):
            expected = f" {name} client=127.0.0.1:{port} via=127.0.0.1:{source} bytes=3/3 "
            assert [line for line in lines if expected in line], lines

    def test_an_address_with_too_many_connections_is_refused(self, tmp_path: Path) -> None:
        with run_proxy(tmp_path) as (ports, _), closing(Echo(ports[PUBLIC_PORTS[443]])):
            for _ in range(ADDRESS_RATE):
                with connect(ports[443]) as client:
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
            assert self._is_refused(ports[443])

    @staticmethod
    def _is_refused(port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
                client.sendall(b"x")
                return client.recv(1) != b"x"
        except ConnectionError:
            return True
