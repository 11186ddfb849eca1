"""Every port of a site refuses every certificate but those of its own kind, and every handshake outside BSI TR-02102-2.

Enrolment asks for no certificate by design, since who enrols has none: only its handshakes are attacked here, its requests in
`tests/enrolment/test_enrolment_attacks.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from cloud.metrics_server import answer as metrics_app
from cloud.site import Authority, Kind
from cloud.site.certificates import LIFE_S
from cloud.site.mosquitto import INGEST
from config.tls import load_revoked, make_server_context
from tests.enrolment.site_testbed import STARTED_S
from tests.enrolment.site_testbed import Site as EnrolmentSite
from tests.mosquitto import Broker, make_identity, now_s
from tests.site.conftest import SiteDatabase
from tests.site.ports import MQTT_HELLO, POSTGRES_HELLO, WEBSOCKET_HELLO, Port, http_hello
from tests.site.staff_page import PAGE, StaffPage
from tests.tls_probe import handshake

MQTT_ANSWER: Final = b"\x20\x02\0\0"
HTTP_ANSWER: Final = b"HTTP/1.1 "
DAY_S: Final = 86_400


def no_reload() -> None:
    """Its revocation lists are read without a signal."""


def open_hubs(request: pytest.FixtureRequest, _folder: Path, _stack: ExitStack) -> Port:
    broker: Broker = request.getfixturevalue("broker")
    return Port(broker.hubs_port, broker.authority, Kind.HUBS, (MQTT_HELLO,), MQTT_ANSWER, broker.reload)


def open_services(request: pytest.FixtureRequest, _folder: Path, _stack: ExitStack) -> Port:
    broker: Broker = request.getfixturevalue("broker")
    return Port(broker.services_port, broker.authority, Kind.SERVICES, (MQTT_HELLO,), MQTT_ANSWER, broker.reload)


def open_database(request: pytest.FixtureRequest, _folder: Path, _stack: ExitStack) -> Port:
    database: SiteDatabase = request.getfixturevalue("site_database")
    server, authority = database.server, database.authority
    return Port(server.port, authority, Kind.SERVICES, (POSTGRES_HELLO,), b"R", server.reload, is_postgres=True)


def open_page(_request: pytest.FixtureRequest, folder: Path, stack: ExitStack) -> Port:
    page = stack.enter_context(StaffPage(folder).serving())
    hellos = (http_hello("/"), http_hello("/api/alerts"), WEBSOCKET_HELLO)
    return Port(page.port, page.authority, Kind.STAFF, hellos, HTTP_ANSWER, page.access.refresh, PAGE)


def open_enrolment(_request: pytest.FixtureRequest, folder: Path, stack: ExitStack) -> Port:
    site = stack.enter_context(EnrolmentSite(folder / "clinic", now_s=STARTED_S).serving())
    return Port(site.port, site.authority, None, (http_hello("/v2/roots"),), HTTP_ANSWER, no_reload)


def open_metrics(_request: pytest.FixtureRequest, folder: Path, stack: ExitStack) -> Port:
    page = StaffPage(folder)
    context = make_server_context(
        page.page_identity,
        anchors=page.authority.anchors_file(Kind.SERVICES),
        crl=page.authority.crl_file(Kind.SERVICES),
    )

    def reload() -> None:
        load_revoked(context, page.authority.crl_file(Kind.SERVICES))

    page.context = context
    running = stack.enter_context(page.serving(metrics_app))
    return Port(running.port, page.authority, Kind.SERVICES, (http_hello("/metrics"),), HTTP_ANSWER, reload, PAGE)


OPEN: Final[dict[str, Callable[[pytest.FixtureRequest, Path, ExitStack], Port]]] = {
    "hubs": open_hubs,
    "services": open_services,
    "database": open_database,
    "page": open_page,
    "metrics": open_metrics,
    "enrolment": open_enrolment,
}
MUTUAL: Final = tuple(name for name in OPEN if name != "enrolment")


@pytest.fixture(scope="module")
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    with ExitStack() as stack:
        yield OPEN[request.param](request, tmp_path_factory.mktemp(request.param), stack)


def name_of(kind: Kind) -> str:
    return INGEST if kind == Kind.SERVICES else "anna"


def issue(port: Port, folder: Path, kind: Kind, *, at_s: int | None = None) -> Path:
    return make_identity(port.authority, folder / "identity", kind, name_of(kind), at_s=at_s)


def issue_abroad(port: Port, folder: Path, kind: Kind) -> Path:
    """Issue a certificate of another site of the same name, for a client that trusts the true one."""
    abroad = Authority.create(folder / "abroad", "Testklinik", "DE", "Bayern", now_s())
    identity = make_identity(abroad, folder / "identity", kind, name_of(kind))
    (identity / "roots.pem").write_bytes(port.authority.roots)
    return identity


IDENTITIES: Final[dict[str, Callable[[Port, Path, Kind], Path | None]]] = {
    "right": issue,
    "no certificate": lambda _port, _folder, _kind: None,
    "expired": lambda port, folder, kind: issue(port, folder, kind, at_s=now_s() - LIFE_S[kind] - 1),
    "not valid yet": lambda port, folder, kind: issue(port, folder, kind, at_s=now_s() + DAY_S),
    "foreign": issue_abroad,
    "of another kind": lambda port, folder, kind: issue(port, folder, Kind.STAFF if kind != Kind.STAFF else Kind.HUBS),
}


@pytest.mark.parametrize("port", MUTUAL, indirect=True)
@pytest.mark.parametrize("attack", [name for name in IDENTITIES if name != "right"])
def test_a_client_without_the_right_certificate_gets_no_answer(port: Port, attack: str, tmp_path: Path) -> None:
    assert port.kind is not None
    assert port.answers(issue(port, tmp_path / "right", port.kind))
    assert not port.answers(IDENTITIES[attack](port, tmp_path, port.kind))


@pytest.mark.parametrize("port", MUTUAL, indirect=True)
def test_a_client_whose_certificate_was_revoked_gets_no_answer(port: Port, tmp_path: Path) -> None:
    assert port.kind is not None
    lost = make_identity(port.authority, tmp_path / "lost", port.kind, "lost")
    assert port.answers(lost)
    port.authority.revoke(port.kind, "lost", now_s())
    port.reload()
    assert not port.answers(lost)
    assert port.answers(issue(port, tmp_path, port.kind))


OUTSIDE: Final = (
    ("-tls1_2",),
    ("-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
    ("-ciphersuites", "TLS_AES_128_CCM_SHA256"),
    ("-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_8_SHA256:TLS_AES_128_CCM_SHA256"),
)


@pytest.mark.parametrize("port", OPEN, indirect=True)
def test_a_handshake_outside_the_bsis_list_is_refused(port: Port, tmp_path: Path) -> None:
    """asyncio cuts the connection without the alert that says why."""
    identity = None if port.kind is None else issue(port, tmp_path, port.kind)
    for allowed in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"):
        assert handshake(port.number, *port.openssl_options, "-ciphersuites", allowed, identity=identity) == "ok"
    for offer in OUTSIDE:
        refusal = handshake(port.number, *port.openssl_options, *offer, identity=identity)
        assert any(part in refusal for part in ("handshake failure", "protocol version", "unexpected eof")), (offer, refusal)


@pytest.mark.parametrize("port", ["enrolment"], indirect=True)
def test_enrolment_answers_without_a_certificate(port: Port) -> None:
    assert port.answers(None)
