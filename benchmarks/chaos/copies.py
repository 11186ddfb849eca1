"""Faults of what people copy and put back: restored stores, rolled-back and copied hubs. And the power cut of a hub."""

import asyncio
import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pg8000.dbapi
from sqlalchemy.exc import DBAPIError

from benchmarks.chaos.faults import POLL_S, YEAR_S, Chaos, Fault, write_offset
from benchmarks.chaos.hub import TICK_S, read_journal
from benchmarks.chaos.power_cut import choose_cut, replay
from benchmarks.chaos.processes import ProcessGoneError
from benchmarks.chaos.recorded_disk import Op, read_log
from benchmarks.chaos.site import PROJECTIONS, STORE, Hub
from cloud.site.mosquitto import INGEST, OPENER

DATABASE_LIMIT_S: Final = 120.0
STORE_RESTORED: Final = "store restored"
BACKUP_AGE_S: Final = (5.0, 20.0)
AHEAD_S: Final = 6.0
"""How long a hub's clock is ahead at least: longer than a round of `Outbox.tidy` (`benchmarks.chaos.hub.TIDY_S`)."""
RECORDED_S: Final = (3.0, 9.0)
"""How long a hub stores each tick, without a connection, before its power is cut."""


@dataclass(slots=True)
class Backups:
    """The hubs whose buffer may be put back, and how many there were ever."""

    hubs: dict[str, "HubBackup"] = field(default_factory=dict)
    count: int = 0


@dataclass(frozen=True, slots=True)
class HubBackup:
    """A copy of a hub's folder, and the last number in its journal then."""

    folder: Path
    last: int


def make_copy_faults(backups: Backups) -> dict[str, Fault]:
    """Return the faults that use these backups, by name."""

    async def change_buffer(chaos: Chaos) -> str:
        """Copy a hub's folder, or put back the oldest copy."""
        hub = chaos.pick_single_hub()
        ready = [one for one in chaos.site.hubs if one.name in backups.hubs and one.name not in _copied(chaos)]
        backups.count += 1
        if ready:
            hub = ready[0]
            await hub.process.hold()
            roll_back(chaos, hub, backups.hubs.pop(hub.name), backups.count)
        else:
            await hub.process.hold()
            folder = chaos.site.plan.folder / "backups" / f"{hub.name}-{backups.count}"
            backups.hubs[hub.name] = HubBackup(folder, last_of(read_journal(hub.journal)))
            shutil.copytree(hub.folder, folder)
        hub.process.start()
        return f"{hub.name} {'rolled back' if ready else 'backed up'}"

    return {STORE_RESTORED: restore_store, "hub rolled back": change_buffer, "hub copied": copy_hub, "power cut": cut_power}


def _copied(chaos: Chaos) -> set[str]:
    return {copy.name for copy in chaos.site.copies}


async def restore_store(chaos: Chaos) -> str:
    """Back the store and the projections up, and put the store back a little later, with the projections or without.

    Meanwhile, one hub's clock is set a year ahead, and right at the end. So it must not delete what it has to send again.

    Links and disks are repaired before: a hub whose disk is full deletes what the clinic has acknowledged, to store new blocks.
    It could not send that again.
    """
    await chaos.repair_all()
    site = chaos.site
    services = [*site.services[INGEST], *site.services[OPENER]]
    for process in services:
        await process.hold()
    await _create_all(chaos, {_backup_of(name): name for name in (STORE, PROJECTIONS)})
    for process in services:
        process.start()
    hub = chaos.pick_hub()
    write_offset(hub, 0)
    await asyncio.sleep(chaos.rng.uniform(*BACKUP_AGE_S))
    await _wait_acknowledged(hub)
    ahead = write_offset(hub, YEAR_S)
    await asyncio.sleep(AHEAD_S)
    for process in services:
        await process.hold()
    chosen = (STORE, PROJECTIONS) if chaos.rng.random() < 1 / 2 else (STORE,)
    await _create_all(chaos, {name: _backup_of(name) for name in chosen})
    for process in services:
        process.start()
    write_offset(hub, 0)
    return f"{', '.join(chosen)}; {ahead}"


async def _wait_acknowledged(hub: Hub) -> None:
    """Wait until the clinic has acknowledged what a hub has stored."""
    async with asyncio.timeout(DATABASE_LIMIT_S):
        while True:
            with contextlib.suppress(ProcessGoneError):
                if not (await hub.process.ask("status"))["pending"]:
                    return
            await asyncio.sleep(POLL_S)


def _backup_of(name: str) -> str:
    return f"backup_of_{name}"


async def _create_all(chaos: Chaos, templates: Mapping[str, str]) -> None:
    """Create databases as copies of others; PostgreSQL may be down at first."""
    server = chaos.site.server
    async with asyncio.timeout(DATABASE_LIMIT_S):
        for name, template in templates.items():
            while True:
                try:
                    await asyncio.to_thread(server.create, name, template)
                except (DBAPIError, pg8000.dbapi.Error, OSError):
                    await asyncio.sleep(0.5)
                else:
                    break


def last_of(journal: Sequence[int]) -> int:
    return max(journal, default=0)


def roll_back(chaos: Chaos, hub: Hub, backup: HubBackup, number: int) -> None:
    """Replace the folder of a hub that does not run by an older copy, and keep the present one."""
    discarded = chaos.site.plan.folder / "discarded" / f"{hub.name}-{number}"
    shutil.copytree(hub.folder, discarded)
    hub.discarded.append(discarded / "buffer.db")
    hub.rolled_back.append((backup.last, last_of(read_journal(hub.journal))))
    _replace_folder(hub.folder, backup.folder)


def _replace_folder(folder: Path, other: Path) -> None:
    """Let a folder have the files of another, except SQLite's index of a log, which it makes anew."""
    for path in folder.glob("buffer.db*"):
        path.unlink()
    for path in other.glob("buffer.db*"):
        if not path.name.endswith("-shm"):
            shutil.copy2(path, folder)


async def copy_hub(chaos: Chaos) -> str:
    """Run a second hub on a copy of a hub's folder until the next check."""
    hub = chaos.pick_single_hub()
    await hub.process.hold()
    chaos.site.make_copy(hub)
    hub.process.start()
    return hub.name


async def cut_power(chaos: Chaos) -> str:
    """Let a hub store without a connection, and then give it the files that a power cut at a random sync would have left.

    What it stored after that moment has then never happened: nobody has seen it.
    """
    hub = chaos.pick_single_hub()
    work = chaos.site.plan.folder / "power_cuts" / f"{hub.name}-{hub.process.starts}"
    work.mkdir(parents=True)
    log = work / "writes.log"
    hub.link.is_down = True
    hub.link.reset()
    await hub.process.hold()
    before = read_journal(hub.journal)
    base = work / "base"
    shutil.copytree(hub.folder, base, ignore=shutil.ignore_patterns("*-shm", "filler"))
    usual = hub.settings
    hub.configure(replace(usual, recording=str(log), period_s=TICK_S))
    hub.process.start()
    await asyncio.sleep(chaos.rng.uniform(*RECORDED_S))
    await hub.process.hold()
    entries = read_log(log) if log.exists() else []
    happened = entries[: choose_cut(entries, chaos.rng)]
    await asyncio.to_thread(replay, base, happened, work / "cut", chaos.rng)
    _replace_folder(hub.folder, work / "cut")
    durable = [entry.value for entry in happened if entry.op is Op.MARK]
    hub.journal.write_text("".join(f"{number}\n" for number in [*before, *durable]))
    hub.configure(usual)
    hub.link.repair()
    hub.process.start()
    shutil.rmtree(work)
    return f"{hub.name} after {len(happened)} of {len(entries)} operations, {len(durable)} numbers"
