"""Messages in tracks: alerts wait for nothing else, live data not for a backlog, and a group is bounded."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cloud.ingest import run_ingest
from cloud.tracks import GROUP_BYTES, GROUP_MESSAGES, LIVE_BYTES, WAITING_LIMIT, Track, Tracks
from sync.messages import decode_ack
from sync.mqtt import Message
from sync.wire import MESSAGE_LIMIT_BYTES, Lane, status_topic, up_topic
from tests.cloud_ingest.ingest_testbed import ACK_KEY, NOW_US, Receiver, SendingHub
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
SMALL, LARGE = b"s", bytes(LIVE_BYTES + 1)


def message(lane: Lane, payload: bytes = SMALL, hub: str = "hub-1") -> Message:
    return Message(up_topic(hub, lane), payload)


def take(track: Track) -> list[Message]:
    return asyncio.run(track.take_group())


def test_alerts_live_data_and_the_rest_have_tracks_of_their_own() -> None:
    tracks, status = Tracks(), Message(status_topic("hub-1"), SMALL)
    sent = [message("wave", LARGE), message("vital", LARGE), status, message("wave"), message("alert", LARGE), message("alert")]
    for one in sent:
        tracks.add(one)
    assert take(tracks.alert) == sent[4:]
    assert take(tracks.live) == [sent[3]]
    assert take(tracks.bulk) == sent[:3]


def test_a_group_is_bounded_by_its_bytes_and_its_messages() -> None:
    track, largest = Track(), message("wave", bytes(MESSAGE_LIMIT_BYTES))
    n = GROUP_BYTES // MESSAGE_LIMIT_BYTES
    for _ in range(n + 1):
        track.add(largest)
    assert [len(take(track)) for _ in range(2)] == [n, 1]
    for _ in range(GROUP_MESSAGES + 1):
        track.add(message("vital"))
    assert [len(take(track)) for _ in range(2)] == [GROUP_MESSAGES, 1]


def test_a_message_that_is_larger_than_a_group_is_a_group() -> None:
    track = Track()
    for size in (1, GROUP_BYTES + 1, 1):
        track.add(message("wave", bytes(size)))
    assert [[len(one.payload) for one in take(track)] for _ in range(3)] == [[1], [GROUP_BYTES + 1], [1]]


def test_when_too_many_wait_the_oldest_of_the_least_urgent_is_dropped() -> None:
    tracks, first, second = Tracks(), message("wave", LARGE, "hub-1"), message("wave", LARGE, "hub-2")
    for one in (first, second, message("alert")):
        tracks.add(one)
    for _ in range(WAITING_LIMIT - 2):
        tracks.add(message("vital"))
    assert tracks.n_dropped == 1
    assert take(tracks.bulk) == [second]
    for _ in range(WAITING_LIMIT):
        tracks.add(message("vital"))
    assert tracks.alert.n_waiting == 1
    assert tracks.live.n_waiting == WAITING_LIMIT - 1


def test_hubs_wait_for_tracks_in_which_messages_wait() -> None:
    tracks = Tracks()
    for track in tracks.all:
        for _ in range(100):
            track.pressure.note(2.0)
    assert tracks.retry_after_s() == 0
    tracks.add(message("alert"))
    assert tracks.retry_after_s() == 0  # no hub holds back an alert
    tracks.add(message("wave", LARGE))
    assert tracks.retry_after_s() == 4
    take(tracks.bulk)
    assert tracks.retry_after_s() == 4  # it is being handled


def test_alerts_and_live_data_do_not_wait_for_the_group_under_way(clinic: Receiver, make_link: Callable[[], Any]) -> None:
    """The backlog is never finished here; the others are answered meanwhile."""
    link, hub = make_link(), SendingHub("hub-1", "subject-1").register(clinic.registry)
    sizes = list[int]()

    async def call(function: Callable[..., Any], /, *values: Any) -> Any:
        messages = values[3]
        sizes.append(len(messages))
        if any(len(one.payload) > LIVE_BYTES for one in messages):
            await asyncio.Event().wait()
        return function(*values)

    async def scenario() -> list[Any]:
        link.connect()
        ingest = run_ingest(clinic.store, clinic.registry, ACK_KEY, link.clinic, lambda: None, now_us=lambda: NOW_US, call=call)
        running = asyncio.create_task(ingest)
        await link.hub.receive()
        backlog = [hub.message(*hub.seal(1, "wave", plaintext=bytes(2 * LIVE_BYTES))) for _ in range(3)]
        for one in backlog:
            await link.hub.publish(one.topic, one.payload)
        answers = []
        for lane in ("vital", "alert", "wave"):
            one = hub.message(*hub.seal(1, lane))
            await link.hub.publish(one.topic, one.payload)
            answers.append(await link.hub.receive())
        running.cancel()
        return answers

    acks = [decode_ack(answer.payload, ACK_KEY.public) for answer in asyncio.run(scenario())]
    assert [row.lane for ack in acks for row in ack.held] == ["vital", "alert", "wave"]
    assert sorted(sizes) == [1, 1, 1, 3]


def test_the_tracks_of_one_hub_share_a_store(
    clinic: Receiver, make_link: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """In threads, as in production: each message is answered once, and no transaction fails because of another track."""
    link, hub = make_link(), SendingHub("hub-1", "subject-1").register(clinic.registry)
    sent = [hub.message(*hub.seal(2, lane), lane=lane) for _ in range(15) for lane in ("alert", "vital")]
    large = [hub.message(*hub.seal(3, "wave", plaintext=bytes(LIVE_BYTES)), lane="wave") for _ in range(15)]

    async def scenario() -> list[Any]:
        link.connect()
        ingest = run_ingest(clinic.store, clinic.registry, ACK_KEY, link.clinic, lambda: None, now_us=lambda: NOW_US)
        running = asyncio.create_task(ingest)
        await link.hub.receive()
        for one in (*sent, *large):
            await link.hub.publish(one.topic, one.payload)
            await asyncio.sleep(0)
        answers = [await link.hub.receive() for _ in (*sent, *large)]
        running.cancel()
        return answers

    acks = [decode_ack(answer.payload, ACK_KEY.public) for answer in asyncio.run(scenario())]
    assert len({row for ack in acks for row in ack.held}) == 45
    marks = {
        mark.lane: max(ack_mark.seq for ack in acks for ack_mark in ack.marks if ack_mark.lane == mark.lane)
        for ack in acks
        for mark in ack.marks
    }
    assert marks == {"alert": 30, "vital": 30, "wave": 45}
    assert not caplog.records
