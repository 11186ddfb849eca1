"""Processes that are kept running: they start again, answer, and end whatever they print."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks.chaos.processes import ProcessGoneError, Supervised

ECHO = "import sys\nfor line in sys.stdin: print('{\"said\": \"' + line.strip() + '\"}', flush=True)"
MUCH = 1_000_000
"""More than a pipe and the buffers behind it hold."""


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


async def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_killed_process_starts_again_and_answers(tmp_path: Path) -> None:
    process = Supervised("echo", [sys.executable, "-c", ECHO], tmp_path / "log", is_asked=True)

    async def scenario() -> None:
        process.start()
        await wait_for(lambda: process.pid is not None)
        assert await process.ask("one") == {"said": "one"}
        first = process.pid
        assert process.kill()
        await wait_for(lambda: process.pid not in (None, first))
        assert await process.ask("two") == {"said": "two"}
        assert process.starts == 2
        await process.stop()

    run(scenario)


def test_a_held_process_stays_ended_until_it_is_started(tmp_path: Path) -> None:
    process = Supervised("echo", [sys.executable, "-c", ECHO], tmp_path / "log", is_asked=True)

    async def scenario() -> None:
        process.start()
        await wait_for(lambda: process.pid is not None)
        await process.hold()
        assert (process.pid, process.kill()) == (None, False)
        with pytest.raises(ProcessGoneError):
            await process.ask("one")
        process.start()
        await wait_for(lambda: process.pid is not None)
        await process.stop()

    run(scenario)


def test_a_process_ends_whatever_it_has_printed(tmp_path: Path) -> None:
    program = f"import time\nprint('x' * {MUCH}, flush=True)\ntime.sleep(60)"
    process = Supervised("talker", [sys.executable, "-c", program], log := tmp_path / "log")

    async def scenario() -> None:
        process.start()
        await wait_for(lambda: log.exists() and log.stat().st_size > MUCH)
        await process.hold(signal.SIGTERM)
        assert process.pid is None
        await process.stop()

    run(scenario)
