"""A short form of `benchmarks.twelve_hours`: seven virtual minutes with twelve sensors, stopped once and continued."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(folder: Path, hours: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.twelve_hours", folder, "--hours", str(hours)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def test_twelve_sensors_leave_no_task_and_a_stopped_run_continues(tmp_path: Path) -> None:
    first = run(tmp_path, 0.1)
    assert (first["tasks_left"], first["resumed_at_hour"]) == ([], 0)
    continued = run(tmp_path, 7 / 60)
    assert (continued["tasks_left"], continued["resumed_at_hour"]) == ([], 0.1)
    minutes = [json.loads(line)["minute"] for line in (tmp_path / "minutes.jsonl").read_text().splitlines()]
    assert minutes == list(range(1, 8))
    status = json.loads((tmp_path / "agent" / "status.json").read_text())
    assert len(status["sensors"]) == 12
    assert status["blocks_pending"] == status["failed_writes"] == status["notifications_dropped"] == 0
