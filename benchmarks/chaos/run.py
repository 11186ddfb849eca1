"""One run: the faults in a random order that a seed determines, a check after every twentieth, and the counts at the end."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.chaos.account import Account, account_site
from benchmarks.chaos.agents import account_agents, add_counts, wait_sent
from benchmarks.chaos.copies import STORE_RESTORED, Backups, make_copy_faults
from benchmarks.chaos.faults import (
    LINK_FAULTS,
    MACHINE_FAULTS,
    NETWORK_FAULTS,
    PROCESS_FAULTS,
    Chaos,
    Fault,
)
from benchmarks.chaos.settle import resume, settle, wait_begun
from benchmarks.chaos.site import STORE, Site, SitePlan, running_site

FULL: Final[Mapping[str, int]] = {
    **dict.fromkeys(PROCESS_FAULTS, 40),
    **{"cut": 20, "delay": 8, "loss": 8, "slow": 8, "black hole": 8, "down": 8},
    **dict.fromkeys(NETWORK_FAULTS, 8),
    **{"clock": 16, "hub I/O error": 8, "database I/O error": 6, "hub disk full": 8, "database disk full": 5},
    **{STORE_RESTORED: 5, "hub rolled back": 8, "hub copied": 5, "power cut": 14},
}
"""How often each fault is done. Of the rolled-back hubs, every second one is the backup."""

log: Final = logging.getLogger("chaos")


class BrokenInvariantError(Exception):
    """What must hold does not. The message says what."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is done to a site: how often each fault, after how many faults it is checked, and the pauses and limits in seconds.

    `until_s` is when the last fault should be done: the pauses are shortened if the run is late.
    """

    site: SitePlan
    faults: Mapping[str, int]
    check_every: int
    pause_s: tuple[float, float]
    lasting_s: tuple[float, float]
    settle_limit_s: float
    until_s: float


def make_schedule(faults: Mapping[str, int], rng: random.Random) -> list[str]:
    """Return the kinds of the faults in a random order; stores are restored in the first third.

    A restored store is opened again from its first block: the later, the longer this takes.
    """
    others = [kind for kind, n in faults.items() for _ in range(n) if kind != STORE_RESTORED]
    rng.shuffle(others)
    for _ in range(faults.get(STORE_RESTORED, 0)):
        others.insert(rng.randrange(len(others) // 3), STORE_RESTORED)
    return others


@dataclass(slots=True)
class Run:
    """A run and its counts. `on_progress` is told the numbers of faults done and of all."""

    plan: RunPlan
    on_progress: Callable[[int, int], None] = lambda _done, _all: None
    done: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    longest_settle_s: float = 0.0
    account: Account | None = None
    frames: dict[str, int] = field(default_factory=dict)
    _started_s: float = 0.0

    async def run(self) -> None:
        """Run the site, do all faults and check in between.

        Raises:
            BrokenInvariantError: something was lost, is there twice or is not explained, or the marks do not become equal.
        """
        self._started_s = time.monotonic()
        plan, rng = self.plan, random.Random(self.plan.site.seed)
        schedule = make_schedule(plan.faults, rng)
        faults: dict[str, Fault] = {
            **PROCESS_FAULTS,
            **LINK_FAULTS,
            **NETWORK_FAULTS,
            **MACHINE_FAULTS,
            **make_copy_faults(Backups()),
        }
        async with running_site(plan.site) as site:
            chaos = Chaos(site, rng, plan.lasting_s)
            await wait_begun(site, plan.settle_limit_s)
            for number, kind in enumerate(schedule, start=1):
                await asyncio.sleep(self._pause_s(rng, len(schedule) - number + 1))
                what = await faults[kind](chaos)
                self.done[kind] += 1
                log.info("%d: %s: %s", number, kind, what)
                self.on_progress(number, len(schedule))
                if number % plan.check_every == 0 and number < len(schedule):
                    await self.check(chaos)
            await self.check(chaos, is_last=True)

    def _pause_s(self, rng: random.Random, left: int) -> float:
        """Return a random pause, shorter if the run is late."""
        shortest, longest = self.plan.pause_s
        mean_s = (self._started_s + self.plan.until_s - time.monotonic()) / left
        return rng.uniform(shortest, max(shortest, min(longest, 2 * mean_s - shortest)))

    async def check(self, chaos: Chaos, *, is_last: bool = False) -> None:
        """Repair everything, wait until the site has come to rest, and compare; at the last check with the whole agents, too.

        Raises:
            BrokenInvariantError: as `run`.
        """
        site, limit_s = chaos.site, self.plan.settle_limit_s
        await chaos.repair_all()
        began_s = time.monotonic()
        waiting = await wait_sent(site.agents, limit_s) if is_last else []
        waiting = waiting or await settle(site, limit_s)
        settled_s = time.monotonic() - began_s
        self.longest_settle_s = max(self.longest_settle_s, settled_s)
        if waiting:
            raise BrokenInvariantError(f"after {settled_s:.0f} s the site is not at rest: {'; '.join(waiting)}")
        found, problems = await asyncio.to_thread(account_site, site, with_agents=is_last)
        self.account = found
        self.checks += 1
        log.info("check %d after %.1f s: %s", self.checks, settled_s, found.counts())
        if not found.passed:
            raise BrokenInvariantError(f"{found.counts()}: {'; '.join(problems)}")
        if is_last:
            await self._account_agents(site)
        resume(site)

    async def _account_agents(self, site: Site) -> None:
        found = await asyncio.to_thread(account_agents, site.agents, site.clinic, site.server.url(STORE))
        self.frames = add_counts(found)
        if failed := {hub: one.counts() for hub, one in found.items() if not one.passed}:
            raise BrokenInvariantError(f"agents: {failed}")

    def counts(self) -> dict[str, Any]:
        """Return what was done and found."""
        minutes = (time.monotonic() - self._started_s) / 60
        found = {} if self.account is None else self.account.counts()
        return {
            "seed": self.plan.site.seed,
            "hubs": self.plan.site.hubs + self.plan.site.agents,
            "faults": dict(self.done),
            "checks": self.checks,
            **found,
            **self.frames,
            "longest_settle_s": round(self.longest_settle_s, 1),
            "minutes": round(minutes, 1),
        }
