"""A planted patient's name and readings, sent through a whole site, are in the opener's projections and on pages only.

The databases are on two servers, because the log of a server holds what all its databases hold.
"""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from cloud import tables
from cloud.metrics_server import MONITOR
from cloud.site import Kind
from sync.mqtt import Message
from tests.mosquitto import Broker, run_broker
from tests.postgresql import Server, run_server
from tests.site import canary
from tests.site.canary import find_canary, find_in_files
from tests.site.conftest import configure_database
from tests.site.running_agent import HUB, RunningAgent
from tests.site.running_site import LIMIT_S, Process, Site

CRASHING = Path(__file__).with_name("crashing_opener.py")


class CanarySite:
    """A site through which the canary went. Its processes have ended, one of them by a crash."""

    def __init__(self, folder: Path, broker: Broker, store: Server, projections: Server) -> None:
        self.folder, self.broker, self.store, self.projections = folder, broker, store, projections
        self.began_s = time.time()
        self.site = Site(folder / "site", broker, store, projections, ("ingest", "opener", "serve"))
        self.agent = RunningAgent(folder / "hub", self.site.clinic.folder, broker)
        self.messages: list[Message] = []
        self.outputs: dict[str, tuple[int, str]] = {}
        self.processes: dict[str, bytes] = {}
        self.limits: list[str] = []
        self.metrics = self.page = ""

    def run(self) -> None:
        site = self.site
        try:
            for process in site.processes:
                process.wait_ready()
            self.messages += site.send_records("wave", canary.WAVEFORM, is_opened=False)
            self.messages += site.send_records("vital", canary.VITAL, canary.STATUS)
            self.messages += site.send_records("alert", canary.make_alert(1))
            self.page = self._read_page()
            self._wait_for_agent()
            for words in (("status",), ("doctor", "--json"), ("audit", "show"), ("keys", "list")):
                self.agent.ask(*words)
            self._look_at_processes()
            self.agent.stop()
            self._stop(site.processes[1:])
            self.messages += site.send_records("alert", canary.make_alert(2), is_opened=False)
            crashing = site.start("opener", (str(CRASHING),))
            self.outputs["crash"] = crashing.wait()
        finally:
            self.agent.close()
            self._stop([process for process in site.processes if process.service not in self.outputs])

    def _read_page(self) -> str:
        """Wait until the page shows the alert, as a person."""
        identity, deadline_s = self.broker.identity(Kind.STAFF, "dr-may"), time.monotonic() + LIMIT_S
        while True:
            with closing(self.site.connect(identity)) as connection:
                connection.request("GET", "/api/alerts")
                text = connection.getresponse().read().decode()
            if json.loads(text)["alerts"]:
                return text
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    def _wait_for_agent(self) -> None:
        """Wait until the clinic has opened the readings of both sensors of the agent."""
        deadline_s, waves, vitals = time.monotonic() + LIMIT_S, tables.waveforms, tables.vitals
        queries = [
            select(waves.c.hub).where(waves.c.hub == HUB),
            select(vitals.c.hub).where(vitals.c.hub == HUB, vitals.c.value == canary.TEMPERATURE),
        ]
        while True:
            with self.projections.engine("site_projections").connect() as connection:
                if all(connection.execute(query.limit(1)).first() for query in queries):
                    return
            assert time.monotonic() < deadline_s, self.agent.log_file.read_text()
            time.sleep(0.1)

    def _look_at_processes(self) -> None:
        """Read the metrics of all services, and the arguments and environments of all processes of this computer."""
        monitor = self.broker.identity(Kind.SERVICES, MONITOR)
        self.metrics = "".join(self.site.ask_metrics(process, monitor)[1] for process in self.site.processes)
        pids = [self.agent.pid, *(process.pid for process in self.site.processes)]
        self.limits = [Path(f"/proc/{pid}/limits").read_text() for pid in pids]
        for path in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")):
            try:
                self.processes[str(path)] = path.read_bytes()
            except OSError:  # it has ended, or belongs to another user
                continue

    def _stop(self, processes: list[Process]) -> None:
        for process in processes:
            process.stop()
        for process in processes:
            self.outputs[process.service] = process.wait()


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CanarySite]:
    folder = tmp_path_factory.mktemp("canary")
    (folder / "site").mkdir()
    with (
        run_broker(folder / "broker") as broker,
        run_server(configure_database([])) as store,
        run_server(configure_database([])) as projections,
    ):
        site = CanarySite(folder, broker, store, projections)
        site.run()
        for server in (store, projections):
            server.checkpoint()
        yield site


def test_the_page_and_the_projections_have_it(after: CanarySite) -> None:
    """So it has come through, and the search finds it."""
    assert {"name in utf-8", "137.4375 in digits", "131.71875 in digits"} <= set(find_canary(after.page.encode()))
    found = {
        form for forms in find_in_files(after.projections.folder / "data" / "base", after.began_s).values() for form in forms
    }
    assert {"name in utf-8", "137.4375 as <d"} <= found
    assert "samples as the projections have them" in found


def test_no_file_has_it(after: CanarySite) -> None:
    """Keys, settings, what the services wrote, the store with its log of changes, and the logs of both servers."""
    assert len(list(after.folder.rglob("*"))) > 30
    assert find_in_files(after.folder, 0.0) == {}
    assert find_in_files(after.store.folder, after.began_s) == {}
    assert (after.store.folder / "data" / "pg_wal").is_dir()
    assert find_canary(after.projections.log_file.read_bytes()) == []


def test_no_log_has_it(after: CanarySite) -> None:
    assert after.broker.log
    assert find_canary("\n".join(after.broker.log).encode()) == []
    for name, (status, output) in after.outputs.items():
        assert find_canary(output.encode()) == [], name
        assert (status == 0) == (name != "crash")


def test_no_log_status_or_report_of_the_agent_has_it(after: CanarySite) -> None:
    """Its folder and its log are among all files: `test_no_file_has_it`."""
    log, outputs = after.agent.log_file.read_text(), after.agent.outputs
    assert {name: status for name, (status, _) in outputs.items() if name in ("run", "crash", "status", "audit", "keys")} == {
        **{"run": 0, "crash": 1, "status": 0, "audit": 0, "keys": 0}
    }
    assert "thermometer" in outputs["status"][1]
    for text in (log, *(text for _, text in outputs.values())):
        assert find_canary(text.encode()) == []
    assert "in fail" in log
    assert "LookupError (its message is not shown" in log
    names = {path.name for path in (after.folder / "hub" / "data").iterdir()}
    assert {"buffer.db", "status.json", "audit.db"} <= names


def test_no_crash_report_has_it(after: CanarySite) -> None:
    status, report = after.outputs["crash"]
    assert status == 1
    assert "in crash" in report
    assert "LookupError (its message is not shown" in report
    assert all("Max core file size        0                    0" in limits for limits in after.limits)


def test_no_metric_has_it_nor_the_name_of_patient_hub_or_person(after: CanarySite) -> None:
    assert "pulsegate_alert_opened_seconds_count 1.0" in after.metrics
    assert find_canary(after.metrics.encode()) == []
    for name in ("subject-1", "hub-1", "dr-may", "strap-1", "subject-2", "hub-2", "thermometer"):
        assert name not in after.metrics


def test_no_topic_and_no_message_has_it(after: CanarySite) -> None:
    topics = {message.topic.removeprefix("pulsegate/v1/hub-1/") for message in after.messages}
    assert topics == {"up/alert", "up/vital", "up/wave", "down/ack", "down/receipt"}
    for message in after.messages:
        assert find_canary(message.topic.encode() + message.payload) == []


def test_no_argument_and_no_environment_has_it(after: CanarySite) -> None:
    for settings in (b"site.toml", b"pulsegate.toml"):
        assert any(settings in content for content in after.processes.values())
    assert [path for path, content in after.processes.items() if find_canary(content)] == []


@pytest.mark.parametrize("form", [form for _, form in canary.list_forms()], ids=[name for name, _ in canary.list_forms()])
def test_every_form_is_found(form: bytes) -> None:
    assert find_canary(b"x" + form + b"x")
    assert len(form) >= 4
