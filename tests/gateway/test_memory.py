"""The agent's memory with 20 ECG sensors and all released models; the design allows 105 MB."""

import json
import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.models import load_models
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.signing import SigningKey, Use
from tests.fake_clinic import FakeClinic
from tests.gateway.twenty_sensors import RATE_HZ, SCALE_MV, SECONDS, SENSORS

LIMIT_MB = 105
PROGRAM = "from tests.gateway import twenty_sensors; twenty_sensors.main()"
"""Imported, like the agent by its command: a script of this size is compiled at each start, which takes 0.25 MB."""


def simulate_ecg(rng: random.Random) -> NDArray[np.int16]:
    """Simulates an ECG of narrow beats at irregular intervals, in units of 5 µV, with 20 µV of noise."""
    mv = np.array([rng.gauss(0, 0.02) for _ in range(SECONDS * RATE_HZ)])
    at_s = 0.0
    while (at_s := at_s + 0.32 + rng.gammavariate(9, 0.045)) < SECONDS - 1:
        first = round((at_s - 0.1) * RATE_HZ)
        t_s = np.arange(first, first + RATE_HZ // 5) / RATE_HZ
        mv[first : first + t_s.size] += np.exp(-(((t_s - at_s) / 0.012) ** 2))
    return np.round(mv / SCALE_MV).astype("<i2")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux: the memory of a process is read from /proc")
    folder = tmp_path_factory.mktemp("hub")
    keys = HubKeys(HubKey.load_or_create(folder / "hub.key"), SigningKey.load_or_create(folder / "device.key", Use.DEVICE))
    registration = FakeClinic("hub-1", keys.device.public).registration
    registration.save(folder / "registration.toml")
    settings: Any = {"hub": "hub-1", "subject": "subject-1", "keys": keys, "registration": registration}
    with closing(Outbox.open(folder / "buffer.db", clock=lambda: 1_800_000_000, **settings)):
        pass
    seconds = np.stack([simulate_ecg(random.Random(seed)) for seed in range(SENSORS)]).reshape(SENSORS, SECONDS, RATE_HZ)
    (folder / "ecg.int16").write_bytes(seconds.swapaxes(0, 1).tobytes())
    command = [sys.executable, "-c", PROGRAM, folder]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=120)
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def test_twenty_sensors_and_all_models_stay_within_the_limit(measured: dict[str, Any]) -> None:
    assert measured["VmRSS"] <= LIMIT_MB, measured
    assert measured["VmHWM"] <= LIMIT_MB, measured


def test_the_measured_process_ran_all_models_and_raised_alerts(measured: dict[str, Any]) -> None:
    assert measured["models"] == load_models().status()
    assert not load_models().refused
    assert measured["alerts"] >= 20


def test_the_measured_process_imported_no_heavy_package(measured: dict[str, Any]) -> None:
    assert measured["forbidden"] == []
