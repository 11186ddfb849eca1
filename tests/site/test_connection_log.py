"""Each port logs connections and failed attempts with time, address and reason, and a flood does not fill the disk."""

import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from cloud import connection_log, tls_gate
from cloud.connection_log import LINES_LIMIT, WINDOW_S, ConnectionLog
from cloud.site import Kind
from tests.mosquitto import HOST, Broker
from tests.postgresql import USER
from tests.site.conftest import SiteDatabase
from tests.site.ports import Port
from tests.site.test_port_attacks import IDENTITIES, open_database, open_enrolment, open_hubs, open_page
from tests.tls_probe import handshake

LIMIT_S = 10.0
ADDRESS = r"127\.0\.0\.1:\d+"
REASONS = {
    "no certificate": "peer did not return a certificate",
    "expired": "certificate has expired",
    "not valid yet": "certificate is not yet valid",
    "foreign": r"unable to get local issuer certificate|certificate signature failure",
    "of another kind": "unable to get local issuer certificate",
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def _show(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, connection_log.__name__)


def wait_for(read: Callable[[], str], pattern: str) -> None:
    """Wait until a line of the log matches."""
    deadline_s = time.monotonic() + LIMIT_S
    while not re.search(pattern, read(), re.MULTILINE):
        assert time.monotonic() < deadline_s, f"{pattern} is not in\n{read()}"
        time.sleep(0.01)


def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    return lambda: "\n".join(record.getMessage() for record in caplog.records if record.name == connection_log.__name__)


class TestPage:
    @pytest.fixture
    def port(self, request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> Port:
        return open_page(request, tmp_path / "page", stack)

    def test_a_person_is_logged_by_address_and_name(self, port: Port, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        assert port.answers(IDENTITIES["right"](port, tmp_path, Kind.STAFF))
        wait_for(lines(caplog), rf"^page: connection from {ADDRESS} of anna$")

    @pytest.mark.parametrize("attack", REASONS)
    def test_a_refused_certificate_is_logged_with_the_reason(
        self, port: Port, tmp_path: Path, attack: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert not port.answers(IDENTITIES[attack](port, tmp_path, Kind.STAFF))
        wait_for(lines(caplog), rf"^page: refused a connection from {ADDRESS}: ({REASONS[attack]})$")

    def test_other_protocols_and_broken_handshakes_are_logged(
        self, port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(tls_gate, "HANDSHAKE_TIMEOUT_S", 0.05)
        handshake(port.number, "-tls1_2")
        wait_for(lines(caplog), "unsupported protocol$")
        handshake(port.number, "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256")
        wait_for(lines(caplog), "no shared cipher$")
        with socket.create_connection((HOST, port.number)) as plain:
            plain.sendall(b"GET /secret HTTP/1.1\r\n\r\n")
            wait_for(lines(caplog), "http request$")
        with socket.create_connection((HOST, port.number)):
            wait_for(lines(caplog), "no handshake within 0 s$")
        monkeypatch.setattr(tls_gate, "HANDSHAKE_TIMEOUT_S", 60.0)
        socket.create_connection((HOST, port.number)).close()
        wait_for(lines(caplog), "closed by the client before the end of the handshake$")
        assert "secret" not in caplog.text

    def test_open_handshakes_are_limited(
        self, port: Port, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("cloud.sockets.MAX_CONNECTIONS", 3)
        for _ in range(3):
            stack.enter_context(socket.create_connection((HOST, port.number)))
        with socket.create_connection((HOST, port.number), timeout=LIMIT_S) as one_more:
            assert one_more.recv(1) == b""
        assert "the page has 3 connections, its limit: refusing more" in caplog.text
        wait_for(lines(caplog), rf"^page: refused a connection from {ADDRESS}: too many handshakes at once$")


def test_enrolment_logs_hubs_and_failed_handshakes(
    request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = open_enrolment(request, tmp_path, stack)
    assert port.answers(None)
    wait_for(lines(caplog), rf"^enrolment: connection from {ADDRESS}$")
    handshake(port.number, "-tls1_2")
    wait_for(lines(caplog), rf"^enrolment: refused a connection from {ADDRESS}: unsupported protocol$")


def test_the_broker_logs_both(request: pytest.FixtureRequest, broker: Broker, stack: ExitStack, tmp_path: Path) -> None:
    port, first = open_hubs(request, tmp_path, stack), len(broker.log)
    time_ = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d: "

    def read() -> str:
        return "\n".join(broker.log[first:])

    assert port.answers(IDENTITIES["right"](port, tmp_path / "right", Kind.HUBS))
    wait_for(read, rf"{time_}New client connected from {ADDRESS} as anna ")
    assert not port.answers(None)
    # It writes the reason with the address, or, if the handshake takes longer, below a line with the address.
    start = rf"{time_}(Client connection from 127\.0\.0\.1 failed|OpenSSL Error\[0\]): .*"
    wait_for(read, rf"{start}peer did not return a certificate")
    handshake(port.number, "-tls1_2")
    wait_for(read, rf"{start}unsupported protocol")
    assert re.search(rf"{time_}New connection from {ADDRESS} on port {port.number}", read(), re.MULTILINE)


def test_the_database_logs_both_and_no_value(
    request: pytest.FixtureRequest, site_database: SiteDatabase, stack: ExitStack, tmp_path: Path
) -> None:
    port, server = open_database(request, tmp_path, stack), site_database.server
    begin = len(server.log_file.read_text())
    head = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC \[\d+\] 127\.0\.0\.1\(\d+\) "

    def read() -> str:
        return server.log_file.read_text()[begin:]

    assert port.answers(IDENTITIES["right"](port, tmp_path / "right", Kind.SERVICES))
    wait_for(read, rf"{head}LOG:  connection received: host=127\.0\.0\.1 port=\d+$")
    assert not port.answers(None)
    wait_for(read, rf"{head}FATAL:  connection requires a valid client certificate$")
    handshake(port.number, *port.openssl_options, "-tls1_2")
    wait_for(read, rf"{head}LOG:  could not accept SSL connection: unsupported protocol$")
    for statement in (
        "SELECT 'CANARY'::int",
        "SELEC 'CANARY'",
        "DO $$ BEGIN RAISE unique_violation USING DETAIL = 'CANARY'; END $$",
    ):
        with server.engine("blocks").connect() as connection, pytest.raises(DBAPIError):
            connection.exec_driver_sql(statement)
    wait_for(read, rf"connection authorized: user={USER} database=blocks")
    assert "CANARY" not in read()


class TestFlood:
    def test_of_a_flood_some_lines_are_written_and_the_rest_is_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        now_s = 100.0
        log = ConnectionLog("page", lambda: now_s)
        for port in range(5000):
            log.refuse(f"192.0.2.1:{port}", "no shared cipher")
        log.accept("192.0.2.9:1", "dr-may")  # a flood of failed attempts does not hide the others
        assert len(caplog.records) == LINES_LIMIT + 1
        assert caplog.records[-1].getMessage() == "page: connection from 192.0.2.9:1 of dr-may"
        now_s += WINDOW_S
        log.refuse("192.0.2.1:1", "no shared cipher")
        assert [record.getMessage() for record in caplog.records[-2:]] == [
            f"page: {5000 - LINES_LIMIT} more failed attempts in 60 s are not listed",
            "page: refused a connection from 192.0.2.1:1: no shared cipher",
        ]
