"""A site's services, each a process of its own, with a broker and databases by which a hub's records reach the page."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from cloud.metrics_server import MONITOR
from cloud.site import Kind
from cloud.site.mosquitto import INGEST, OPENER, PAGE
from config.tls import make_client_context
from sync.mqtt import Connected, Message, MqttClient
from sync.records import Record
from sync.wire import Lane, ack_topic, receipt_topic
from tests.clinic_testbed import Clinic
from tests.cloud.synthetic import alert
from tests.mosquitto import HOST, Broker, free_port
from tests.postgresql import Server

LIMIT_S = 60
ROOT = Path(__file__).parents[2]
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
[page]
identity = "{page}"
hosts = ["localhost"]
listen = "127.0.0.1"
port = {port}
"""


SPY = """
import os, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["DESTINATIONS"], "a") as file:
            file.write(repr(arguments[0] if event.startswith("socket.get") else arguments[1]) + "\\n")
sys.addaudithook(note)
"""
"""Runs at the start of each service, and writes every address that it connects to and every name that it looks up."""


class Process:
    """One service. It is ready when it has printed a line."""

    def __init__(
        self, service: str, config: Path, environment: dict[str, str], program: Sequence[str] = ("-m", "cloud.cli")
    ) -> None:
        self.service, self.metrics_port = service, free_port()
        command = [sys.executable, *program, service, "--config", str(config)]
        command += ["--metrics", f"{HOST}:{self.metrics_port}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self.pid = self._process.pid
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

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        postgresql: Server,
        for_projections: Server | None = None,
        services: Sequence[str] = ("ingest", "ingest", "opener", "serve"),
    ) -> None:
        for_projections = for_projections or postgresql
        self.broker, self.clinic, self.port = broker, Clinic(folder / "clinic"), free_port()
        self.hub = self.clinic.add_hub()
        postgresql.create("site_blocks")
        for_projections.create("site_projections")
        self.store = postgresql.url("site_blocks")
        self.config = folder / "site.toml"
        identities = {name: broker.identity(Kind.SERVICES, name) for name in (INGEST, OPENER, PAGE)}
        urls = {"store": self.store, "projections": for_projections.url("site_projections")}
        values = {"public": broker.authority.public, "broker": broker.services_port, "port": self.port}
        self.config.write_text(SETTINGS.format(**identities, **urls, **values))
        (folder / "sitecustomize.py").write_text(SPY)
        self.destinations = folder / "destinations"
        (folder / "pgpass").write_text("".join(one.password_file.read_text() for one in {postgresql, for_projections}))
        (folder / "pgpass").chmod(0o600)
        (folder / "tmp").mkdir()
        self._environment = os.environ | {"PGPASSFILE": str(folder / "pgpass"), "PYTHONPATH": f"{folder}:{ROOT}"}
        self._environment |= {"DESTINATIONS": str(self.destinations), "TMPDIR": str(folder / "tmp")}
        self.processes = [self.start(name) for name in services]

    def start(self, service: str, program: Sequence[str] = ("-m", "cloud.cli")) -> Process:
        """Start one more process of a service, or another program with its arguments."""
        return Process(service, self.config, self._environment, program)

    def send(self, alert_id: str) -> None:
        """Send an alert as the hub, and wait for the clinic's acknowledgement and receipt."""
        self.send_records("alert", alert(id=alert_id))

    def send_records(self, lane: Lane, *records: Record, is_opened: bool = True) -> list[Message]:
        """Send records as the hub, wait for the acknowledgement and, if they are opened, the receipt; return all messages."""
        with ThreadPoolExecutor(1) as thread:  # the browser runs an event loop on this one
            return thread.submit(asyncio.run, self._send(lane, records, is_opened)).result()

    async def _send(self, lane: Lane, records: Sequence[Record], is_opened: bool) -> list[Message]:
        message = self.hub.message(self.hub.seal_records(lane, *records))
        topics = [ack_topic("hub-1"), *([receipt_topic("hub-1")] if is_opened else [])]
        messages = [message]
        client = MqttClient(self.broker.hub("hub-1"), client_id="hub-1", subscriptions=topics)
        answers: set[str] = set()
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.run())
            assert await client.receive() == Connected()
            await client.publish(message.topic, message.payload)
            while answers != set(topics):
                event = await client.receive()
                assert isinstance(event, Message)
                answers.add(event.topic)
                messages.append(event)
            running.cancel()
        return messages

    def connect(self, identity: Path | None, port: int | None = None) -> HTTPSConnection:
        context = make_client_context(self.broker.authority.roots.decode(), "DE", identity=identity)
        return HTTPSConnection("localhost", port or self.port, timeout=LIMIT_S, context=context)

    def read_metrics(self, service: str) -> dict[str, float]:
        """Return the metrics of all processes of a service together, with their labels."""
        values: Counter[str] = Counter()
        for process in self.processes:
            if process.service == service:
                status, text = self.ask_metrics(process, self.broker.identity(Kind.SERVICES, MONITOR))
                assert status == 200
                for family in text_string_to_metric_families(text):
                    for sample in family.samples:
                        labels = "".join(f"{{{label}}}" for label in sample.labels.values())
                        values[sample.name + labels] += sample.value
        return values

    def ask_metrics(self, process: Process, identity: Path | None, path: str = "/metrics") -> tuple[int, str]:
        with closing(self.connect(identity, process.metrics_port)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
