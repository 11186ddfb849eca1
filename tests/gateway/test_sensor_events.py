"""The bounded queue of a sensor's events: what it keeps when it is full, and how it tells what it dropped."""

import asyncio

import pytest

from gateway.sensor_events import (
    QUEUE_LIMIT,
    QUEUE_RESERVE,
    EventQueue,
    Interruption,
    LinkStateChange,
    Notification,
    Overflow,
    SensorEvent,
)
from gateway.timeline import Arrival

EVERYTHING = QUEUE_LIMIT + QUEUE_RESERVE + 10


def at(number: int) -> Arrival:
    return Arrival(number * 1000, number * 1_000_000)


def streamed(number: int) -> Notification:
    return Notification("ecg", b"", (), at(number))


def fill(queue: EventQueue, count: int = QUEUE_LIMIT) -> list[SensorEvent]:
    events: list[SensorEvent] = [streamed(number) for number in range(count)]
    for event in events:
        assert isinstance(event, Notification)
        queue.put(event)
    return events


def test_a_full_queue_counts_what_it_drops_in_one_event_behind_what_it_holds() -> None:
    queue = EventQueue()
    held = fill(queue)
    for number in (5001, 5002, 5003):
        queue.put(streamed(number))
    assert [queue.get_nowait(), *queue.drain(EVERYTHING)] == [*held, Overflow(3, at(5001))]
    assert queue.dropped == 3
    queue.put(streamed(6000))
    assert queue.drain(EVERYTHING) == [streamed(6000)]


def test_a_full_queue_keeps_indicated_readings_interruptions_and_states() -> None:
    queue = EventQueue()
    held = fill(queue)
    kept = [
        Notification("cuff", b"", (), at(5001), is_indicated=True),
        Interruption("lost", at(5002)),
        LinkStateChange("backing_off", at(5002)),
    ]
    queue.put(streamed(5000))
    for event in kept:
        queue.put(event)
    assert queue.drain(EVERYTHING) == [*held, *kept, Overflow(1, at(5000))]


def test_a_full_reserve_keeps_the_last_state_and_the_count() -> None:
    queue = EventQueue()
    fill(queue)
    fill_reserve = [Interruption("lost", at(number)) for number in range(QUEUE_RESERVE)]
    for event in fill_reserve:
        queue.put(event)
    queue.put(Interruption("lost", at(7000)))
    queue.put(LinkStateChange("backing_off", at(7001)))
    queue.put(Notification("cuff", b"", (), at(7002), is_indicated=True))
    queue.put(LinkStateChange("absent", at(7003)))
    assert queue.drain(EVERYTHING)[-1] == Overflow(1, at(7000), "absent")


def test_get_waits_for_an_event() -> None:
    async def main() -> None:
        queue = EventQueue()
        assert queue.empty()
        with pytest.raises(asyncio.QueueEmpty):
            queue.get_nowait()
        asyncio.get_running_loop().call_soon(queue.put, streamed(1))
        assert await queue.get() == streamed(1)

    asyncio.run(main())
