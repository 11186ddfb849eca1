"""`python -m benchmarks.chaos FOLDER [--seed N] [--minutes N]`: the whole run, with its progress and a closing line of counts.

It needs root: it mounts small disks and makes a second network, in namespaces of its own. The folder keeps logs, journals
and the data of hubs without a disk of their own.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.chaos.disks import mounted_disks
from benchmarks.chaos.network import far_network
from benchmarks.chaos.run import FULL, BrokenInvariantError, Run, RunPlan, log
from benchmarks.chaos.site import SitePlan
from tests.namespaces import unshare_command

HUBS: Final = 18
AGENTS: Final = 2
HUB_DISKS: Final = 3
"""Hubs with a disk of their own that is filled. The others share one with the rest of the machine."""
PERIOD_S: Final = 6.0
MINUTES: Final = 39.0
"""When the last fault should be done; the last check follows, and all is to be over within 45 min."""
LONGEST_PAUSE_S: Final = 30.0
"""A hub's own longest pause between two connections (`sync.mqtt_backoff.BACKOFF_S`)."""
SETTLE_LIMIT_S: Final = 400.0
"""A restored store is opened again from its first block."""
_INSIDE: Final = "PULSEGATE_CHAOS_INSIDE"


def main() -> int:
    """Run in namespaces of its own; returns 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="new folder for data and logs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time of the last fault (default: %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="do this part of the faults (default: all)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("it mounts disks and makes networks: run it as root")
    if _INSIDE not in os.environ:
        words = [*unshare_command("--net", "--mount"), sys.executable, "-m", "benchmarks.chaos", *sys.argv[1:]]
        os.execvpe(words[0], words, {**os.environ, _INSIDE: "1"})  # noqa: S606
    return _run_inside(arguments.folder.resolve(), arguments.seed, arguments.minutes, arguments.share)


def _run_inside(folder: Path, seed: int, minutes: float, share: float) -> int:
    folder.mkdir(parents=True)
    console = Console(stderr=True)
    file = logging.FileHandler(folder / "chaos.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[file, RichHandler(console=console, show_path=False)]
    )
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)  # it reports each connection that a killed server ends
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with mounted_disks(HUB_DISKS) as disks, far_network() as far, Progress(*columns, console=console) as progress:
        faults = {kind: round(n * share) for kind, n in FULL.items()}
        task = progress.add_task("faults", total=sum(faults.values()))
        site = SitePlan(folder, HUBS, PERIOD_S, LONGEST_PAUSE_S, seed, disks, far, AGENTS)
        plan = RunPlan(site, faults, 20, (0.3, 12.0), (2.0, 10.0), SETTLE_LIMIT_S, minutes * 60)
        run = Run(plan, lambda done, _all: progress.update(task, completed=done))
        status = 0
        try:
            asyncio.run(run.run())
        except BrokenInvariantError as error:
            log.error("%s", error)
            status = 1
        except KeyboardInterrupt:
            status = 130
    print(json.dumps(run.counts()), flush=True)
    with contextlib.suppress(OSError):
        (folder / "counts.json").write_text(json.dumps(run.counts(), indent=1) + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
