"""Process helpers shared by our programs: when to stop, and the errors of a task group."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set the event at SIGINT and SIGTERM, on the running loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)


@contextmanager
def watching_stdin(on_end: Callable[[], object]) -> Iterator[None]:
    """Within the context, call `on_end` once when standard input ends.

    A pipe from the parent process ends when the parent dies. Enter the context while an event loop runs; `on_end` is called
    on that loop. Bytes read from standard input are discarded. Where standard input is a file or /dev/null, `on_end` is
    called immediately.
    """
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def on_readable() -> None:
        if not os.read(stdin, 4096):
            loop.remove_reader(stdin)
            on_end()

    try:
        loop.add_reader(stdin, on_readable)
    except PermissionError:  # epoll accepts neither regular files nor /dev/null
        on_end()
    try:
        yield
    finally:
        loop.remove_reader(stdin)


def leaf_errors(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors in a group and in its nested groups, in order."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += leaf_errors(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
