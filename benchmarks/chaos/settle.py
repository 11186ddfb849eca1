"""Lets a site come to rest: nothing is stored any more, everything is sent and opened, and the marks of both ends are equal."""

import asyncio
import contextlib
import time
from typing import Any, Final

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.exc import DBAPIError

from benchmarks.chaos.account import compare_marks, count_work
from benchmarks.chaos.processes import ProcessGoneError
from benchmarks.chaos.site import PROJECTIONS, STORE, Hub, Site
from cloud import tables
from cloud.store import tables as store_tables

POLL_S: Final = 0.25


async def settle(site: Site, limit_s: float) -> list[str]:
    """Stop the hubs' sensors, end the copies and wait until everything is opened and the marks are equal.

    Returns what is still not so after the limit. Call `resume` afterwards.
    """
    deadline_s = time.monotonic() + limit_s
    for hub in site.hubs:
        hub.process.send("pause")
    while site.copies:
        copy = site.copies[0]
        original = next(hub for hub in site.hubs if hub.name == copy.name)
        await original.process.hold()
        if problems := await _wait_hubs(site, [copy], deadline_s):
            return problems
        await copy.process.stop()
        site.retired.append(site.copies.pop(0))
        original.process.start()
    return await _wait_hubs(site, site.hubs, deadline_s)


def resume(site: Site) -> None:
    """Let the hubs store numbers again."""
    for hub in site.hubs:
        hub.process.send("resume")


async def wait_begun(site: Site, limit_s: float) -> None:
    """Wait until each hub has stored something and the clinic has opened something."""
    async with asyncio.timeout(limit_s):
        while not all(hub.journal.exists() for hub in site.hubs) or not await asyncio.to_thread(_has_opened, site):
            await asyncio.sleep(POLL_S)


def _has_opened(site: Site) -> bool:
    with contextlib.suppress(DBAPIError), site.engine(PROJECTIONS).connect() as connection:
        return _count(connection, tables.opened) > 0
    return False


async def _wait_hubs(site: Site, hubs: list[Hub], deadline_s: float) -> list[str]:
    waiting = ["nothing was asked yet"]
    while time.monotonic() < deadline_s:
        waiting = []
        for hub in hubs:
            waiting += await _describe_wait(site, hub)
        waiting += await asyncio.to_thread(_describe_work, site)
        if not waiting:
            return []
        await asyncio.sleep(POLL_S)
    return waiting


async def _describe_wait(site: Site, hub: Hub) -> list[str]:
    """What a hub waits for."""
    hub.process.send("pause")
    try:
        status = await hub.process.ask("status")
    except ProcessGoneError:
        return [f"{hub.process.name} does not run"]
    if status["pending"]:
        return [f"{hub.process.name}: {status['pending']} blocks wait ({status['problem']})"]
    if status["aside"] or status["refused"] or status["dropped"]:
        return [f"{hub.process.name}: blocks were set aside, refused or dropped: {status}"]
    try:
        return await asyncio.to_thread(_compare_marks, site, hub, status)
    except DBAPIError as error:
        return [f"the store: {error}"]


def _compare_marks(site: Site, hub: Hub, status: dict[str, Any]) -> list[str]:
    with site.engine(STORE).connect() as connection:
        return compare_marks(connection, hub, status)


def _describe_work(site: Site) -> list[str]:
    """What the clinic waits for."""
    try:
        with site.engine(STORE).connect() as connection:
            waiting, held = count_work(connection), _count(connection, store_tables.blocks)
        with site.engine(PROJECTIONS).connect() as connection:
            opened = _count(connection, tables.opened)
    except DBAPIError as error:
        return [f"a database of the clinic: {error}"]
    return [f"{waiting} blocks wait for the opener: {opened} of {held} are opened"] if waiting or opened != held else []


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
