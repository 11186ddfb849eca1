"""The end of standard input, and the errors of nested task groups."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from config.process import leaf_errors

LIMIT_S: Final = 20
WAIT_FOR_STDIN: Final = f"""
import asyncio
from config.process import watching_stdin

async def main():
    ended = []
    stop = asyncio.Event()
    def on_end():
        ended.append(True)
        stop.set()
    with watching_stdin(on_end):
        print("ready", flush=True)
        await asyncio.wait_for(stop.wait(), {LIMIT_S})
        await asyncio.sleep(0.05)
    print("ended", len(ended), flush=True)

asyncio.run(main())
"""


def start(stdin: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", WAIT_FOR_STDIN]
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True, env=environment)


def test_calls_back_once_when_the_pipe_is_closed() -> None:
    with start(subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("ignored")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.stdin.close()
        assert process.stdout.read() == "ended 1\n"
        assert process.wait(LIMIT_S) == 0


def test_calls_back_at_once_where_stdin_is_dev_null() -> None:
    with start(subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "ready\nended 1\n"
        assert process.wait(LIMIT_S) == 0


def test_leaf_errors_lists_the_errors_of_nested_groups_in_order() -> None:
    first, second, third = ValueError("first"), KeyError("second"), KeyboardInterrupt()
    group = BaseExceptionGroup("outer", [first, BaseExceptionGroup("inner", [second, third])])
    assert leaf_errors(group) == [first, second, third]
