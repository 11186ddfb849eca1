"""Moves a hub key with a process that exits at each system call that changes a file; prints what is readable after each.

python -m tests.gateway.killed_moves FOLDER
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from gateway import hub_key
from gateway.hub_key import Place, find_place
from tests.gateway import hub_keys

MOVES = ((Place.FILE, Place.CREDENTIAL), (Place.CREDENTIAL, Place.FILE), (Place.CREDENTIAL, Place.PASSPHRASE))
CALLS = ("fchmod", "replace")
"""Of each file: before its new form is written, and before that takes its place. After it comes the next file's first."""


def exit_at(step: int) -> None:
    """Make the process exit at the beginning of this call of `CALLS`, counted from 0."""
    count = iter(range(step + 1))

    def exiting(call: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if next(count) == step:
                os._exit(9)
            return call(*arguments, **named)

        return wrapped

    for name in CALLS:
        setattr(os, name, exiting(getattr(os, name)))


def move_in_child(hub: Path, place: Place, step: int) -> bool:
    """Move in a child that exits at a step; return whether it came to the end."""
    child = os.fork()
    if child == 0:
        exit_at(step)
        hub_keys.move(hub, place)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def is_readable(hub: Path, expected: list[object]) -> bool:
    try:
        return hub_keys.read_keys(hub) == expected
    except Exception as error:  # noqa: BLE001 - the reason is for the reader of a failed test
        sys.stderr.write(f"{error}\n")
        return False


def main(hub: Path) -> None:
    hub_key.ARGON2 = hub_keys.CHEAP_ARGON2  # type: ignore[misc]
    os.fsync = lambda _: None  # a kill loses nothing that was written, and a disk may be slow
    expected = hub_keys.read_keys(hub)
    for begin, end in MOVES:
        step, is_done = 0, False
        while not is_done:
            copy = hub / f"hub-{begin}-{end}-{step}"
            shutil.copytree(hub, copy, ignore=shutil.ignore_patterns("site", "buffer.db*", "credentials", "hub-*"))
            if begin != Place.FILE:
                hub_keys.move(copy, begin)
            is_done = move_in_child(copy, end, step)
            place = find_place(copy / "data" / "hub.key")
            outcome = {"from": begin, "to": end, "place": place, "is_done": is_done, "is_readable": is_readable(copy, expected)}
            hub_keys.move(copy, end)
            outcome["is_readable_again"] = is_readable(copy, expected)
            sys.stdout.write(json.dumps(outcome) + "\n")
            step += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
