"""`pulsegate demo` from the command line: three processes, stopped with Ctrl-C, killed and restarted."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KILLS_PER_PROCESS = 10
START_TIMEOUT_S = 60.0
"""Time limit for three processes to start on a loaded machine."""


@contextmanager
def run_demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    arguments = ["demo", "--json", str(folder / "out.json"), *options]
    process = subprocess.Popen([sys.executable, "-m", "gateway.cli", *arguments], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def find_processes(pid: int) -> dict[str, int]:
    """Return the process ids of the demo's processes by name."""
    modules = {"gateway.simulate.strap": "strap", "gateway.cli": "agent", "cloud.cli": "clinic"}
    found: dict[str, int] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        found |= {modules[each.decode()]: int(child) for each in arguments if each.decode() in modules}
    return found


def wait_until(condition: Any, timeout_s: float = START_TIMEOUT_S) -> Any:
    """Wait until the condition returns a true value, and return it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"the condition was not met within {timeout_s:g} s")


def read_status(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "data" / "agent" / "status.json").read_text()))
    except (OSError, ValueError):
        return {}


def stop(process: subprocess.Popen[str]) -> str:
    """Stop the demo as Ctrl-C does; return its standard error."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_ctrl_c_stops_the_demo_cleanly_and_a_second_start_works(tmp_path: Path) -> None:
    port = str(free_port())
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        with run_demo(folder, "--port", port, "--data", str(folder / "data")) as process:
            wait_until(lambda folder=folder: read_status(folder).get("samples_received", 0) > 500)
            pids = find_processes(process.pid)
            assert set(pids) == {"strap", "agent", "clinic"}
            errors = stop(process)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
        result = json.loads((folder / "out.json").read_text())
        assert result["blocks_pending"] == result["samples_unaccounted"] == 0
        assert result["samples_stored"] > 300


@pytest.mark.parametrize("started", [{"clinic"}, {"clinic", "strap"}, {"clinic", "strap", "agent"}])
def test_ctrl_c_stops_the_demo_during_its_start(tmp_path: Path, started: set[str]) -> None:
    with run_demo(tmp_path, "--port", "0", "--data", str(tmp_path / "data")) as process:
        wait_until(lambda: started <= set(find_processes(process.pid)))
        pids = find_processes(process.pid)
        errors = stop(process)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())


def test_a_result_that_cannot_be_written_is_reported_at_once(tmp_path: Path) -> None:
    with run_demo(tmp_path, "--port", "0", "--json", str(tmp_path / "none" / "out.json")) as process:
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "cannot write" in errors
    assert "Traceback" not in errors


def test_a_port_in_use_is_reported_with_the_remedy_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with run_demo(tmp_path, "--port", str(port)) as process:
            errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert f"port {port} is in use" in errors
    assert "--port" in errors
    assert "run the demo again with --data" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_does_not_exist_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with run_demo(tmp_path, "--port", "0", "--record", str(tmp_path / "none.hea")) as process:
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "none.hea: no such file" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_make_demo_takes_a_port() -> None:
    make = ["make", "--dry-run", "--no-print-directory", "demo", "PORT=8765"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # those of `make test`
    done = subprocess.run(make, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].endswith("pulsegate demo --port 8765")


def test_the_processes_stop_when_the_demo_is_killed(tmp_path: Path) -> None:
    with run_demo(tmp_path, "--port", "0", "--data", str(tmp_path / "data")) as process:
        wait_until(lambda: read_status(tmp_path).get("samples_received", 0) > 100)
        pids = find_processes(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()), 30)
    assert len(pids) == 3


def test_a_recording_replaces_the_script(tmp_path: Path, data: Path) -> None:
    with run_demo(tmp_path, "--port", "0", "--record", str(data / "mitdb" / "101.hea"), "--seconds", "15") as process:
        errors = process.communicate(timeout=90)[1]
    assert process.returncode == 0, errors
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["samples_stored"] == result["samples_sent"] > 13 * 130


@pytest.mark.parametrize("seed", [1])
def test_thirty_kills_neither_lose_nor_duplicate_a_sample(tmp_path: Path, seed: int) -> None:
    """Kill agent, clinic and strap ten times each with SIGKILL, at random moments, also during a start."""
    rng = random.Random(seed)
    names = ["agent", "clinic", "strap"] * KILLS_PER_PROCESS
    rng.shuffle(names)
    with run_demo(tmp_path, "--port", "0", "--data", str(tmp_path / "data")) as process:
        wait_until(lambda: read_status(tmp_path).get("samples_received", 0) > 500)
        for name in names:
            time.sleep(rng.uniform(0.3, 4.0))
            os.kill(wait_until(lambda name=name: find_processes(process.pid).get(name)), signal.SIGKILL)
        before = wait_until(lambda: read_status(tmp_path).get("blocks_acked"))
        wait_until(lambda: read_status(tmp_path).get("blocks_acked", 0) > before + 2)
        errors = stop(process)
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["restarts"] == {"agent": KILLS_PER_PROCESS, "clinic": KILLS_PER_PROCESS, "strap": KILLS_PER_PROCESS}
    assert result["samples_sent"] > 1000
    assert result["samples_stored"] + result["samples_in_gaps"] == result["samples_sent"]
    assert result["samples_unaccounted"] == 0
    assert (result["blocks_stored_twice"], result["samples_stored_twice"], result["blocks_missing"]) == (0, 0, 0)
    assert result["blocks_pending"] == 0
    assert process.returncode == 0, errors


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
