"""The faults of links, disks, clocks and processes. Each is a coroutine that does it to a site and says what it did.

A fault that lasts goes on in the background; `repair_all` ends those that are left.
"""

import asyncio
import contextlib
import os
import random
import resource
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.chaos.link import FaultyLink
from benchmarks.chaos.network import FarNetwork
from benchmarks.chaos.processes import Supervised
from benchmarks.chaos.site import Hub, Site
from cloud.site.mosquitto import INGEST, OPENER
from tests.postgresql import as_other_user

YEAR_S: Final = 31_557_600
KILL_LIMIT_S: Final = 60.0
"""How long a kill waits for its process to run: PostgreSQL may wait for the disk to have room."""
POLL_S: Final = 0.05
SLOW_BYTES_PER_S: Final = (1500.0, 12_000.0)
"""From a weak 2G link to a weak 3G one."""
SLOW_KBIT_PER_S: Final = (24, 200)
LOSS_PERCENT: Final = (2, 30)
DELAY_S: Final = (0.2, 2.0)
CUT_WITHIN_BYTES: Final = 6000
"""A message of a hub has 1 to 6 kB."""


@dataclass(slots=True)
class Chaos:
    """A site, what is broken there at the moment, and how long a fault lasts (from, to, in seconds)."""

    site: Site
    rng: random.Random
    lasting_s: tuple[float, float]
    _lasting: dict[asyncio.Task[None], Callable[[], Awaitable[None]]] = field(default_factory=dict)

    def last(self, end: Callable[[], Awaitable[None]]) -> None:
        """End a fault after a while, or at `repair_all`."""
        task = asyncio.create_task(asyncio.sleep(self.rng.uniform(*self.lasting_s)))
        self._lasting[task] = end
        task.add_done_callback(lambda done: None if done.cancelled() else self._end(done))

    def _end(self, task: asyncio.Task[None]) -> None:
        ending = asyncio.create_task(self._run_end(task))
        ending.set_name("end of a fault")

    async def _run_end(self, task: asyncio.Task[None]) -> None:
        end = self._lasting.pop(task, None)
        if end is not None:
            await end()

    async def repair_all(self) -> None:
        """End every fault that lasts, and repair all links."""
        while self._lasting:
            task = next(iter(self._lasting))
            task.cancel()
            await self._run_end(task)
        for link in self.site.links():
            link.repair()

    def pick_hub(self) -> Hub:
        return self.rng.choice(self.site.hubs)

    def pick_single_hub(self) -> Hub:
        """Return a hub of which no copy runs."""
        copied = {copy.name for copy in self.site.copies}
        return self.rng.choice([hub for hub in self.site.hubs if hub.name not in copied])


Fault = Callable[[Chaos], Awaitable[str]]


async def kill(process: Supervised) -> str:
    """Kill a process as soon as it runs."""
    async with asyncio.timeout(KILL_LIMIT_S):
        while not process.kill():
            await asyncio.sleep(POLL_S)
    return process.name


async def kill_hub(chaos: Chaos) -> str:
    return await kill(chaos.rng.choice([*chaos.site.hubs, *chaos.site.copies]).process)


async def kill_agent(chaos: Chaos) -> str:
    return await kill(chaos.rng.choice(chaos.site.agents).process)


def kill_service(name: str) -> Fault:
    async def fault(chaos: Chaos) -> str:
        return await kill(chaos.rng.choice(chaos.site.services[name]))

    return fault


def break_link(change: Callable[[FaultyLink, random.Random], None]) -> Fault:
    """Return the fault that breaks a hub's link for a while."""

    async def fault(chaos: Chaos) -> str:
        link = chaos.rng.choice(chaos.site.links())
        change(link, chaos.rng)

        async def repair() -> None:
            link.repair()

        chaos.last(repair)
        return link.name

    return fault


def _cut(link: FaultyLink, rng: random.Random) -> None:
    link.cut_after_bytes = rng.randrange(1, CUT_WITHIN_BYTES)


def _delay(link: FaultyLink, rng: random.Random) -> None:
    link.delay_s = rng.uniform(*DELAY_S)


def _lose(link: FaultyLink, _rng: random.Random) -> None:
    link.is_lossy = True


def _slow(link: FaultyLink, rng: random.Random) -> None:
    link.bytes_per_s = rng.uniform(*SLOW_BYTES_PER_S)


def _swallow(link: FaultyLink, _rng: random.Random) -> None:
    link.swallow()


def _take_down(link: FaultyLink, _rng: random.Random) -> None:
    link.is_down = True
    link.reset()


def break_network(change: Callable[[FarNetwork, random.Random], None]) -> Fault:
    """Return the fault that breaks the link of the second network for a while."""

    async def fault(chaos: Chaos) -> str:
        far = chaos.site.plan.far
        assert far is not None, "this run has no second network"
        await asyncio.to_thread(change, far, chaos.rng)

        async def repair() -> None:
            await asyncio.to_thread(far.repair)

        chaos.last(repair)
        return "the second network"

    return fault


async def set_clock(chaos: Chaos) -> str:
    """Set a hub's wall clock a year back or ahead, or right again."""
    return write_offset(chaos.pick_hub(), chaos.rng.choice((-YEAR_S, YEAR_S, 0)))


def write_offset(hub: Hub, offset_s: int) -> str:
    """Let a hub's wall clock be wrong by so much from now on."""
    draft = hub.settings.offset_file.with_suffix(".draft")
    draft.write_text(str(offset_s))
    draft.replace(hub.settings.offset_file)
    return f"{hub.name} {offset_s:+d} s"


async def fail_hub_writes(chaos: Chaos) -> str:
    """Let every write of a hub's process to a file fail for a while: SQLite reports an I/O error."""
    hub = chaos.pick_hub()
    pid = hub.process.pid
    if pid is None:
        return f"{hub.name} does not run"
    _limit_own_file_size(pid, 0)

    async def end() -> None:
        _limit_own_file_size(pid, resource.RLIM_INFINITY)

    chaos.last(end)
    return hub.name


def _limit_own_file_size(pid: int, limit: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


async def fail_database_writes(chaos: Chaos) -> str:
    """Let every write of PostgreSQL to a file fail for a while. It gives up where it cannot write its log of transactions."""
    server = chaos.site.services["postgresql"][0]
    pid = server.pid
    if pid is None:
        return "postgresql does not run"
    await asyncio.to_thread(_limit_family, pid, "0")

    async def end() -> None:
        if server.pid == pid:
            await asyncio.to_thread(_limit_family, pid, "unlimited")

    chaos.last(end)
    return server.name


def _limit_family(pid: int, limit: str) -> None:
    """Limit the files of a process and its children, as their own user."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        for one in [str(pid), *children.read_text().split()]:
            words = [*as_other_user(), "prlimit", "--pid", one, f"--fsize={limit}:"]
            subprocess.run(words, check=False, stderr=subprocess.DEVNULL)


def fill_disk(of_hubs: bool) -> Fault:
    """Return the fault that fills the disk of some hubs, or that of the clinic's databases, for a while."""

    async def fault(chaos: Chaos) -> str:
        disks = chaos.site.plan.disks
        name = chaos.rng.choice(sorted(disks.keys() - {"clinic"})) if of_hubs else "clinic"
        filler = disks[name] / "filler"
        await asyncio.to_thread(fill, filler)

        async def end() -> None:
            filler.unlink(missing_ok=True)

        chaos.last(end)
        return f"the disk of {name}"

    return fault


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    os.write(file.fileno(), bytes(size))


PROCESS_FAULTS: Final[Mapping[str, Fault]] = {
    "kill agent": kill_agent,
    "kill hub": kill_hub,
    "kill broker": kill_service("broker"),
    "kill ingest": kill_service(INGEST),
    "kill opener": kill_service(OPENER),
    "kill postgresql": kill_service("postgresql"),
}
LINK_FAULTS: Final[Mapping[str, Fault]] = {
    "cut": break_link(_cut),
    "delay": break_link(_delay),
    "loss": break_link(_lose),
    "slow": break_link(_slow),
    "black hole": break_link(_swallow),
    "down": break_link(_take_down),
}
NETWORK_FAULTS: Final[Mapping[str, Fault]] = {
    "network slow": break_network(lambda far, rng: far.slow(rng.randrange(*SLOW_KBIT_PER_S))),
    "network loss": break_network(lambda far, rng: far.lose(rng.randrange(*LOSS_PERCENT))),
    "network black hole": break_network(lambda far, _rng: far.swallow()),
}
MACHINE_FAULTS: Final[Mapping[str, Fault]] = {
    "clock": set_clock,
    "hub I/O error": fail_hub_writes,
    "database I/O error": fail_database_writes,
    "hub disk full": fill_disk(of_hubs=True),
    "database disk full": fill_disk(of_hubs=False),
}
