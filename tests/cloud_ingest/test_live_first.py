"""Live data while a backlog drains through the hub's own uplink to a slow clinic, on virtual time.

The clinic's only processor handles `CLINIC_BYTES_PER_S`, a fortieth of what one ingest worker does: the backlog alone takes all
of it. What is handled at the same time takes turns.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from cloud.ingest import run_ingest
from gateway.virtual_time import run
from sync.wire import BlockId
from tests.cloud_ingest.ingest_testbed import ACK_KEY, NOW_US

CLINIC_BYTES_PER_S = 150_000
TURN_S = 0.01
BACKLOG_BLOCKS = 800
BLOCK_BYTES = 1500
LIVE_LIMIT_S = 0.2
"""Twice what a live message costs the clinic, with room for a second one; the window of the backlog is a second of work."""


class SlowClinic:
    def __init__(self) -> None:
        self._processor = asyncio.Lock()

    async def call(self, function: Callable[..., Any], /, *values: Any) -> Any:
        """Handle the messages of a group, as `run_ingest` asks for it."""
        left_s = sum(len(message.payload) for message in values[3]) / CLINIC_BYTES_PER_S
        while left_s > 0:
            async with self._processor:  # whoever waits longest is next
                await asyncio.sleep(min(left_s, TURN_S))
            left_s -= TURN_S
        return function(*values)


async def drain(testbed: Any, link: Any) -> tuple[list[float], float]:
    """Send a backlog, and a live block each second; returns how long each took to be acknowledged, and the whole."""

    async def call(function: Any, /, *values: Any) -> Any:
        await asyncio.sleep(0)
        return function(*values)

    outbox, clinic, clock_s, delays_s = testbed.outbox, testbed.clinic, asyncio.get_running_loop().time, list[float]()
    outbox.put_many([("wave", bytes(BLOCK_BYTES)) for _ in range(BACKLOG_BLOCKS)])
    link.connect()
    uplink, began_s = testbed.uplink(link.hub, call), clock_s()

    def is_pending(id_: BlockId) -> bool:
        return any(block.id == id_ for block in outbox.pending(id_.lane, (0, 0), 2**40))

    async with asyncio.TaskGroup() as tasks:
        ingest = run_ingest(
            clinic.store, clinic.registry, ACK_KEY, link.clinic, lambda: None, now_us=lambda: NOW_US, call=SlowClinic().call
        )
        running = [tasks.create_task(part) for part in (ingest, uplink.run())]
        await asyncio.sleep(1.5)  # the window has grown to what the clinic handles in a second
        while outbox.statistics().pending["wave"]:
            id_, sealed_s = outbox.put("vital", bytes(BLOCK_BYTES)), clock_s()
            uplink.wake()
            while is_pending(id_):
                await asyncio.sleep(0.005)
            delays_s.append(clock_s() - sealed_s)
            await asyncio.sleep(max(0.0, sealed_s + 1.0 - clock_s()))
        for task in running:
            task.cancel()
    return delays_s, clock_s() - began_s


def test_live_data_do_not_wait_for_the_backlog_and_it_drains_as_fast_as_the_clinic(
    testbed: Any, make_link: Callable[[], Any]
) -> None:
    delays_s, took_s = run(drain(testbed, make_link()))
    assert len(delays_s) >= 5
    assert max(delays_s) < LIVE_LIMIT_S
    assert took_s < 1.5 * BACKLOG_BLOCKS * BLOCK_BYTES / CLINIC_BYTES_PER_S
