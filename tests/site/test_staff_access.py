"""Page, API and WebSocket of a site answer to a staff certificate only, and no longer than it is valid."""

import asyncio
import gc
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from fastapi import FastAPI
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send
from websockets.exceptions import ConnectionClosedError, InvalidMessage, InvalidStatus

from cloud import staff_access
from cloud.api.access_rules import RULES, check_rules
from cloud.api.security import LoopbackAccess
from cloud.audit_actors import LOOPBACK
from cloud.site import Kind
from cloud.tls_extension import read_certificate
from tests.mosquitto import make_identity, now_s
from tests.site.staff_page import PAGE, StaffPage, ask
from tests.tls_probe import handshake

if TYPE_CHECKING:
    import uvicorn

DAY_S = 86_400
Case = Callable[[StaffPage], Path | None]
REFUSED: dict[str, Case] = {
    "no certificate": lambda _page: None,
    "a hub's": lambda page: page.identity("dr-may", Kind.HUBS),
    "a service's": lambda page: page.identity("dr-may", Kind.SERVICES),
    "an expired one": lambda page: page.identity("dr-may", at_s=now_s() - 91 * DAY_S),
    "one that is not valid yet": lambda page: page.identity("dr-may", at_s=now_s() + DAY_S),
    "another site's": lambda page: page.foreign_identity("dr-may"),
}


@pytest.fixture(autouse=True)
def _beat_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.api.feed.HEARTBEAT_S", 0.05)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[StaffPage]:
    with StaffPage(tmp_path).serving() as page:
        yield page


def list_paths(page: StaffPage) -> list[str]:
    """An address for each route of the application."""
    routes = {route.path: route for route in page.app.routes}  # type: ignore[attr-defined]
    query = "?subject=s&hub=h&sensor=x&kind=heart_rate&from_us=0&to_us=1"
    files = {"/static": "/js/main.js", "/static/reporting": "/"}
    return [
        path.replace("{id_:path}", "1") + (files[path] if isinstance(route, Mount) else query if "api" in path else "")
        for path, route in routes.items()
    ]


def check_no_answer(page: StaffPage, identity: Path | None) -> None:
    for path in list_paths(page):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            page.get(identity, path)
    with pytest.raises((ssl.SSLError, ConnectionError, ConnectionClosedError, InvalidMessage)):
        page.websocket(identity)


class TestCertificates:
    def test_every_route_has_a_rule(self, page: StaffPage) -> None:
        assert {route.path for route in page.app.routes} == RULES.keys()  # type: ignore[attr-defined]
        other = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        other.get("/api/new")(lambda: {})
        with pytest.raises(LookupError, match="the route /api/new has no access rule"):
            check_rules(other.routes)

    def test_a_person_of_the_site_gets_the_page(self, page: StaffPage) -> None:
        identity = page.identity("dr-may")
        for path in list_paths(page):
            if path != "/ws":
                status, headers, _ = page.get(identity, path)
                assert status in {200, 404}, path
                assert headers["strict-transport-security"] == "max-age=31536000"
                assert "default-src 'none'" in headers["content-security-policy"]
                assert not {"server", "x-powered-by", "via"} & headers.keys()
        with page.websocket(identity) as socket:
            assert json.loads(socket.recv())["type"] == "beat"
            assert socket.response is not None
            assert "server" not in {name.lower() for name in socket.response.headers}

    @pytest.mark.parametrize("case", REFUSED)
    def test_nothing_answers_to_another_certificate(self, page: StaffPage, case: str) -> None:
        check_no_answer(page, REFUSED[case](page))

    def test_nothing_answers_to_a_revoked_certificate(self, page: StaffPage) -> None:
        identity = page.identity("dr-may")
        page.authority.revoke(Kind.STAFF, "dr-may", now_s())
        page.access.refresh()
        check_no_answer(page, identity)
        assert page.get(page.identity("dr-roth"), "/")[0] == 200

    def test_the_handshake_is_as_the_bsi_recommends(self, page: StaffPage) -> None:
        """asyncio cuts a connection without the alert that says why."""
        identity = page.identity("dr-may")
        for allowed in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"):
            assert handshake(page.port, "-ciphersuites", allowed, identity=identity) == "ok"
        for refused in (
            ("-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
            ("-ciphersuites", "TLS_AES_128_CCM_SHA256"),
            ("-tls1_2",),
        ):
            assert "unexpected eof" in handshake(page.port, *refused, identity=identity)

    def test_a_session_is_not_resumed_past_a_revocation(self, page: StaffPage) -> None:
        with closing(page.connect(page.identity("dr-may"))) as connection:
            ask(connection, "/")
            assert isinstance(connection.sock, ssl.SSLSocket)
            session = connection.sock.session
        assert session is None or not session.has_ticket

    def test_without_tls_in_front_nothing_is_shown(self, page: StaffPage) -> None:
        """A second line of defence: the application itself asks for the certificate."""
        page.context.verify_mode = ssl.CERT_OPTIONAL
        for path in list_paths(page):
            if path != "/ws":
                assert page.get(None, path)[0] == 403
        with pytest.raises(InvalidStatus, match="403"):
            page.websocket(None)


class TestRequests:
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio waits 30 s for the viewer's close_notify
    def test_a_viewer_who_is_leaving_does_not_break_the_shutdown(self, tmp_path: Path) -> None:
        page = StaffPage(tmp_path)
        with closing(page.connect(page.identity("dr-may"))) as viewer, page.serving():
            viewer.port = page.port
            headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            headers |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Origin": f"https://{PAGE}:{page.port}"}
            viewer.request("GET", "/ws", headers=headers)
            assert viewer.sock is not None
            assert viewer.sock.recv(4096).startswith(b"HTTP/1.1 101")
            viewer.sock.sendall(bytes.fromhex("88 80 00000000"))  # a masked close frame: RFC 6455, 5.5.1
            while viewer.sock.recv(4096):
                pass  # up to the server's TLS close_notify, which stays without an answer
            assert [one.transport.is_closing() for one in page.server.server_state.connections] == [True]
        gc.collect()  # while those warnings are ignored

    def test_only_the_page_s_own_name_is_served(self, page: StaffPage) -> None:
        identity = page.identity("dr-may")
        for host in ("127.0.0.1", "evil.example", "localhost.evil.example", ""):
            assert page.get(identity, "/api/alerts", Host=host)[0] == 421
        assert page.get(identity, "/api/alerts", Host=f"LocalHost:{page.port + 1}")[0] == 200

    @pytest.mark.parametrize("origin", ["https://evil.example", f"http://{PAGE}:PORT", "null"])
    def test_another_site_can_open_no_feed_and_change_nothing(self, page: StaffPage, origin: str) -> None:
        """A browser sends its certificate with the requests of other pages, too."""
        identity, origin = page.identity("dr-may"), origin.replace("PORT", str(page.port))
        with pytest.raises(InvalidStatus, match="403"):
            page.websocket(identity, origin)
        assert page.get(identity, "/api/alerts", "POST", Origin=origin)[0] == 403
        assert page.get(identity, "/api/alerts", "POST", Origin=f"https://{PAGE}:{page.port}")[0] == 405

    def test_a_forwarded_address_is_not_believed(self, tmp_path: Path) -> None:
        with StaffPage(tmp_path).serving(echo_scope) as page:
            _, _, body = page.get(page.identity("dr-may"), "/", **{"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "http"})
        assert json.loads(body)["client"] == "127.0.0.1"

    def test_the_application_gets_the_certificate(self, tmp_path: Path) -> None:
        with StaffPage(tmp_path).serving(echo_scope) as page:
            identity = page.identity("dr-may")
            tls = json.loads(page.get(identity, "/")[2])["tls"]
        assert tls["client_cert_name"] == "CN=dr-may,O=Testklinik,ST=Bayern,C=DE"
        assert tls["client_cert_chain"][0].strip() in (identity / "identity.pem").read_text()
        assert tls["tls_version"] == 0x304


class TestRevocation:
    def test_open_connections_of_a_revoked_person_are_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert staff_access.CHECK_INTERVAL_S <= 30, "an open page must end within a minute"
        monkeypatch.setattr(staff_access, "CHECK_INTERVAL_S", 0.05)
        with StaffPage(tmp_path).serving() as page:
            revoked, other = page.identity("dr-may"), page.identity("dr-roth")
            with page.websocket(revoked) as gone, page.websocket(other) as kept, closing(page.connect(revoked)) as idle:
                assert ask(idle, "/")[0] == 200
                page.authority.revoke(Kind.STAFF, "dr-may", now_s())
                with pytest.raises(ConnectionClosedError):
                    list(gone)
                assert idle.sock is not None
                assert idle.sock.recv(1) == b""
                assert json.loads(kept.recv())["type"] == "beat"
            check_no_answer(page, revoked)

    def test_a_connection_that_is_closing_does_not_end_the_page(self, tmp_path: Path) -> None:
        page, found = StaffPage(tmp_path), []

        async def close_twice(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.append(read_certificate(writer.transport))
            writer.transport.close()
            writer.transport.close()
            found.append(read_certificate(writer.transport))
            connections = SimpleNamespace(connections=[SimpleNamespace(transport=writer.transport)])
            staff_access.cut_refused(cast("uvicorn.Server", SimpleNamespace(server_state=connections)), page.access)

        async def run() -> None:
            async with await asyncio.start_server(close_twice, "127.0.0.1", 0, ssl=page.context) as server:
                port = server.sockets[0].getsockname()[1]
                context = page.client_context(page.identity("dr-may"))
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=PAGE)
                assert await reader.read() == b""
                writer.close()

        asyncio.run(run())
        assert found[0] is not None
        assert found[1] is None

    def test_a_request_on_an_open_connection_is_refused_at_once(self, page: StaffPage) -> None:
        with closing(page.connect(page.identity("dr-may"))) as connection:
            assert ask(connection, "/api/alerts")[0] == 200
            page.authority.revoke(Kind.STAFF, "dr-may", now_s())
            assert ask(connection, "/api/alerts")[0] == 403

    def test_a_certificate_that_expires_ends_an_open_connection(self, page: StaffPage) -> None:
        with closing(page.connect(page.identity("dr-may"))) as connection:
            assert ask(connection, "/")[0] == 200
            page.access._now_s = lambda: now_s() + 91 * DAY_S
            assert ask(connection, "/")[0] == 403

    @pytest.mark.parametrize("content", [None, b"", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
    def test_nobody_looks_while_the_lists_cannot_be_read(self, page: StaffPage, content: bytes | None) -> None:
        crl = page.authority.crl_file(Kind.STAFF)
        with closing(page.connect(page.identity("dr-may"))) as connection:
            assert ask(connection, "/")[0] == 200
            crl.unlink()
            if content is not None:
                crl.write_bytes(content)
            assert ask(connection, "/")[0] == 403
            page.authority.write_crls(now_s())
            assert ask(connection, "/")[0] == 200

    def test_nobody_looks_by_lists_that_are_too_old(self, page: StaffPage) -> None:
        with closing(page.connect(page.identity("dr-may"))) as connection:
            assert ask(connection, "/")[0] == 200
            page.access._now_s = lambda: now_s() + 8 * DAY_S
            assert ask(connection, "/")[0] == 403


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staff_access, "CHECK_INTERVAL_S", 0.05)
    with StaffPage(tmp_path).serving() as page:
        identity, before = page.identity("dr-may"), read_server_certificate(page)
        page.page_identity.joinpath("identity.pem").unlink()
        assert page.get(identity, "/")[0] == 200, "it goes on with the one before"
        make_identity(page.authority, page.page_identity, Kind.SERVICES, "page", hosts=(PAGE,))
        deadline_s = time.monotonic() + 30
        while read_server_certificate(page) == before:
            assert time.monotonic() < deadline_s
        assert page.get(identity, "/")[0] == 200


def read_server_certificate(page: StaffPage) -> bytes | None:
    with closing(page.connect(page.identity("dr-roth"))) as connection:
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        return connection.sock.getpeercert(binary_form=True)


def test_the_demo_needs_no_certificate_on_this_computer() -> None:
    access = LoopbackAccess()
    assert access.find_reader({}) == LOOPBACK
    assert access.serves("127.0.0.1")
    assert not access.serves("clinic.example")
    assert access.headers == ()


async def echo_scope(scope: Scope, _receive: Receive, send: Send) -> None:
    content = json.dumps({"client": scope["client"][0], "tls": scope["extensions"]["tls"]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": content})
