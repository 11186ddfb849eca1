"""Crash reports without values: where a program failed and with which kind of error, never the error's message.

A message quotes what the program was working on: a reading, a name, a row of a database. Python prints no local variables, and
no core dump is written, because that holds all of them.
"""

import faulthandler
import resource
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType

_CHAIN_LIMIT = 10
"""Causes of an error that are reported."""


def report_without_values() -> None:
    """Report the crashes of this process so from now on. Each program calls it first."""
    sys.excepthook = _on_error
    threading.excepthook = _on_thread_error
    sys.unraisablehook = _on_unraisable
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)  # it prints the functions of each thread


def format_error(error: BaseException) -> str:
    """Return the places and types of an error, of its causes and of the errors of a group."""
    return "".join(_describe(error, 0))


def _describe(error: BaseException, depth: int) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth < _CHAIN_LIMIT:
        yield from _describe(cause, depth + 1)
        yield "\nwhich led to:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    reason = f": {error.strerror}" if isinstance(error, OSError) and error.errno is not None else ""
    yield f"{type(error).__qualname__}{reason} (its message is not shown: it may hold values)\n"
    if isinstance(error, BaseExceptionGroup) and depth < _CHAIN_LIMIT:
        for number, inner in enumerate(error.exceptions, 1):
            yield f"\nerror {number} of the group:\n\n"
            yield from _describe(inner, depth + 1)


def _on_error(_type: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
    sys.stderr.write(format_error(error))


def _on_thread_error(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        sys.stderr.write(format_error(arguments.exc_value))


def _on_unraisable(arguments: "sys.UnraisableHookArgs") -> None:
    if arguments.exc_value is not None:
        sys.stderr.write(format_error(arguments.exc_value))
