"""A real clinic process, a hub that feeds it over MQTT, and a headless Chromium that looks at its page."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from playwright.sync_api import Browser, sync_playwright

from sync.records import Record, encode
from sync.seal import ClinicPublicKey
from sync.wire import Envelope, Lane, encode_envelope, up_topic
from tests.cloud.synthetic import Hub

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_LIMIT_S = 60
ARTEFACTS = Path(__file__).parents[2] / "build" / "artefacts"


class Clinic:
    """`pulsegate-cloud dev` in its own process, and a hub connected to its broker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.hub: Hub | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None

    def start(self) -> None:
        """Start it, the second time on the same port."""
        code = "import sys; from cloud.cli import main; sys.exit(main())"
        arguments = ["dev", "--data", str(self.folder), "--port", str(self.port), "--watch-stdin"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        ready = self._wait_ready(time.monotonic() + START_LIMIT_S)
        self.page = ready["page"]
        self.port = int(self.page.rstrip("/").rsplit(":", 1)[1])
        self.hub = self.hub or Hub(ClinicPublicKey.load(Path(ready["public_key"])))
        self._connect(ready["mqtt"]["host"], ready["mqtt"]["port"])

    def stop(self) -> int:
        """Let it see its parent go; returns its exit code."""
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

    def send(self, lane: Lane, *records: Record) -> None:
        """Seal, and publish as the uplink does."""
        assert self.hub is not None
        assert self._client is not None
        _, block = self.hub.seal(lane, encode(records))
        payload = encode_envelope(Envelope(self.hub.name, (block,), (self.hub.wrapped(),)))
        self._client.publish(up_topic(self.hub.name, lane), payload, qos=1).wait_for_publish(10)

    def _wait_ready(self, deadline: float) -> dict[str, object]:
        ready = self.folder / "clinic.json"
        assert self._process is not None
        while not ready.exists():
            assert self._process.poll() is None, "the clinic ended at its start"
            assert time.monotonic() < deadline, "the clinic did not become ready"
            time.sleep(0.05)
        return json.loads(ready.read_text())

    def _connect(self, host: str, port: int) -> None:
        connected = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, "hub-1", protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_connect = lambda *_: connected.set()
        self._client.connect(host, port)
        self._client.loop_start()
        assert connected.wait(10), "the broker does not answer"


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    clinic = Clinic(tmp_path)
    clinic.start()
    try:
        yield clinic
    finally:
        assert clinic.stop() == 0


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        reason = f"no {CHROMIUM}: install Debian's package chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
