"""What `pulsegate demo` shows: the alerts of its script, and a recording in place of the script."""

import json
from pathlib import Path

from tests.demo.demo_process import run_demo


def test_ninety_seconds_of_the_script_raise_exactly_the_expected_alerts(tmp_path: Path) -> None:
    with run_demo(tmp_path, "--port", "0", "--seconds", "90") as process:
        errors = process.communicate(timeout=180)[1]
    assert process.returncode == 0, errors
    result = json.loads((tmp_path / "out.json").read_text())
    assert {"af", "tachycardia", "pause"} <= {episode["kind"] for episode in result["expected"]}
    assert (result["missed"], result["unexpected"]) == ([], [])
    assert [alert["kind"] for alert in result["alerts"]] == ["af", "tachycardia", "pause"]
    assert all(alert["latency_ms"] > 0 for alert in result["alerts"])
    assert result["blocks_acked"] == result["blocks_stored"]
    assert result["samples_received"] == result["samples_stored"] == result["samples_sent"] > 85 * 130
    assert result["samples_lost"] == result["samples_unaccounted"] == 0


def test_a_recording_replaces_the_script(tmp_path: Path, data: Path) -> None:
    with run_demo(tmp_path, "--port", "0", "--record", str(data / "mitdb" / "101.hea"), "--seconds", "15") as process:
        errors = process.communicate(timeout=90)[1]
    assert process.returncode == 0, errors
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["samples_stored"] == result["samples_sent"] > 13 * 130
