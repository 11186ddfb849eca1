"""`pulsegate demo` as a person runs it: three processes, stopped with Ctrl-C, killed, started again."""

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

KILLS_EACH = 10
START_S = 60.0
"""For three processes on a loaded machine."""


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    words = ["demo", "--json", str(folder / "out.json"), *options]
    process = subprocess.Popen([sys.executable, "-m", "gateway.cli", *words], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def children(pid: int) -> dict[str, int]:
    """The demo's processes by name."""
    modules = {"gateway.simulate.strap": "strap", "gateway.cli": "agent", "cloud.cli": "clinic"}
    found: dict[str, int] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        found |= {modules[word.decode()]: int(child) for word in words if word.decode() in modules}
    return found


def eventually(condition: Any, seconds: float = START_S) -> Any:
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"did not happen within {seconds:g} s")


def status(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "data" / "agent" / "status.json").read_text()))
    except (OSError, ValueError):
        return {}


def stop(process: subprocess.Popen[str]) -> str:
    """Ctrl-C, and what it said."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_it_ends_cleanly_on_ctrl_c_and_a_second_start_works(tmp_path: Path) -> None:
    port = str(free_port())
    for turn in ("first", "second"):
        folder = tmp_path / turn
        folder.mkdir()
        with demo(folder, "--port", port, "--data", str(folder / "data")) as process:
            eventually(lambda folder=folder: status(folder).get("samples_received", 0) > 500)
            pids = children(process.pid)
            assert set(pids) == {"strap", "agent", "clinic"}
            said = stop(process)
        assert process.returncode == 0, said
        assert "Traceback" not in said
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
        result = json.loads((folder / "out.json").read_text())
        assert result["blocks_pending"] == result["samples_unaccounted"] == 0
        assert result["samples_stored"] > 300


@pytest.mark.parametrize("begun", [{"clinic"}, {"clinic", "strap"}, {"clinic", "strap", "agent"}])
def test_ctrl_c_while_it_starts_ends_it_too(tmp_path: Path, begun: set[str]) -> None:
    with demo(tmp_path, "--port", "0", "--data", str(tmp_path / "data")) as process:
        eventually(lambda: begun <= set(children(process.pid)))
        pids = children(process.pid)
        said = stop(process)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())


def test_a_result_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0", "--json", str(tmp_path / "none" / "out.json")) as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "cannot write" in said
    assert "Traceback" not in said


def test_a_port_in_use_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with demo(tmp_path, "--port", str(port)) as process:
            said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert f"port {port} is in use" in said
    assert "--port" in said
    assert "Traceback" not in said


def test_the_processes_end_when_the_demo_itself_is_killed(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0", "--data", str(tmp_path / "data")) as process:
        eventually(lambda: status(tmp_path).get("samples_received", 0) > 100)
        pids = children(process.pid)
        process.kill()
        process.wait()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()), 30)
    assert len(pids) == 3


def test_a_recording_is_played_in_place_of_the_script(tmp_path: Path, data: Path) -> None:
    with demo(tmp_path, "--port", "0", "--record", str(data / "mitdb" / "101.hea"), "--seconds", "15") as process:
        said = process.communicate(timeout=90)[1]
    assert process.returncode == 0, said
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["samples_stored"] == result["samples_sent"] > 13 * 130


@pytest.mark.parametrize("seed", [1])
def test_thirty_kills_lose_no_sample_and_store_nothing_twice(tmp_path: Path, seed: int) -> None:
    """kill -9 of agent, clinic and strap, ten times each, at random moments: also before a start is complete."""
    chance = random.Random(seed)
    names = ["agent", "clinic", "strap"] * KILLS_EACH
    chance.shuffle(names)
    with demo(tmp_path, "--port", "0", "--data", str(tmp_path / "data")) as process:
        eventually(lambda: status(tmp_path).get("samples_received", 0) > 500)
        for name in names:
            time.sleep(chance.uniform(0.3, 4.0))
            os.kill(eventually(lambda name=name: children(process.pid).get(name)), signal.SIGKILL)
        before = eventually(lambda: status(tmp_path).get("blocks_acked"))
        eventually(lambda: status(tmp_path).get("blocks_acked", 0) > before + 10)
        said = stop(process)
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["restarts"] == {"agent": KILLS_EACH, "clinic": KILLS_EACH, "strap": KILLS_EACH}
    assert result["samples_sent"] > 1000
    assert result["samples_stored"] + result["samples_in_gaps"] == result["samples_sent"]
    assert result["samples_unaccounted"] == 0
    assert (result["blocks_stored_twice"], result["samples_stored_twice"], result["blocks_missing"]) == (0, 0, 0)
    assert result["blocks_pending"] == 0
    assert process.returncode == 0, said


def test_ninety_seconds_of_the_script_find_every_episode_and_nothing_else(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0", "--seconds", "90") as process:
        said = process.communicate(timeout=180)[1]
    assert process.returncode == 0, said
    result = json.loads((tmp_path / "out.json").read_text())
    assert {"af", "tachycardia", "pause"} <= {episode["kind"] for episode in result["expected"]}
    assert (result["missed"], result["unexpected"]) == ([], [])
    assert [alert["kind"] for alert in result["alerts"]] == ["af", "tachycardia", "pause"]
    assert all(alert["latency_ms"] > 0 for alert in result["alerts"])
    assert result["blocks_acked"] == result["blocks_stored"]
    assert result["samples_received"] == result["samples_stored"] == result["samples_sent"] > 85 * 130
    assert result["samples_lost"] == result["samples_unaccounted"] == 0
