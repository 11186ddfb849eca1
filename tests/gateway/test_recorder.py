"""The recorder and its cancellation: what is being written is written once, what was taken is never forgotten."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pytest

from gateway.recorder import HELD_LIMIT, Recorder, lane_of
from gateway.uninterrupted import uninterrupted
from sync.errors import Transient
from sync.records import AlertRecord, Record, Times, VitalRecord, WaveformRecord, decode
from sync.wire import Lane

T = TypeVar("T")
TIMES = Times(1, 1, 1)
ALERT = AlertRecord("id", "strap", "af", "medium", 1, None, 1, "rule", ())


def vital(value: float) -> VitalRecord:
    return VitalRecord("strap", "heart_rate", TIMES, value)


class Disk:
    """An outbox that stores, waits for `gate`, or is full."""

    def __init__(self) -> None:
        self.stored: list[tuple[Lane, bytes]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.full = False

    def put_many(self, blocks: Iterable[tuple[Lane, bytes]], state: Mapping[str, bytes] | None = None) -> list[object]:
        self.gate.wait(10)
        if self.full:
            raise Transient("no room left")
        self.stored.extend(blocks)
        return []

    def records(self) -> list[Record]:
        return [record for _, plaintext in self.stored for record in decode(plaintext)]


async def inline(function: Callable[..., T], *arguments: object) -> T:
    return function(*arguments)


def test_a_cancelled_flush_is_not_written_twice() -> None:
    disk = Disk()

    async def scene() -> None:
        with ThreadPoolExecutor(1) as executor:

            async def call(function: Callable[..., T], *arguments: object) -> T:
                return await asyncio.get_running_loop().run_in_executor(executor, lambda: function(*arguments))

            recorder = Recorder(disk, call, lambda: None)
            disk.gate.clear()
            adding = asyncio.create_task(recorder.add((ALERT,), {}))
            await asyncio.sleep(0)
            adding.cancel()
            disk.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await adding
            assert await recorder.flush()

    asyncio.run(scene())
    assert disk.records() == [ALERT]


def test_uninterrupted_work_ends_before_the_cancellation_does() -> None:
    done: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.append("work")
        return "result"

    async def scene() -> None:
        task = asyncio.create_task(uninterrupted(work()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done.append("cancelled")
        assert await uninterrupted(work()) == "result"

    asyncio.run(scene())
    assert done == ["work", "cancelled", "work"]


def test_a_full_disk_keeps_records_in_order_and_stops_intake_until_the_agent_ends() -> None:
    disk = Disk()
    disk.full = True

    async def scene() -> None:
        recorder = Recorder(disk, inline, lambda: None)
        await recorder.add([vital(number) for number in range(HELD_LIMIT)], {})
        assert not await recorder.flush()
        waiting = asyncio.create_task(recorder.add((vital(-1),), {}))
        await asyncio.sleep(0)
        assert not waiting.done()
        recorder.stop_waiting()
        await waiting
        disk.full = False
        assert await recorder.flush()
        assert recorder.counters.failed_writes == 1

    asyncio.run(scene())
    assert [record.value for record in disk.records() if isinstance(record, VitalRecord)] == [*range(HELD_LIMIT), -1]


def test_each_record_has_its_lane() -> None:
    wave = WaveformRecord("strap", "ecg", TIMES, 130.0, 0.001, np.zeros(1, np.int32))
    assert [lane_of(record) for record in (ALERT, vital(1), wave)] == ["alert", "vital", "wave"]
