"""Starts `pulsegate demo` in a process of its own, and sees how it is doing."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
