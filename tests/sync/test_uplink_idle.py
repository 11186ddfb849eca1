"""A hub that has nothing to send still learns that the clinic's store was lost or restored from a backup."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.uplink import HELLO_INTERVAL_S, Uplink
from tests.link import Link
from tests.sync.uplink_testbed import UplinkTestbed, open_testbed


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[UplinkTestbed]:
    with open_testbed(tmp_path) as testbed:
        yield testbed


def test_a_store_lost_while_the_hub_is_connected_gets_everything_again(testbed: UplinkTestbed) -> None:
    testbed.outbox.put_many([("wave", b"a"), ("vital", b"b"), ("alert", b"c")])

    async def scenario(link: Link, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(10)
        assert len(testbed.clinic.blocks) == 3
        testbed.clinic.lose_store()
        await asyncio.sleep(HELLO_INTERVAL_S - 60)
        assert not testbed.clinic.blocks
        await asyncio.sleep(180)
        assert len(testbed.clinic.blocks) == 3

    testbed.run(scenario)


def test_a_store_lost_while_the_agent_is_off_gets_everything_again(testbed: UplinkTestbed) -> None:
    testbed.outbox.put_many([("wave", b"a"), ("vital", b"b"), ("alert", b"c")])
    testbed.drain()
    testbed.clinic.lose_store()

    async def scenario(link: Link, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(120)
        assert len(testbed.clinic.blocks) == 3

    testbed.run(scenario)


def test_a_hub_asks_once_an_hour(testbed: UplinkTestbed) -> None:
    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(3 * HELLO_INTERVAL_S)
        assert not testbed.clinic.envelopes  # the clinic has nothing of this hub that it could lose
        for n in range(8):
            testbed.outbox.put("wave", b"%d" % n)
            uplink.wake()
            await asyncio.sleep(HELLO_INTERVAL_S / 2)
        await asyncio.sleep(3 * HELLO_INTERVAL_S + 120)
        n_blocks = [len(envelope.blocks) for envelope in testbed.clinic.envelopes]
        assert n_blocks == [1] * 8 + [0] * 4  # every second one with a block asks, too

    testbed.run(scenario)
