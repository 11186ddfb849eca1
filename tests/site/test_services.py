"""A site's services, each in a process of its own: a hub's alert over mosquitto and PostgreSQL reaches a person's browser."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, expect

from cloud.audit_actors import staff
from cloud.cli import main
from cloud.registry import hub_file, load_hub, save_hub
from cloud.site import Kind
from cloud.site.mosquitto import INGEST, OPENER, PAGE
from cloud.store import Store
from cloud.store.audit import read_rows
from config.tls import make_client_context
from sync.audit import Action, read_row
from sync.commands import APPLIED_KIND, Command, CommandKey, decode_command
from sync.mqtt import Connected, Message, MqttClient
from sync.recipients import RecipientKeyPair
from sync.records import Record, StatusRecord
from sync.wire import Lane, ack_topic, command_topic, receipt_topic
from tests.browser import chromium
from tests.clinic_testbed import Clinic
from tests.cloud.synthetic import START_US, alert, heart_rate, times
from tests.mosquitto import Broker, free_port
from tests.postgresql import Server

LIMIT_S = 60
HUB_KEY = CommandKey(RecipientKeyPair.generate())
SETTINGS = """
data = "clinic"
public = "{public}"
[databases]
store = "{store}"
projections = "{projections}"
[broker]
host = "127.0.0.1"
port = {broker}
region = "DE"
[ingest]
identity = "{ingest}"
key = "clinic/acknowledgement.key"
audit_key = "clinic/audit.pub"
[opener]
identity = "{opener}"
key = "clinic/receipt.key"
audit_key = "clinic/audit.key"
command_key = "clinic/command.key"
[page]
identity = "{page}"
hosts = ["localhost"]
listen = "127.0.0.1"
port = {port}
"""


class Process:
    """One service. It is ready when it has printed a line."""

    def __init__(self, service: str, config: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "cloud.cli", service, "--config", str(config)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_ready(self) -> None:
        assert self._is_ready.wait(LIMIT_S)
        assert self._process.poll() is None, self._process.stderr and self._process.stderr.read()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> tuple[int, str]:
        """Return exit code and what it logged."""
        self._process.wait(LIMIT_S)
        self._reader.join()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        with self._process.stdout, self._process.stderr:
            return self._process.returncode, self._process.stderr.read()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self._is_ready.set()


class Site:
    """The files of a site, and its processes."""

    def __init__(self, folder: Path, broker: Broker, postgresql: Server) -> None:
        self.broker, self.clinic, self.port = broker, Clinic(folder / "clinic"), free_port()
        self.hub = self.clinic.add_hub()
        hubs = self.clinic.folder.hubs
        save_hub(hubs, replace(load_hub(hub_file(hubs, "hub-1")), command_key=HUB_KEY.public))
        for name in ("site_blocks", "site_projections"):
            postgresql.create(name)
        self.store = postgresql.url("site_blocks")
        self.config = folder / "site.toml"
        identities = {name: broker.identity(Kind.SERVICES, name) for name in (INGEST, OPENER, PAGE)}
        urls = {"store": self.store, "projections": postgresql.url("site_projections")}
        values = {"public": broker.authority.public, "broker": broker.services_port, "port": self.port}
        self.config.write_text(SETTINGS.format(**identities, **urls, **values))
        environment = {**os.environ, "PGPASSFILE": str(postgresql.password_file)}
        self.processes = [Process(name, self.config, environment) for name in ("ingest", "ingest", "opener", "serve")]

    def send(self, alert_id: str) -> None:
        """Send an alert as the hub, and wait for the clinic's acknowledgement and receipt."""
        with ThreadPoolExecutor(1) as thread:  # the browser runs an event loop on this one
            thread.submit(asyncio.run, self._send(alert_id)).result()

    async def _send(self, alert_id: str) -> None:
        topics = [ack_topic("hub-1"), receipt_topic("hub-1")]
        async with self._hub(topics) as client:
            await self._send_records(client, "alert", alert(id=alert_id))
            answers: set[str] = set()
            while answers != set(topics):
                answers.add((await receive(client)).topic)

    def carry_out(self) -> Command:
        """Receive a command as the hub, and answer that it was carried out."""
        return asyncio.run(self._carry_out())

    async def _carry_out(self) -> Command:
        async with self._hub([command_topic("hub-1")]) as client:
            await self._send_records(client, "vital", heart_rate(START_US, 60.0))  # the hub is there
            message = await receive(client)
            command = decode_command(message.payload, "hub-1", HUB_KEY, self.clinic.signing.command.public)
            await self._send_records(client, "vital", StatusRecord("hub", APPLIED_KIND, times(START_US), command.number))
            return command

    @asynccontextmanager
    async def _hub(self, topics: Sequence[str]) -> AsyncIterator[MqttClient]:
        client = MqttClient(self.broker.hub("hub-1"), client_id="hub-1", subscriptions=tuple(topics))
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.run())
            assert await client.receive() == Connected()
            yield client
            running.cancel()

    async def _send_records(self, client: MqttClient, lane: Lane, *records: Record) -> None:
        message = self.hub.message(self.hub.seal_records(lane, *records))
        await client.publish(message.topic, message.payload)

    def connect(self, identity: Path | None) -> HTTPSConnection:
        context = make_client_context(self.broker.authority.roots.decode(), "DE", identity=identity)
        return HTTPSConnection("localhost", self.port, timeout=LIMIT_S, context=context)


async def receive(client: MqttClient) -> Message:
    event = await client.receive()
    assert isinstance(event, Message)
    return event


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
    assert ends == [(0, "")] * 4


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


def ask(site: Site, identity: Path | None, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    with closing(site.connect(identity)) as connection:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer) if answer[:1] == b"{" else answer


def test_a_person_closes_the_alert_on_the_hub_and_is_named(
    site: Site, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, own = site.broker.identity(Kind.STAFF, "dr-may"), f"https://localhost:{site.port}"
    close = {"subject": "subject-1", "hub": "hub-1", "alert": "one", "kind": "close_alert"}
    for origin in ({}, {"origin": "https://evil.example"}, {"origin": own, "sec-fetch-site": "cross-site"}):
        assert ask(site, may, "POST", "/api/commands", close, **origin)[0] == 403
    for identity in (None, site.broker.identity(Kind.HUBS, "hub-1")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(site, identity, "POST", "/api/commands", close, origin=own)
    assert ask(site, may, "POST", "/api/commands", close, origin=own)[0] == 202
    command = site.carry_out()
    assert (command.kind, command.subject, command.arguments) == ("close_alert", "subject-1", {"alert": "one"})
    deadline = time.monotonic() + LIMIT_S
    while (shown := ask(site, may, "GET", "/api/commands?subject=subject-1")[1]["commands"][0])["state"] != "applied":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (shown["by"], shown["number"], shown["alert"]) == ("dr-may", command.number, "one")
    monkeypatch.setenv("PGPASSFILE", str(postgresql.password_file))
    with closing(Store.open(site.store)) as store, store.snapshot() as connection:
        events = [read_row(*row).event for row in read_rows(connection)]
    logged = [(event.action, event.actor) for event in events if event.category == "commands" and event.action != "read"]
    assert logged == [("ask-command", staff("dr-may")), ("send-command", staff("dr-may"))]


def test_who_has_no_certificate_of_the_staff_sees_nothing(site: Site) -> None:
    for identity in (None, site.broker.identity(Kind.HUBS, "hub-1"), site.broker.identity(Kind.SERVICES, INGEST)):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            list_alerts(site, identity)


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
    with browser.new_context(ignore_https_errors=True) as context, pytest.raises(Error, match="net::ERR"):
        context.new_page().goto(address)
