"""A site's services, each in a process of its own: a hub's alert over mosquitto and PostgreSQL reaches a person's browser."""

import json
import re
import ssl
from ast import literal_eval
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, expect

from cloud.audit_actors import staff
from cloud.cli import main
from cloud.metrics_server import MONITOR
from cloud.site import Kind
from cloud.site.mosquitto import INGEST, OPENER, PAGE
from cloud.store import Store
from cloud.store.audit import read_rows
from sync.audit import Action, read_row
from tests.browser import chromium
from tests.mosquitto import HOST, Broker
from tests.postgresql import Server
from tests.site.running_site import LIMIT_S, Site

CONNECTION = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|WARNING) cloud\.connection_log: "
    r"(page|metrics): (refused a )?connection from 127\.0\.0\.1:\d+(: [a-z0-9 ]+| of [a-z-]+)"
)
"""The only lines of a log when all goes well."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, broker: Broker, postgresql: Server) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("services"), broker, postgresql)
    try:
        for process in site.processes:
            process.wait_ready()
        site.send("one")
        yield site
    finally:
        for process in site.processes:
            process.stop()
        ends = [process.wait() for process in site.processes]
    assert [code for code, _ in ends] == [0] * 4
    for _, log in ends:
        assert all(CONNECTION.fullmatch(line) for line in log.splitlines()), log


def list_alerts(site: Site, identity: Path | None) -> list[str]:
    with closing(site.connect(identity)) as connection:
        connection.request("GET", "/api/alerts")
        return [found["id"] for found in json.load(connection.getresponse())["alerts"]]


def test_a_person_sees_the_alert_and_is_named_in_the_audit_log(
    site: Site, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list_alerts(site, site.broker.identity(Kind.STAFF, "dr-may")) == ["one"]
    monkeypatch.setenv("PGPASSFILE", str(postgresql.password_file))
    with closing(Store.open(site.store)) as store, store.snapshot() as connection:
        events = [read_row(*row).event for row in read_rows(connection)]
    assert [event.actor for event in events if event.action == Action.READ] == [staff("dr-may")]
    starts = sorted(event.actor.id for event in events if event.action == Action.START)
    assert starts == [INGEST, INGEST, OPENER, PAGE]


def test_who_has_no_certificate_of_the_staff_sees_nothing(site: Site) -> None:
    for identity in (None, site.broker.identity(Kind.HUBS, "hub-1"), site.broker.identity(Kind.SERVICES, INGEST)):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            list_alerts(site, identity)


def test_the_monitor_reads_the_metrics_of_each_service(site: Site) -> None:
    list_alerts(site, site.broker.identity(Kind.STAFF, "dr-may"))
    ingest, opener, page = (site.read_metrics(name) for name in ("ingest", "opener", "serve"))
    n = ingest["pulsegate_ingest_blocks_total"]
    assert n >= 1
    assert ingest["pulsegate_ingest_messages_total{acknowledged}"] == n
    assert ingest["pulsegate_ingest_seconds_count"] >= 1
    assert ingest["pulsegate_ingest_seconds_bucket{10.0}"] == ingest["pulsegate_ingest_seconds_count"]
    assert ingest["pulsegate_ingest_pauses_total"] == 0
    assert opener["pulsegate_opener_blocks_total{alert}{opened}"] == n
    assert opener["pulsegate_alert_opened_seconds_count"] == opener["pulsegate_alert_received_seconds_count"] == n
    assert opener["pulsegate_alert_opened_seconds_bucket{60.0}"] == n
    assert opener["pulsegate_hubs{registered}"] == 1
    assert opener["pulsegate_hubs{silent}"] == 0
    assert page["pulsegate_page_request_seconds_count{2xx}"] >= 1
    assert page["pulsegate_connections_total{accepted}{page}"] >= 1
    assert page["process_resident_memory_bytes"] > 0


def test_the_metrics_are_for_the_monitor_only(site: Site) -> None:
    identity = site.broker.identity
    for process in site.processes:
        for stranger in (None, identity(Kind.HUBS, MONITOR), identity(Kind.STAFF, MONITOR)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                site.ask_metrics(process, stranger)
        assert site.ask_metrics(process, identity(Kind.SERVICES, INGEST))[0] == 403
        assert site.ask_metrics(process, identity(Kind.SERVICES, MONITOR), "/")[0] == 404


def test_the_services_connect_to_broker_and_database_only(site: Site) -> None:
    """Besides, paho connects to itself on loopback, to wake its thread."""
    found = {literal_eval(line) for line in site.destinations.read_text().splitlines()}
    paths = {path for path in found if isinstance(path, str) and path.startswith("/")}
    assert paths == {f"{site.store.host}/.s.PGSQL.{site.store.port}"}
    assert (HOST, site.broker.services_port) in found
    assert {host if isinstance(host, str) else host[0] for host in found - paths} == {HOST}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_a_browser_with_the_file_of_the_operator_shows_the_page(
    site: Site, browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = tmp_path / "data", tmp_path / "dr-roth.p12"
    data.mkdir()
    (data / "site").symlink_to(site.broker.authority.folder)
    assert main(["user", "add", "dr-roth", "--data", str(data), "--out", str(file)]) == 0
    password = capsys.readouterr().out.split("password of the file: ")[1].split()[0]
    address = f"https://localhost:{site.port}"
    certificate = {"origin": address, "pfxPath": str(file), "passphrase": password}
    with browser.new_context(ignore_https_errors=True, client_certificates=[certificate]) as context:
        page = context.new_page()
        page.goto(address)
        expect(page.locator("#alerts li")).to_have_count(1, timeout=LIMIT_S * 1000)
        site.send("two")  # arrives by the live feed
        expect(page.locator("#alerts li")).to_have_count(2, timeout=LIMIT_S * 1000)
    assert site.read_metrics("serve")["pulsegate_alert_shown_seconds_count"] >= 1
    with browser.new_context(ignore_https_errors=True) as context, pytest.raises(Error, match="net::ERR"):
        context.new_page().goto(address)
