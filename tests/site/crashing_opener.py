"""A program: the opener of a site, which crashes while it works on records."""

import sys
from typing import Any, NoReturn

from cloud import change_log, opener
from cloud.cli import run_program

seen: list[Any] = []
project = opener._project


def keep(connection: Any, block: Any, opened: Any) -> Any:
    seen.extend(opened.records)
    return project(connection, block, opened)


def crash(*_: object) -> NoReturn:
    """Fail as careless code does, with all that is known in message, local variable and cause."""
    local = repr(seen)
    try:
        int(local)
    except ValueError as error:
        raise LookupError(local) from error
    raise AssertionError


opener._project = keep
change_log.write_changes = crash
sys.exit(run_program())
