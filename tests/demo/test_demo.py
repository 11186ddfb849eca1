"""`pulsegate demo` from the command line: three processes, stopped with Ctrl-C, and what its user does wrong."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.demo.demo_process import find_processes, read_status, run_demo, stop, wait_until


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
