"""What the agent takes of a hub's memory with 20 ECG sensors and all released models: the design allows 110 MB."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.models import load_models
from sync.keys import HubKey
from sync.outbox import Outbox
from sync.seal import ClinicKeyPair

LIMIT_MB = 110
PROGRAM = Path(__file__).with_name("twenty_sensors.py")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux: /proc tells the memory of a process")
    folder = tmp_path_factory.mktemp("hub")
    pair = ClinicKeyPair.generate()
    pair.public.save(folder / "clinic.pub")
    settings = {"hub": "hub-1", "subject": "subject-1", "clinic": pair.public, "clock": lambda: 1_800_000_000}
    with closing(Outbox.open(folder / "buffer.db", hub_key=HubKey.load_or_create(folder / "hub.key"), **settings)):
        pass
    run = subprocess.run([sys.executable, PROGRAM, folder], capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_twenty_sensors_and_all_models_fit(measured: dict[str, Any]) -> None:
    assert measured["VmRSS"] <= LIMIT_MB, measured
    assert measured["VmHWM"] <= LIMIT_MB, measured


def test_what_was_measured_is_the_whole_agent_at_work(measured: dict[str, Any]) -> None:
    assert measured["models"] == load_models().status()
    assert not load_models().refused
    assert measured["alerts"] >= 20


def test_nothing_heavy_was_loaded(measured: dict[str, Any]) -> None:
    assert measured["forbidden"] == []
