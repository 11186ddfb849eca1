"""The uplink over an unreliable link, on virtual time: every block arrives once, alerts first."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.errors import PermanentError, TransientError
from sync.in_flight import ACK_TIMEOUT_S, WINDOW_BYTES
from sync.messages import decode_envelope
from sync.mqtt import Message
from sync.outgoing import prepare_message
from sync.seal import parse_header
from sync.uplink import ANSWER_LIMIT_S, Uplink
from tests.link import Link
from tests.sync.uplink_testbed import UplinkTestbed, open_testbed, wait_until


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[UplinkTestbed]:
    with open_testbed(tmp_path) as opened:
        yield opened


def lanes_sent(link: Link) -> list[str]:
    return [message.topic.rsplit("/", 1)[1] for message in link.sent if "/up/" in message.topic]


def blocks_in(message: Message) -> list[tuple[str, int]]:
    headers = [parse_header(block) for block in decode_envelope(message.payload).envelope.blocks]
    return [(header.lane, header.seq) for header in headers]


def test_a_backlog_larger_than_the_window_arrives_once(testbed: UplinkTestbed) -> None:
    plaintexts = [b"%04d" % i + bytes(2000) for i in range(3 * WINDOW_BYTES[1] // 2000)]
    testbed.outbox.put_many([("wave", plaintext) for plaintext in plaintexts])
    uplink = testbed.drain()
    assert testbed.clinic.opened_plaintexts() == plaintexts
    assert (uplink.statistics.blocks_sent, uplink.statistics.blocks_acked) == (len(plaintexts), len(plaintexts))
    assert uplink.statistics.resent == 0
    assert max(len(message.payload) for message in testbed.link.sent) <= 64 * 1024


def test_a_backlog_takes_few_messages_and_few_calls_of_the_storage_worker(testbed: UplinkTestbed) -> None:
    """Each message is a commit at the clinic, and each call is two changes of the thread."""
    testbed.outbox.put_many([("wave", bytes(16_000))] * 150)
    calls = 0

    async def call(function: Callable[..., Any], /, *values: Any) -> Any:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return function(*values)

    async def scenario(link: Link, _uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)

    testbed.run(scenario, call=call)
    n_messages = len(lanes_sent(testbed.link))
    assert n_messages <= 52
    assert calls <= 4 * n_messages


def test_wake_sends_new_blocks(testbed: UplinkTestbed) -> None:
    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(1)
        testbed.outbox.put("vital", b"a")
        uplink.wake()
        await asyncio.sleep(0.001)
        assert testbed.is_drained()

    testbed.run(scenario)
    assert testbed.clinic.opened_plaintexts() == [b"a"]


@pytest.mark.parametrize("direction", ["/up/", "/down/"])
def test_recovers_when_every_second_message_is_lost(testbed: UplinkTestbed, direction: str) -> None:
    testbed.outbox.put_many([("vital", b"%d" % i + bytes(20_000)) for i in range(20)])
    count = iter(range(10**6))
    testbed.link.is_lost = lambda message: direction in message.topic and next(count) % 2 == 0
    uplink = testbed.drain()
    assert sorted(testbed.clinic.opened_plaintexts()) == sorted(b"%d" % i + bytes(20_000) for i in range(20))
    assert uplink.statistics.resent > 0
    assert uplink.statistics.blocks_acked == 20


def test_disconnections_lose_no_block_and_store_none_twice(testbed: UplinkTestbed) -> None:
    count = 0

    async def put(uplink: Uplink) -> None:
        nonlocal count
        for _ in range(100):
            testbed.outbox.put_many([("vital", b"v%d" % count), ("wave", b"w%d" % count + bytes(3000))])
            count += 1
            uplink.wake()
            await asyncio.sleep(0.1)

    async def scenario(link: Link, uplink: Uplink) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(put(uplink))
            for pause in range(1, 8):
                link.connect()
                await asyncio.sleep(0.17 * pause)
                link.cut()
                await asyncio.sleep(0.1 * pause)
        link.connect()
        await wait_until(testbed.is_drained)

    testbed.run(scenario)
    opened = testbed.clinic.opened_plaintexts()
    assert len(opened) == len(set(opened)) == 200
    assert testbed.clinic.mark("vital", testbed.outbox.epoch).seq == 100


def test_sends_alerts_first_and_live_blocks_before_the_backlog(testbed: UplinkTestbed) -> None:
    testbed.outbox.put_many([("wave", bytes(20_000))] * 40 + [("vital", b"old"), ("alert", b"old")])

    async def scenario(link: Link, uplink: Uplink) -> None:
        def put_at_fourth_message(_message: Message) -> bool:
            if len(lanes_sent(link)) == 4 and testbed.outbox.last_position("alert")[1] == 1:
                testbed.outbox.put_many([("wave", b"new"), ("alert", b"new")])
                uplink.wake()
            return False

        link.is_lost = put_at_fourth_message
        link.connect()
        await wait_until(testbed.is_drained)

    testbed.run(scenario)
    sent = [blocks_in(message) for message in testbed.link.sent if "/up/" in message.topic]
    assert sent[:2] == [[("alert", 1)], [("vital", 1)]]
    assert sent[4:6] == [[("alert", 2)], [("wave", 41)]]


def test_sends_alerts_without_waiting_for_an_acknowledgement(testbed: UplinkTestbed) -> None:
    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        testbed.outbox.put("wave", bytes(50_000))
        uplink.wake()
        await asyncio.sleep(0.1)
        testbed.outbox.put_many([("wave", b"waits"), ("alert", b"sent")])
        uplink.wake()
        await asyncio.sleep(0.1)
        assert lanes_sent(link) == ["wave", "alert"]

    testbed.run(scenario, has_clinic=False)


def test_a_block_that_takes_longer_than_the_shortest_timeout_is_sent_once(testbed: UplinkTestbed) -> None:
    testbed.link.bytes_per_s = 64 * 125
    testbed.outbox.put("wave", bytes(50_000))
    assert testbed.drain().statistics.resent == 0


def test_a_block_over_the_limit_waits_until_nothing_else_is_in_flight(testbed: UplinkTestbed) -> None:
    testbed.link.bytes_per_s = 64 * 125
    testbed.outbox.put("vital", b"measures the link")

    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)
        testbed.outbox.put_many([("vital", bytes(2000)), ("wave", bytes(50_000))])
        uplink.wake()
        await asyncio.sleep(0.1)
        assert [blocks_in(message) for message in link.sent if "/up/" in message.topic][1:] == [[("vital", 2)]]
        await wait_until(testbed.is_drained)

    assert testbed.run(scenario).statistics.resent == 0


def test_a_message_that_was_being_prepared_when_the_connection_was_lost_is_not_sent(testbed: UplinkTestbed) -> None:
    testbed.outbox.put("vital", b"a")

    async def call(function: Callable[..., Any], /, *values: Any) -> Any:
        result = function(*values)
        if function is prepare_message and len(prepared) < 2:
            prepared.append(result)
            testbed.link.cut()
            testbed.link.connect()
            await asyncio.sleep(0.01)
        return result

    prepared: list[Any] = []

    async def scenario(link: Link, _uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)

    testbed.run(scenario, call=call)
    assert [message.payload for message in prepared if message is not None]
    assert not {message.payload for message in prepared} & {message.payload for message in testbed.link.sent}


def test_a_block_with_a_damaged_header_arrives_once(testbed: UplinkTestbed) -> None:
    testbed.outbox.put_many([("vital", b"a"), ("vital", b"b")])
    connection = testbed.outbox._database.connection
    rows = connection.execute("SELECT sealed FROM blocks_vital ORDER BY id").fetchall()
    for (sealed,) in rows:
        damaged = sealed.replace(b"vital", b"vitak")
        connection.execute("UPDATE blocks_vital SET sealed = ? WHERE sealed = ?", (damaged, sealed))
    testbed.drain()
    assert testbed.clinic.opened_plaintexts() == [b"a", b"b"]


def test_resends_one_message_with_growing_pauses_to_a_silent_clinic(testbed: UplinkTestbed) -> None:
    testbed.outbox.put_many([("wave", bytes(40_000))] * 20)

    async def scenario(link: Link, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(3600)

    uplink = testbed.run(scenario, has_clinic=False)
    first, longest = ACK_TIMEOUT_S
    assert {tuple(blocks_in(message)) for message in testbed.link.sent} == {(("wave", 1),)}
    assert 3600 / longest <= len(testbed.link.sent) <= 3600 / longest + longest / first
    assert uplink.statistics.blocks_acked == 0
    assert testbed.outbox.statistics().pending["wave"] == 20


def test_sends_keys_until_acknowledged_and_again_after_the_clinic_lost_its_store(testbed: UplinkTestbed) -> None:
    testbed.outbox.put("vital", b"a")

    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)
        testbed.outbox.put("vital", b"b")
        uplink.wake()
        await wait_until(testbed.is_drained)
        testbed.clinic.lose_store()
        testbed.outbox.put("vital", b"c")
        uplink.wake()
        await wait_until(testbed.is_drained)

    testbed.run(scenario)
    keys = [len(decode_envelope(message.payload).envelope.keys) for message in testbed.link.sent if "/up/" in message.topic]
    assert keys == [1, 0, 0, 1, 1]
    assert testbed.clinic.opened_plaintexts() == [b"a", b"b", b"c"]


def test_the_keys_of_a_hundred_days_fit_into_messages(testbed: UplinkTestbed) -> None:
    for _ in range(100):
        testbed.now_s[0] += 86_400
        testbed.outbox.put("vital", b"weight")
    testbed.drain()
    assert testbed.clinic.opened_plaintexts() == [b"weight"] * 100


def test_does_not_send_the_archive_lane(testbed: UplinkTestbed) -> None:
    testbed.outbox.put_many([("archive", b"kept"), ("wave", b"sent")])

    async def scenario(link: Link, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(100)

    testbed.run(scenario)
    assert testbed.clinic.opened_plaintexts() == [b"sent"]
    assert testbed.outbox.statistics().pending["archive"] == 0
    assert testbed.outbox._database.rows("SELECT count(*) FROM blocks_archive") == [(1,)]


@pytest.mark.parametrize("failing", ["pending", "apply_ack", "keys_for", "clinic_view", "last_position"])
def test_a_transient_outbox_failure_loses_no_block(
    testbed: UplinkTestbed, failing: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    testbed.outbox.put_many([("vital", b"a"), ("wave", b"b")])
    method = getattr(testbed.outbox, failing)
    failures = iter([True, True])

    def fail_twice(*values: Any, **options: Any) -> Any:
        if next(failures, False):
            raise TransientError("locked")
        return method(*values, **options)

    monkeypatch.setattr(testbed.outbox, failing, fail_twice)

    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        await wait_until(lambda: testbed.is_drained() and uplink.statistics.problem is None)

    uplink = testbed.run(scenario)
    assert sorted(testbed.clinic.opened_plaintexts()) == [b"a", b"b"]
    assert "cannot send to the clinic: locked" in caplog.text
    assert uplink.statistics.blocks_acked == 2


def test_a_clinic_that_does_not_answer_is_reported_until_it_does(testbed: UplinkTestbed) -> None:
    testbed.outbox.put("vital", b"a")
    seen: list[str | None] = []

    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        for wait_s in (ANSWER_LIMIT_S - 1, 60):
            await asyncio.sleep(wait_s)
            seen.append(uplink.statistics.problem)
        clinic = asyncio.create_task(testbed.clinic.run(link.clinic))
        await wait_until(testbed.is_drained)
        seen.append(uplink.statistics.problem)
        clinic.cancel()

    testbed.run(scenario, has_clinic=False)
    assert seen[0] is seen[2] is None
    assert "this hub is registered there" in str(seen[1])


def test_a_damaged_outbox_stops_the_uplink(testbed: UplinkTestbed) -> None:
    async def call(_function: Callable[..., Any], /, *_values: Any) -> Any:
        raise PermanentError("damaged")

    async def scenario(link: Link, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(10)

    with pytest.raises(ExceptionGroup) as caught:
        testbed.run(scenario, call=call)
    assert caught.group_contains(PermanentError, match="damaged")


def test_the_hub_resends_after_a_transient_failure_at_the_clinic(testbed: UplinkTestbed) -> None:
    testbed.outbox.put("alert", b"a")
    testbed.clinic.failures = 2
    uplink = testbed.drain()
    assert testbed.clinic.opened_plaintexts() == [b"a"]
    assert uplink.statistics.resent == 2
