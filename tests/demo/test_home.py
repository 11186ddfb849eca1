"""`pulsegate demo --home`: strap, cuff, oximeter, scale and watch on one hub; the clinic holds what they measured."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.simulate.home import HOME
from tests.demo.demo_process import run_demo

SECONDS = "24"
"""Long enough for the second pressure, the severely raised one, and for the new weighing."""
Json = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that has ended."""
    folder = tmp_path_factory.mktemp("home")
    with run_demo(folder, "--home", "--port", "0", "--seconds", SECONDS, "--data", str(folder / "data")) as process:
        errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return folder


@pytest.fixture(scope="module")
def records(folder: Path) -> list[Json]:
    """What the clinic holds."""
    command = [sys.executable, "-m", "cloud.cli", "open", "--data", str(folder / "data" / "clinic"), "--json"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def test_nothing_that_a_sensor_measured_is_lost_or_held_twice(folder: Path) -> None:
    result = json.loads((folder / "out.json").read_text())
    assert set(result["sensors"]) == set(HOME)
    for name, counts in result["sensors"].items():
        faults = [counts[fault] for fault in ("lost", "repeated", "values_lost", "values_repeated")]
        assert faults == [0, 0, 0, 0], name
        assert counts["measured"] == counts["stored"] + counts["in_sensor"], name
    stored = {name: result["sensors"][name]["stored"] for name in HOME}
    assert stored["cuff"] >= 2
    assert stored["oximeter"] >= 2  # the spot checks of yesterday
    assert stored["scale"] >= 2  # the weighing of yesterday and the new one
    assert result["sensors"]["watch"]["values_stored"] > 20
    assert result["samples_unaccounted"] == result["blocks_pending"] == 0
    assert result["samples_stored"] == result["samples_sent"] > 20 * 130


def test_the_high_pressure_raises_an_alert(folder: Path) -> None:
    result = json.loads((folder / "out.json").read_text())
    assert ("cuff", "bp_crisis") in {(alert["sensor"], alert["kind"]) for alert in result["alerts"]}
    assert (result["missed"], result["unexpected"]) == ([], [])


def test_results_from_a_memory_have_their_own_time(records: list[Json]) -> None:
    weights = {record["value"]: record for record in records if record["type"] == "vital" and record["kind"] == "weight"}
    age_s = (weights[80.4]["at_us"] - weights[79.95]["at_us"]) / 1e6
    assert age_s == pytest.approx(25 * 3600, abs=30)
    stored = [record for record in records if record["type"] == "vital" and record["kind"] == "spo2" and record["origin"]]
    assert all(record["origin"]["is_stored"] for record in stored if record["value"] in (95.0, 96.0))
