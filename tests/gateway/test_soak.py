"""A short form of `benchmarks.soak`: ten virtual minutes with twelve sensors and random faults."""

import json
import subprocess
import sys
from pathlib import Path


def test_ten_minutes_of_faults_are_accounted_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", tmp_path, "--hours", str(1 / 6), "--faults", "48"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    result = json.loads(finished.stdout)
    assert result["faults"] >= 48
    assert result["sent"] > 50_000
    assert (result["unexplained"], result["stored_twice"], result["late_times"], result["tasks_left"]) == (0, 0, 0, [])
    assert result["failures"] == []
    part = json.loads((tmp_path / "soak.jsonl").read_text(encoding="utf-8"))
    assert len(part["sensors"]) == 12
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(again.stdout) == result  # a finished run is not repeated
