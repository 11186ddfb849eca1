"""The short form of `make chaos`: a site with three hubs; its processes are killed, its links, disks and clocks fail."""

import asyncio
from pathlib import Path

from benchmarks.chaos.run import Run, RunPlan
from benchmarks.chaos.site import SitePlan

FAULTS = {
    **dict.fromkeys(("kill hub", "kill broker", "kill ingest", "kill opener", "kill postgresql"), 1),
    **{"cut": 1, "black hole": 1, "loss": 1, "clock": 2, "hub I/O error": 1, "database I/O error": 1},
    **{"power cut": 1, "hub copied": 1, "hub rolled back": 1},
}


def test_nothing_is_lost_twice_there_or_unexplained_while_everything_is_killed(memory_folder: Path) -> None:
    site = SitePlan(memory_folder / "site", hubs=3, period_s=0.4, longest_pause_s=0.5, seed=7)
    run = Run(RunPlan(site, FAULTS, check_every=100, pause_s=(0.05, 0.5), lasting_s=(0.5, 1.5), settle_limit_s=300, until_s=10))
    asyncio.run(run.run())
    assert run.account is not None
    assert run.account.passed
    assert run.done == FAULTS
    assert run.account.acknowledged > 20
