"""Uplink and ingest over an unreliable link, on virtual time: every block arrives once, alerts first."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cloud.ingest import handle_message, run_ingest
from cloud.store import Store
from gateway.virtual_time import run
from sync.cbor import encode_cbor
from sync.errors import PermanentError, TransientError
from sync.in_flight import ACK_TIMEOUT_S, WINDOW_BYTES
from sync.mqtt import Message
from sync.seal import parse_header
from sync.uplink import Uplink
from sync.wire import Ack, Mark, Rejected, ack_topic, decode_envelope, encode_ack

HUB = "hub-1"
Scenario = Callable[[Any, Uplink], Awaitable[None]]


async def call_inline(function: Callable[..., Any], /, *values: Any) -> Any:
    return function(*values)


def run_scenario(testbed: Any, scenario: Scenario, *, call: Any = call_inline, has_clinic: bool = True) -> Uplink:
    """Run hub and clinic while `scenario` runs. The link is not connected at its start."""

    async def main() -> Uplink:
        link = testbed.link
        uplink = Uplink(testbed.outbox, link.hub, hub=HUB, call=call)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(uplink.run())]
            if has_clinic:
                running.append(tasks.create_task(run_ingest(testbed.store, link.clinic, lambda: None, now_us=lambda: 7)))
            await scenario(link, uplink)
            for task in running:
                task.cancel()
        return uplink

    return run(main())


async def wait_until(condition: Callable[[], bool], limit_s: float = 600.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _link(testbed: Any, make_link: Callable[[], Any]) -> None:
    testbed.link = make_link()


def lanes_sent(link: Any) -> list[str]:
    return [message.topic.rsplit("/", 1)[1] for message in link.sent if "/up/" in message.topic]


def blocks_in(message: Message) -> list[tuple[str, int]]:
    headers = [parse_header(block) for block in decode_envelope(message.payload).blocks]
    return [(header.lane, header.seq) for header in headers]


def test_a_backlog_larger_than_the_window_arrives_once(testbed: Any) -> None:
    plaintexts = [b"%04d" % i + bytes(2000) for i in range(3 * WINDOW_BYTES[1] // 2000)]
    testbed.outbox.put_many([("wave", plaintext) for plaintext in plaintexts])

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)

    uplink = run_scenario(testbed, scenario)
    assert testbed.opened_plaintexts() == plaintexts
    assert (uplink.statistics.blocks_sent, uplink.statistics.blocks_acked) == (len(plaintexts), len(plaintexts))
    assert uplink.statistics.resent == 0
    assert max(len(message.payload) for message in testbed.link.sent) <= 64 * 1024


def test_a_backlog_takes_few_messages_and_few_calls_of_the_storage_worker(testbed: Any) -> None:
    """Each message is a commit at the clinic, and each call is two changes of the thread."""
    testbed.outbox.put_many([("wave", bytes(16_000))] * 150)
    calls = 0

    async def call(function: Callable[..., Any], /, *values: Any) -> Any:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return function(*values)

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)

    run_scenario(testbed, scenario, call=call)
    n_messages = len(lanes_sent(testbed.link))
    assert n_messages <= 52
    assert calls <= 4 * n_messages


def test_wake_sends_new_blocks(testbed: Any) -> None:
    async def scenario(link: Any, uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(1)
        testbed.outbox.put("vital", b"a")
        uplink.wake()
        await asyncio.sleep(0.001)
        assert testbed.is_drained()

    run_scenario(testbed, scenario)
    assert testbed.opened_plaintexts() == [b"a"]


@pytest.mark.parametrize("direction", ["/up/", "/down/"])
def test_recovers_when_every_second_message_is_lost(testbed: Any, direction: str) -> None:
    testbed.outbox.put_many([("vital", b"%d" % i + bytes(20_000)) for i in range(20)])
    count = iter(range(10**6))
    testbed.link.is_lost = lambda message: direction in message.topic and next(count) % 2 == 0

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)

    uplink = run_scenario(testbed, scenario)
    assert sorted(testbed.opened_plaintexts()) == sorted(b"%d" % i + bytes(20_000) for i in range(20))
    assert uplink.statistics.resent > 0
    assert uplink.statistics.blocks_acked == 20


def test_disconnections_lose_no_block_and_store_none_twice(testbed: Any) -> None:
    count = 0

    async def put(uplink: Uplink) -> None:
        nonlocal count
        for _ in range(100):
            testbed.outbox.put_many([("vital", b"v%d" % count), ("wave", b"w%d" % count + bytes(3000))])
            count += 1
            uplink.wake()
            await asyncio.sleep(0.1)

    async def scenario(link: Any, uplink: Uplink) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(put(uplink))
            for pause in range(1, 8):
                link.connect()
                await asyncio.sleep(0.17 * pause)
                link.cut()
                await asyncio.sleep(0.1 * pause)
        link.connect()
        await wait_until(testbed.is_drained)

    run_scenario(testbed, scenario)
    opened = testbed.opened_plaintexts()
    assert len(opened) == len(set(opened)) == 200
    assert testbed.store.advance_mark(HUB, "vital", testbed.outbox.epoch).seq == 100


def test_sends_alerts_first_and_live_blocks_before_the_backlog(testbed: Any) -> None:
    testbed.outbox.put_many([("wave", bytes(20_000))] * 40 + [("vital", b"old"), ("alert", b"old")])

    async def scenario(link: Any, uplink: Uplink) -> None:
        def put_at_fourth_message(_message: Message) -> bool:
            if len(lanes_sent(link)) == 4 and testbed.outbox.last_position("alert")[1] == 1:
                testbed.outbox.put_many([("wave", b"new"), ("alert", b"new")])
                uplink.wake()
            return False

        link.is_lost = put_at_fourth_message
        link.connect()
        await wait_until(testbed.is_drained)

    run_scenario(testbed, scenario)
    sent = [blocks_in(message) for message in testbed.link.sent if "/up/" in message.topic]
    assert sent[:2] == [[("alert", 1)], [("vital", 1)]]
    assert sent[4:6] == [[("alert", 2)], [("wave", 41)]]


def test_sends_alerts_without_waiting_for_an_acknowledgement(testbed: Any) -> None:
    async def scenario(link: Any, uplink: Uplink) -> None:
        link.connect()
        testbed.outbox.put("wave", bytes(50_000))
        uplink.wake()
        await asyncio.sleep(0.1)
        testbed.outbox.put_many([("wave", b"waits"), ("alert", b"sent")])
        uplink.wake()
        await asyncio.sleep(0.1)
        assert lanes_sent(link) == ["wave", "alert"]

    run_scenario(testbed, scenario, has_clinic=False)


@pytest.mark.parametrize("kbit_per_s", [64, 256, 2000])
def test_an_alert_overtakes_the_backlog_on_a_slow_link(testbed: Any, kbit_per_s: int) -> None:
    """It arrives within 2 s plus its own transmission, although the link's buffers are unlimited, and the link stays busy."""
    bytes_per_s = kbit_per_s * 125
    testbed.link.bytes_per_s = bytes_per_s
    testbed.outbox.put_many([("wave", b"%d" % i + bytes(8000)) for i in range(20 * bytes_per_s // 8000)])
    strip = bytes(3000)

    async def scenario(link: Any, uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(10)
        assert testbed.store.count_blocks() * 8000 > 0.8 * 10 * bytes_per_s
        testbed.outbox.put("alert", strip)
        uplink.wake()
        sent_at = asyncio.get_running_loop().time()
        await wait_until(lambda: testbed.store.advance_mark(HUB, "alert", testbed.outbox.epoch).seq == 1)
        assert asyncio.get_running_loop().time() - sent_at < 2 + (len(strip) + 2000) / bytes_per_s
        await wait_until(testbed.is_drained)

    assert run_scenario(testbed, scenario).statistics.resent == 0


def test_a_block_that_takes_longer_than_the_shortest_timeout_is_sent_once(testbed: Any) -> None:
    testbed.link.bytes_per_s = 64 * 125
    testbed.outbox.put("wave", bytes(50_000))

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)

    assert run_scenario(testbed, scenario).statistics.resent == 0


def test_a_block_with_a_damaged_header_arrives_once(testbed: Any) -> None:
    testbed.outbox.put_many([("vital", b"a"), ("vital", b"b")])
    (sealed,) = testbed.outbox._connection.execute("SELECT sealed FROM blocks WHERE seq = 2").fetchone()
    damaged = sealed.replace(b"vital", b"vitak")
    testbed.outbox._connection.execute("UPDATE blocks SET sealed = ? WHERE seq = 2", (damaged,))

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)

    run_scenario(testbed, scenario)
    assert testbed.opened_plaintexts() == [b"a", b"b"]


def test_resends_one_message_with_growing_pauses_to_a_silent_clinic(testbed: Any) -> None:
    testbed.outbox.put_many([("wave", bytes(40_000))] * 20)

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(3600)

    uplink = run_scenario(testbed, scenario, has_clinic=False)
    first, longest = ACK_TIMEOUT_S
    assert {tuple(blocks_in(message)) for message in testbed.link.sent} == {(("wave", 1),)}
    assert 3600 / longest <= len(testbed.link.sent) <= 3600 / longest + longest / first
    assert uplink.statistics.blocks_acked == 0
    assert testbed.outbox.statistics().pending["wave"] == 20


def test_sends_keys_until_acknowledged_and_again_after_the_clinic_lost_its_store(testbed: Any) -> None:
    testbed.outbox.put("vital", b"a")

    async def scenario(link: Any, uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)
        testbed.outbox.put("vital", b"b")
        uplink.wake()
        await wait_until(testbed.is_drained)
        testbed.store.close()
        for file in testbed.folder.glob("store.db*"):
            file.unlink()
        fresh = Store.open(testbed.folder / "store.db")
        testbed.store.__dict__.update(fresh.__dict__)
        testbed.outbox.put("vital", b"c")
        uplink.wake()
        await wait_until(testbed.is_drained)

    run_scenario(testbed, scenario)
    keys = [len(decode_envelope(message.payload).keys) for message in testbed.link.sent if "/up/" in message.topic]
    assert keys == [1, 0, 0, 1]
    assert testbed.opened_plaintexts() == [b"c"]


def test_the_keys_of_a_hundred_days_fit_into_messages(testbed: Any) -> None:
    for _ in range(100):
        testbed.sealed_at_s[0] += 86_400
        testbed.outbox.put("vital", b"weight")

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)

    run_scenario(testbed, scenario)
    assert testbed.opened_plaintexts() == [b"weight"] * 100


def test_does_not_send_the_archive_lane(testbed: Any) -> None:
    testbed.outbox.put_many([("archive", b"kept"), ("wave", b"sent")])

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(100)

    run_scenario(testbed, scenario)
    assert testbed.opened_plaintexts() == [b"sent"]
    assert testbed.outbox.statistics().pending["archive"] == 1


def test_keeps_blocks_that_no_valid_acknowledgement_covers(testbed: Any) -> None:
    """The acknowledgements are malformed, for another hub, outdated, or for other lanes and epochs."""
    testbed.outbox.put_many([("vital", b"a")] * 3)
    epoch = testbed.outbox.epoch
    others = [
        b"",
        b"\xa0",
        encode_ack(Ack("hub-2", "main", 1, (Mark("vital", epoch, 3),))),
        encode_ack(Ack(HUB, "main", 5, (Mark("wave", epoch, 3), Mark("vital", epoch - 1, 3), Mark("vital", epoch, 0)))),
        encode_ack(Ack(HUB, "main", 4, (Mark("vital", epoch, 3),))),
    ]

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        for payload in others:
            await link.clinic.publish(ack_topic(HUB), payload)
        await link.clinic.publish("pulsegate/v1/hub-1/down/other", others[-1])
        await asyncio.sleep(0.1)

    uplink = run_scenario(testbed, scenario, has_clinic=False)
    assert testbed.outbox.statistics().pending["vital"] == 3
    assert uplink.statistics.malformed_acks == 3


def test_rejects_an_acknowledgement_over_the_limit(testbed: Any) -> None:
    testbed.outbox.put("vital", b"a")
    ranges = [["vital", testbed.outbox.epoch, n, n] for n in range(1, 5000)]
    fields = {"v": 1, "hub": HUB, "site": "main", "fence": 1, "keys": [], "marks": [], "rejected": [], "ranges": ranges}

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await link.clinic.publish(ack_topic(HUB), encode_cbor(fields))
        await asyncio.sleep(0.1)

    uplink = run_scenario(testbed, scenario, has_clinic=False)
    assert uplink.statistics.malformed_acks == 1
    assert testbed.outbox.statistics().pending["vital"] == 1


def test_a_block_in_the_clinics_quarantine_counts_as_acknowledged(testbed: Any) -> None:
    testbed.outbox.put_many([("vital", b"a")] * 2)

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        rejected = (Rejected("vital", testbed.outbox.epoch, 1, "conflict"),)
        await link.clinic.publish(ack_topic(HUB), encode_ack(Ack(HUB, "main", 1, rejected=rejected)))
        await asyncio.sleep(0.1)

    uplink = run_scenario(testbed, scenario, has_clinic=False)
    assert uplink.statistics.rejected == 1
    assert [block.id.seq for block in testbed.outbox.pending("vital", (0, 0), 10**6)] == [2]


@pytest.mark.parametrize("failing", ["pending", "acknowledge", "keys_for", "last_position", "mark_keys_held"])
def test_a_transient_outbox_failure_loses_no_block(
    testbed: Any, failing: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    testbed.outbox.put_many([("vital", b"a"), ("wave", b"b")])
    method = getattr(testbed.outbox, failing)
    failures = iter([True, True])

    def fail_twice(*values: Any, **options: Any) -> Any:
        if next(failures, False):
            raise TransientError("locked")
        return method(*values, **options)

    monkeypatch.setattr(testbed.outbox, failing, fail_twice)

    async def scenario(link: Any, uplink: Uplink) -> None:
        link.connect()
        await wait_until(lambda: testbed.is_drained() and uplink.statistics.problem is None)

    uplink = run_scenario(testbed, scenario)
    assert sorted(testbed.opened_plaintexts()) == [b"a", b"b"]
    assert "cannot send to the clinic: locked" in caplog.text
    assert uplink.statistics.blocks_acked == 2


def test_a_damaged_outbox_stops_the_uplink(testbed: Any) -> None:
    async def call(_function: Callable[..., Any], /, *_values: Any) -> Any:
        raise PermanentError("damaged")

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(10)

    with pytest.raises(ExceptionGroup) as caught:
        run_scenario(testbed, scenario, call=call)
    assert caught.group_contains(PermanentError, match="damaged")


def test_the_hub_resends_after_a_transient_failure_at_the_clinic(testbed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    testbed.outbox.put("alert", b"a")
    failures = iter([True, True])

    def failing_twice(*values: Any) -> Any:
        if next(failures, False):
            raise TransientError("the disk is full")
        return handle_message(*values)

    monkeypatch.setattr("cloud.ingest.handle_message", failing_twice)

    async def scenario(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await wait_until(testbed.is_drained)

    uplink = run_scenario(testbed, scenario)
    assert testbed.opened_plaintexts() == [b"a"]
    assert uplink.statistics.resent == 2
