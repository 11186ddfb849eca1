"""Uplink and ingest over a link that loses, cuts and lies, on virtual time: everything arrives once, alerts first."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cloud.ingest import run_ingest, take
from cloud.store import Store
from gateway.virtual_time import run
from sync.errors import Permanent, Transient
from sync.mqtt import Message
from sync.seal import parse_header
from sync.uplink import ACK_TIMEOUT_S, IN_FLIGHT_BYTES, Uplink
from sync.wire import Ack, Mark, Rejected, ack_topic, decode_envelope, encode_ack

HUB = "hub-1"
Body = Callable[[Any, Uplink], Awaitable[None]]


async def inline(function: Callable[..., Any], /, *values: Any) -> Any:
    return function(*values)


def live(house: Any, body: Body, *, call: Any = inline, has_clinic: bool = True) -> Uplink:
    """Run hub and clinic around `body`, which gets the link, not yet connected."""

    async def main() -> Uplink:
        link = house.link
        uplink = Uplink(house.outbox, link.hub, hub=HUB, call=call)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(uplink.run())]
            if has_clinic:
                running.append(tasks.create_task(run_ingest(house.store, link.clinic, lambda: None, now_us=lambda: 7)))
            await body(link, uplink)
            for task in running:
                task.cancel()
        return uplink

    return run(main())


async def until(condition: Callable[[], bool], limit_s: float = 600.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _link(house: Any, make_link: Callable[[], Any]) -> None:
    house.link = make_link()


def lanes_sent(link: Any) -> list[str]:
    return [message.topic.rsplit("/", 1)[1] for message in link.sent if "/up/" in message.topic]


def blocks_in(message: Message) -> list[tuple[str, int]]:
    headers = [parse_header(block) for block in decode_envelope(message.payload).blocks]
    return [(header.lane, header.seq) for header in headers]


def test_a_backlog_larger_than_the_window_arrives_once(house: Any) -> None:
    plaintexts = [b"%04d" % i + bytes(2000) for i in range(3 * IN_FLIGHT_BYTES // 2000)]
    house.outbox.put_many([("wave", plaintext) for plaintext in plaintexts])

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await until(house.is_drained)

    uplink = live(house, body)
    assert house.opened() == plaintexts
    assert (uplink.statistics.blocks_sent, uplink.statistics.blocks_acked) == (len(plaintexts), len(plaintexts))
    assert uplink.statistics.resent == 0
    assert max(len(message.payload) for message in house.link.sent) <= 64 * 1024


def test_new_blocks_go_out_when_woken(house: Any) -> None:
    async def body(link: Any, uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(1)
        house.outbox.put("vital", b"a")
        uplink.wake()
        await asyncio.sleep(0.001)
        assert house.is_drained()

    live(house, body)
    assert house.opened() == [b"a"]


@pytest.mark.parametrize("direction", ["/up/", "/down/"])
def test_every_other_message_lost_either_way_is_made_good(house: Any, direction: str) -> None:
    house.outbox.put_many([("vital", b"%d" % i + bytes(20_000)) for i in range(20)])
    count = iter(range(10**6))
    house.link.loses = lambda message: direction in message.topic and next(count) % 2 == 0

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await until(house.is_drained)

    uplink = live(house, body)
    assert sorted(house.opened()) == sorted(b"%d" % i + bytes(20_000) for i in range(20))
    assert uplink.statistics.resent > 0
    assert uplink.statistics.blocks_acked == 20


def test_cuts_at_any_moment_lose_and_repeat_nothing(house: Any) -> None:
    count = 0

    async def put(uplink: Uplink) -> None:
        nonlocal count
        for _ in range(100):
            house.outbox.put_many([("vital", b"v%d" % count), ("wave", b"w%d" % count + bytes(3000))])
            count += 1
            uplink.wake()
            await asyncio.sleep(0.1)

    async def body(link: Any, uplink: Uplink) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(put(uplink))
            for pause in range(1, 8):
                link.connect()
                await asyncio.sleep(0.17 * pause)
                link.cut()
                await asyncio.sleep(0.1 * pause)
        link.connect()
        await until(house.is_drained)

    live(house, body)
    opened = house.opened()
    assert len(opened) == len(set(opened)) == 200
    assert house.store.advance(HUB, "vital", house.outbox.epoch).seq == 100


def test_alerts_overtake_and_live_overtakes_backlog(house: Any) -> None:
    house.outbox.put_many([("wave", bytes(20_000))] * 40 + [("vital", b"old"), ("alert", b"old")])

    async def body(link: Any, uplink: Uplink) -> None:
        def put_at_fourth_message(_message: Message) -> bool:
            if len(lanes_sent(link)) == 4 and house.outbox.last_position("alert")[1] == 1:
                house.outbox.put_many([("wave", b"new"), ("alert", b"new")])
                uplink.wake()
            return False

        link.loses = put_at_fourth_message
        link.connect()
        await until(house.is_drained)

    live(house, body)
    sent = [blocks_in(message) for message in house.link.sent if "/up/" in message.topic]
    assert sent[:2] == [[("alert", 1)], [("vital", 1)]]
    assert sent[4:6] == [[("alert", 2)], [("wave", 41)]]


def test_alerts_do_not_wait_for_an_answer(house: Any) -> None:
    async def body(link: Any, uplink: Uplink) -> None:
        link.connect()
        house.outbox.put("wave", bytes(50_000))
        uplink.wake()
        await asyncio.sleep(0.1)
        house.outbox.put_many([("wave", b"waits"), ("alert", b"goes")])
        uplink.wake()
        await asyncio.sleep(0.1)
        assert lanes_sent(link) == ["wave", "alert"]

    live(house, body, has_clinic=False)


def test_a_silent_clinic_is_asked_ever_more_rarely_with_one_message(house: Any) -> None:
    house.outbox.put_many([("wave", bytes(40_000))] * 20)

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(3600)

    uplink = live(house, body, has_clinic=False)
    first, longest = ACK_TIMEOUT_S
    assert {tuple(blocks_in(message)) for message in house.link.sent} == {(("wave", 1),)}
    assert 3600 / longest <= len(house.link.sent) <= 3600 / longest + longest / first
    assert uplink.statistics.blocks_acked == 0
    assert house.outbox.statistics().pending["wave"] == 20


def test_keys_travel_until_held_and_again_after_the_clinic_lost_its_store(house: Any) -> None:
    house.outbox.put("vital", b"a")

    async def body(link: Any, uplink: Uplink) -> None:
        link.connect()
        await until(house.is_drained)
        house.outbox.put("vital", b"b")
        uplink.wake()
        await until(house.is_drained)
        house.store.close()
        for file in house.folder.glob("store.db*"):
            file.unlink()
        fresh = Store.open(house.folder / "store.db")
        house.store.__dict__.update(fresh.__dict__)
        house.outbox.put("vital", b"c")
        uplink.wake()
        await until(house.is_drained)

    live(house, body)
    keys = [len(decode_envelope(message.payload).keys) for message in house.link.sent if "/up/" in message.topic]
    assert keys == [1, 0, 0, 1]
    assert house.opened() == [b"c"]


def test_sparse_readings_of_a_hundred_days_fit_into_messages(house: Any) -> None:
    for _ in range(100):
        house.sealed_at_s[0] += 86_400
        house.outbox.put("vital", b"weight")

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await until(house.is_drained)

    live(house, body)
    assert house.opened() == [b"weight"] * 100


def test_the_archive_stays(house: Any) -> None:
    house.outbox.put_many([("archive", b"stays"), ("wave", b"goes")])

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(100)

    live(house, body)
    assert house.opened() == [b"goes"]
    assert house.outbox.statistics().pending["archive"] == 1


def test_what_no_acknowledgement_covers_is_never_deleted(house: Any) -> None:
    """Malformed, foreign and outdated acknowledgements, and ones of other lanes and epochs."""
    house.outbox.put_many([("vital", b"a")] * 3)
    epoch = house.outbox.epoch
    others = [
        b"",
        b"\xa0",
        encode_ack(Ack("hub-2", "main", 1, (Mark("vital", epoch, 3),))),
        encode_ack(Ack(HUB, "main", 5, (Mark("wave", epoch, 3), Mark("vital", epoch - 1, 3), Mark("vital", epoch, 0)))),
        encode_ack(Ack(HUB, "main", 4, (Mark("vital", epoch, 3),))),
    ]

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        for payload in others:
            await link.clinic.publish(ack_topic(HUB), payload)
        await link.clinic.publish("pulsegate/v1/hub-1/down/other", others[-1])
        await asyncio.sleep(0.1)

    uplink = live(house, body, has_clinic=False)
    assert house.outbox.statistics().pending["vital"] == 3
    assert uplink.statistics.malformed_acks == 3


def test_what_the_clinic_holds_in_quarantine_is_held(house: Any) -> None:
    house.outbox.put_many([("vital", b"a")] * 2)

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        rejected = (Rejected("vital", house.outbox.epoch, 1, "conflict"),)
        await link.clinic.publish(ack_topic(HUB), encode_ack(Ack(HUB, "main", 1, rejected=rejected)))
        await asyncio.sleep(0.1)

    uplink = live(house, body, has_clinic=False)
    assert uplink.statistics.rejected == 1
    assert [block.id.seq for block in house.outbox.pending("vital", (0, 0), 10**6)] == [2]


@pytest.mark.parametrize("failing", ["pending", "acknowledge", "keys_for", "last_position", "mark_keys_held"])
def test_a_storage_failure_that_passes_delays_and_loses_nothing(house: Any, failing: str) -> None:
    house.outbox.put_many([("vital", b"a"), ("wave", b"b")])
    failures = iter([True, True])

    async def call(function: Callable[..., Any], /, *values: Any) -> Any:
        name = "keys_for" if function.__name__ == "_keys" else function.__name__
        if name == failing and next(failures, False):
            raise Transient("locked")
        return function(*values)

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await until(house.is_drained)

    uplink = live(house, body, call=call)
    assert sorted(house.opened()) == [b"a", b"b"]
    assert uplink.statistics.problem == "locked"


def test_a_damaged_outbox_ends_the_uplink(house: Any) -> None:
    async def call(_function: Callable[..., Any], /, *_values: Any) -> Any:
        raise Permanent("damaged")

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(10)

    with pytest.raises(ExceptionGroup) as caught:
        live(house, body, call=call)
    assert caught.group_contains(Permanent, match="damaged")


def test_a_clinics_storage_failure_that_passes_is_made_good_by_the_hub(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house.outbox.put("alert", b"a")
    failures = iter([True, True])

    def failing_take(*values: Any) -> Any:
        if next(failures, False):
            raise Transient("the disk is full")
        return take(*values)

    monkeypatch.setattr("cloud.ingest.take", failing_take)

    async def body(link: Any, _uplink: Uplink) -> None:
        link.connect()
        await until(house.is_drained)

    uplink = live(house, body)
    assert house.opened() == [b"a"]
    assert uplink.statistics.resent == 2
