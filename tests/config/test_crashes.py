"""Crash reports say where and what kind of error, and hold no value."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.crashes import format_error
from config.terminal import LineFormatter

CANARY = "CANARY-4711"
START = f"""
import asyncio, ctypes, os, sys, threading
from config.crashes import report_without_values
report_without_values()
value = {CANARY!r}.lower().upper()
class Careless:
    def __del__(self):
        raise ValueError(value)
def fail():
    local = value
    try:
        int(local)
    except ValueError as error:
        raise LookupError(local) from error
async def fail_together():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(fail))
"""
ENDS = {
    "raised": ("fail()", 1, "LookupError"),
    "group": ("asyncio.run(fail_together())", 1, "error 1 of the group"),
    "thread": ("thread = threading.Thread(target=fail); thread.start(); thread.join()", 0, "ValueError"),
    "finaliser": ("Careless()", 0, "ValueError"),
    "abort": ("os.abort()", -6, "Fatal Python error: Aborted"),
    "segmentation fault": ("ctypes.string_at(0)", -11, "Fatal Python error: Segmentation fault"),
}


@pytest.mark.parametrize("end", ENDS)
def test_no_way_to_crash_shows_a_value(end: str, tmp_path: Path) -> None:
    statement, status, kind = ENDS[end]
    program = tmp_path / "program.py"
    program.write_text(f"{START}\n{statement}\n")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status
    assert kind in done.stderr
    assert "program.py" in done.stderr  # where it was
    assert done.stderr.count(CANARY) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]  # no core


def test_causes_and_groups_are_described_once() -> None:
    loop = ValueError(CANARY)
    loop.__cause__ = OSError(28, "No space left on device", CANARY)
    text = format_error(BaseExceptionGroup(CANARY, [loop, KeyError(CANARY)]))
    assert CANARY not in text
    assert [line for line in text.splitlines() if "Error" in line or "Group" in line] == [
        "ExceptionGroup (its message is not shown: it may hold values)",
        "OSError: No space left on device (its message is not shown: it may hold values)",
        "ValueError (its message is not shown: it may hold values)",
        "KeyError (its message is not shown: it may hold values)",
    ]


def test_an_endless_chain_ends() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert format_error(first).count("Traceback") < 20


def test_a_log_shows_no_value_of_an_error() -> None:
    try:
        int(CANARY)
    except ValueError:
        record = logging.LogRecord("name", logging.ERROR, __file__, 1, "it failed", None, sys.exc_info())
    text = LineFormatter("%(message)s").format(record)
    assert text.startswith("it failed\nTraceback")
    assert CANARY not in text
