"""What each of our programs needs of its process: stop with the parent process, and report errors of task groups."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def watching_stdin(on_end: Callable[[], object]) -> Iterator[None]:
    """Within the context, call `on_end` once when standard input ends, as it does when the parent process dies.

    Must be entered while an event loop runs; `on_end` is called on it. What is read from standard input is discarded.
    A file and /dev/null are at their end at once.
    """
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def on_readable() -> None:
        if not os.read(stdin, 4096):
            loop.remove_reader(stdin)
            on_end()

    try:
        loop.add_reader(stdin, on_readable)
    except PermissionError:  # epoll takes neither files nor /dev/null
        on_end()
    try:
        yield
    finally:
        loop.remove_reader(stdin)


def leaf_errors(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors in a group and in the groups within it, in order."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += leaf_errors(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
