"""Enrols many hubs and kills each process at a later step, until one finishes: `killed_enrolments FOLDER`, codes on stdin.

A step is a change of a file that others may see, or a request. The n-th hub has the settings and the data FOLDER/n.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from gateway.commands.enroll import run_enroll

STEPS = frozenset({"os.mkdir", "os.link", "os.rename", "http.client.send"})


def kill_at(step: int) -> None:
    """Kill this process when it begins the step of this number, from 0."""
    done = 0

    def on_event(event: str, _arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event in STEPS:
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    sys.addaudithook(on_event)


def main() -> None:
    folder, codes = Path(sys.argv[1]), sys.stdin.read().splitlines()
    for step, code in enumerate(codes):
        child = os.fork()
        if child == 0:
            kill_at(step)
            os._exit(run_enroll(folder / str(step) / "pulsegate.toml", code, {"PULSEGATE_DATA": str(folder / str(step))}))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{'killed' if os.WIFSIGNALED(status) else 'finished'}\n")
        if not os.WIFSIGNALED(status):
            return


if __name__ == "__main__":
    main()
