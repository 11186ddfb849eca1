"""The lane `archive`: sealed and kept for the retention time, evicted first, and sent only what the clinic requests."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sync.outbox import BufferLimits, Outbox
from sync.outbox.archive import SEALED_LATER_S
from sync.uplink import Uplink
from sync.wire import UNKNOWN_CHAIN
from tests.link import Link
from tests.sync.outboxes import BOOT_S, OTHER_STORE, Clock, ack, all_pending, held, open_at, tidy
from tests.sync.uplink_testbed import UplinkTestbed, open_testbed

OpenOutbox = Callable[..., Outbox]


def put_archive(outbox: Outbox, clock: Clock, count: int) -> None:
    """One block a minute."""
    for n in range(count):
        outbox.put("archive", b"%d" % n)
        clock.now += 60


def stored_seqs(outbox: Outbox) -> list[int]:
    return [row[0] & 0xFFFF for row in outbox._database.rows("SELECT id FROM blocks_archive ORDER BY id")]


def pending_seqs(outbox: Outbox) -> list[int]:
    return [block.id.seq for block in all_pending(outbox, ["archive"])]


def test_nothing_is_sent_or_waits_unrequested(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(limits=BufferLimits(quota_bytes=5_000))
    outbox.put_many([("archive", bytes(1000))] * 4)
    assert pending_seqs(outbox) == []
    assert not outbox.is_nearly_full  # else vital signs would be left out
    statistics = outbox.statistics()
    assert (statistics.pending["archive"], statistics.acknowledged) == (0, 0)
    assert statistics.bytes > 4_000


def test_a_requested_stretch_is_sent_and_the_rest_is_not_waited_for(open_outbox: OpenOutbox) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock)
    put_archive(outbox, clock, 20)
    assert outbox.release_archive("subject-2", BOOT_S, BOOT_S + 3600) == 0
    assert outbox.release_archive("subject-1", BOOT_S + 300, BOOT_S + 480) == 4 + SEALED_LATER_S // 60
    assert pending_seqs(outbox) == [6, 7, 8, 9, 10]
    dropped = [row[2:] for row in outbox.clinic_view().dropped]
    assert dropped == [(1, 5, UNKNOWN_CHAIN)]
    assert outbox.release_archive("subject-1", BOOT_S + 300, BOOT_S + 480) == 0  # once
    assert outbox.release_archive("subject-1", BOOT_S + 900, BOOT_S + 900) == 2
    assert [row[2:4] for row in outbox.clinic_view().dropped] == [(1, 5), (11, 15)]
    assert outbox.release_archive("subject-1", BOOT_S, BOOT_S) == 2
    assert pending_seqs(outbox) == [1, 2, 6, 7, 8, 9, 10, 16, 17]
    outbox.apply_ack(ack(held=held(*all_pending(outbox))))
    assert pending_seqs(outbox) == []
    assert outbox.statistics().released == 9


def test_another_store_gets_what_was_requested_again_and_no_more(open_outbox: OpenOutbox) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock)
    put_archive(outbox, clock, 6)
    outbox.release_archive("subject-1", BOOT_S, BOOT_S)
    outbox.apply_ack(ack(held=held(*all_pending(outbox))))
    outbox.apply_ack(ack(OTHER_STORE, 8))
    assert pending_seqs(outbox) == [1, 2]
    assert not outbox.is_nearly_full


def test_the_archive_goes_at_the_end_of_the_retention_and_first_of_all(open_outbox: OpenOutbox) -> None:
    clock = Clock()
    outbox = open_outbox(clock=clock, limits=BufferLimits(retention_s=600, quota_bytes=8_000))
    put_archive(outbox, clock, 5)
    clock.now = BOOT_S + 86_400 + 61
    tidy(outbox)
    assert stored_seqs(outbox) == [3, 4, 5]
    outbox.put_many([("vital", bytes(1000))] * 3)
    outbox.put_many([("wave", bytes(1000))] * 3)
    for _ in range(3):
        outbox.put("wave", bytes(1000))
    assert stored_seqs(outbox) == []
    assert "archive" not in {row.lane for row in outbox.clinic_view().dropped}
    assert outbox.statistics().pending["vital"] == 3


def test_a_salvaged_buffer_withholds_its_archive(path: Path) -> None:
    clock = Clock()
    outbox = open_at(path, clock=clock)
    put_archive(outbox, clock, 12)
    outbox.release_archive("subject-1", BOOT_S + 120, BOOT_S + 120)
    requested = pending_seqs(outbox)
    outbox.close()
    again = open_at(path, clock=clock, is_damaged=True)
    assert pending_seqs(again) == requested == [3, 4]
    assert stored_seqs(again) == list(range(1, 13))
    assert [row[2:4] for row in again.clinic_view().dropped] == [(1, 2)]
    assert again.release_archive("subject-1", BOOT_S, BOOT_S + 3600) == 10
    again.close()


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[UplinkTestbed]:
    with open_testbed(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("is_connected", [True, False])
def test_the_uplink_sends_a_released_stretch(testbed: UplinkTestbed, is_connected: bool) -> None:
    testbed.outbox.put_many([("archive", b"%d" % n) for n in range(8)])
    sequence = testbed.outbox._tables.where("lane = 'archive'")[0]

    async def scenario(link: Link, uplink: Uplink) -> None:
        if is_connected:
            link.connect()
            await asyncio.sleep(10)
        rows = testbed.outbox._tables.read(sequence, 4, 5)
        testbed.outbox._transactions.run(lambda: testbed.outbox._tables.answer(sequence, rows, None, 0))
        uplink.send_archive()
        if not is_connected:
            link.connect()
        await asyncio.sleep(10)

    testbed.run(scenario)
    assert testbed.clinic.opened_plaintexts() == [b"3", b"4"]
    assert testbed.is_drained()
