"""A program: the agent of a hub, which crashes while it stores records."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from gateway import recorder
from gateway.cli import run_program
from sync.records import VitalRecord


def crash(pending: Sequence[tuple[str, Any]]) -> list[Any]:
    """Fail as careless code does, with all that is known in message, local variable and cause."""
    local = repr(pending)
    if not any(isinstance(record, VitalRecord) and record.kind == "temperature" for _, record in pending):
        return encode(pending)  # type: ignore[arg-type]
    return fail(local)


def fail(local: str) -> NoReturn:
    try:
        int(local)
    except ValueError as error:
        raise LookupError(local) from error
    raise AssertionError


encode, recorder._encode_blocks = recorder._encode_blocks, crash
sys.exit(run_program())
