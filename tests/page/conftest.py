"""A clinic process, a hub that sends to it over MQTT, and a headless Chromium that opens its page."""

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from sync.paho_mqtt import CallbackAPIVersion, Client, MQTTProtocolVersion
from sync.records import Record, StatusRecord
from sync.wire import Lane
from tests.browser import chromium
from tests.clinic_testbed import Clinic as ClinicFiles
from tests.clinic_testbed import Hub
from tests.cloud.synthetic import alert, counts, ecg_mv, heart_rate, strip, times, waveform

START_LIMIT_S = 60
SENSOR = "strap-1"
ARTEFACTS = Path(__file__).parents[2] / "build" / "artefacts"


class Clinic:
    """`pulsegate-cloud dev` in a process of its own, and a hub connected to its broker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.files = ClinicFiles(folder)
        self.hub = self.files.add_hub()
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None

    def start(self) -> None:
        """Start the process; every later start uses the same port."""
        arguments = ["dev", "--data", str(self.folder), "--port", str(self.port), "--watch-stdin"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cloud.cli", *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        endpoints = self._wait_endpoints(time.monotonic() + START_LIMIT_S)
        self.page = endpoints["page"]
        self.port = int(self.page.rstrip("/").rsplit(":", 1)[1])
        self._connect(endpoints["mqtt"]["host"], endpoints["mqtt"]["port"])

    def stop(self) -> int:
        """Close its standard input, as when the parent process dies; returns its exit code."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None
        if self._process is None:
            return 0
        process, self._process = self._process, None
        assert process.stdin is not None
        process.stdin.close()
        return process.wait(timeout=30)

    def send(self, lane: Lane, *records: Record, hub: Hub | None = None) -> None:
        """Seal the records and publish them as the uplink does, by default as `self.hub`."""
        hub = hub or self.hub
        assert self._client is not None
        message = hub.message(hub.seal_records(lane, *records))
        self._client.publish(message.topic, message.payload, qos=1).wait_for_publish(10)

    def make_hub(self, name: str, subject: str) -> Hub:
        """Return another hub of this clinic, of another patient."""
        return self.files.add_hub(name, subject)

    def _wait_endpoints(self, deadline: float) -> dict[str, object]:
        path = self.folder / "clinic.json"
        assert self._process is not None
        while not path.exists():
            assert self._process.poll() is None, "the clinic exited during its start"
            assert time.monotonic() < deadline, "the clinic did not become ready"
            time.sleep(0.05)
        return json.loads(path.read_text())

    def _connect(self, host: str, port: int) -> None:
        connected = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, "hub-1", protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_connect = lambda *_: connected.set()
        self._client.connect(host, port)
        self._client.loop_start()
        assert connected.wait(10), "the broker does not respond"


@pytest.fixture
def empty_clinic(browser: Browser, tmp_path: Path) -> Iterator[Clinic]:
    """A clinic without any data."""
    clinic = Clinic(tmp_path)
    clinic.start()
    yield clinic
    assert clinic.stop() == 0


@pytest.fixture(scope="module")
def clinic(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A clinic with a strap that sends data and one alert of each priority, the newest of high priority."""
    clinic = Clinic(tmp_path_factory.mktemp("clinic"))
    clinic.start()
    send_history(clinic)
    yield clinic
    assert clinic.stop() == 0


def send_history(clinic: Clinic) -> None:
    now_us = time.time_ns() // 1000
    statuses = {"battery": 87, "skin_contact": True, "model": "H10"}
    clinic.send("vital", *(StatusRecord(SENSOR, kind, times(now_us), value) for kind, value in statuses.items()))
    clinic.send(
        "vital", *(heart_rate(now_us - ago_s * 1_000_000, 70 + 8 * math.sin(ago_s / 60)) for ago_s in range(300, 0, -2))
    )
    beats = [0.4 + 0.83 * i for i in range(18)]
    mv = counts(ecg_mv(beats, 15.0))
    clinic.send("wave", waveform(now_us - 15_000_000, mv))
    bradycardia = [0.5 + 1.62 * i for i in range(7)]
    tachycardia = [0.3 + 0.41 * i for i in range(28)]
    pause = [0.3, 1.1, 1.9, 2.9, 6.6, 7.4, 8.2, 9.0, 9.8, 10.6, 11.4]
    alerts = (
        ("bradycardia", "low", 280, 42_000_000, bradycardia, {"rate_bpm": 37.0, "limit_bpm": 40}),
        ("tachycardia", "medium", 120, None, tachycardia, {"rate_bpm": 146.3, "limit_bpm": 131}),
        ("pause", "high", 20, None, pause, {"pause_s": 3.7, "limit_s": 3.0}),
    )
    for kind, priority, ago_s, duration_us, beats_s, measured in alerts:
        onset_us = now_us - ago_s * 1_000_000
        ecg = strip(onset_us - 2_900_000, beats_s, 12.0)
        end_us = None if duration_us is None else onset_us + duration_us
        decided_us = onset_us + 3_000_000
        clinic.send(
            "alert", alert(kind, priority, onset_us, end_us=end_us, decided_us=decided_us, strip=ecg, measured=measured)
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser per module: while Playwright's event loop runs, tests of other modules could not run one."""
    with chromium() as browser:
        yield browser


class MonitoredPage:
    """A page with a record of its requests and of its console messages and errors."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("console", lambda message: self.errors.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.errors.append(str(error)))


@pytest.fixture
def monitored(browser: Browser) -> Iterator[MonitoredPage]:
    """A new page in a fresh profile, in British English with the time zone of Berlin."""
    context = browser.new_context(locale="en-GB", timezone_id="Europe/Berlin", viewport={"width": 1400, "height": 1000})
    yield MonitoredPage(context.new_page())
    context.close()
