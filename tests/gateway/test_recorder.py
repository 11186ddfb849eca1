"""The recorder under cancellation and with a full disk: every accepted record is written exactly once."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pytest

from gateway.cancellation import finish_despite_cancel
from gateway.recorder import PENDING_LIMIT, Recorder, lane_of
from sync.errors import TransientError
from sync.outbox import PLAINTEXT_LIMIT_BYTES
from sync.record_codec import MAX_RECORDS, decode_records
from sync.records import AlertRecord, Record, Times, VitalRecord, WaveformRecord
from sync.wire import Lane

T = TypeVar("T")
TIMES = Times(1, 1, 1)
ALERT = AlertRecord("id", "strap", "af", "medium", 1, None, 1, "rule", ())


def vital(value: float) -> VitalRecord:
    return VitalRecord("strap", "heart_rate", TIMES, value)


class FakeOutbox:
    """An outbox that stores blocks, waits for `gate`, or fails because the disk is full."""

    def __init__(self) -> None:
        self.stored: list[tuple[Lane, bytes]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_full = False

    def put_many(self, blocks: Iterable[tuple[Lane, bytes]], state: Mapping[str, bytes] | None = None) -> list[object]:
        self.gate.wait(10)
        if self.is_full:
            raise TransientError("disk full")
        self.stored.extend(blocks)
        return []

    def records(self) -> list[Record]:
        return [record for _, plaintext in self.stored for record in decode_records(plaintext)]


async def call_inline(function: Callable[..., T], *arguments: object) -> T:
    return function(*arguments)


def test_writes_a_cancelled_flush_only_once() -> None:
    outbox = FakeOutbox()

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:

            async def call(function: Callable[..., T], *arguments: object) -> T:
                return await asyncio.get_running_loop().run_in_executor(executor, lambda: function(*arguments))

            recorder = Recorder(outbox, call, lambda: None)
            outbox.gate.clear()
            adding = asyncio.create_task(recorder.add((ALERT,), {}))
            await asyncio.sleep(0)
            adding.cancel()
            outbox.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await adding
            assert await recorder.flush()

    asyncio.run(main())
    assert outbox.records() == [ALERT]


def test_finishes_the_work_before_raising_the_cancellation() -> None:
    done: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.append("work")
        return "result"

    async def main() -> None:
        task = asyncio.create_task(finish_despite_cancel(work()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done.append("cancelled")
        assert await finish_despite_cancel(work()) == "result"

    asyncio.run(main())
    assert done == ["work", "cancelled", "work"]


def test_a_full_disk_keeps_records_in_order_and_blocks_add_until_the_agent_stops() -> None:
    outbox = FakeOutbox()
    outbox.is_full = True

    async def main() -> None:
        recorder = Recorder(outbox, call_inline, lambda: None)
        await recorder.add([vital(number) for number in range(PENDING_LIMIT)], {})
        assert not await recorder.flush()
        waiting = asyncio.create_task(recorder.add((vital(-1),), {}))
        await asyncio.sleep(0)
        assert not waiting.done()
        recorder.stop_blocking()
        await waiting
        outbox.is_full = False
        assert await recorder.flush()
        assert recorder.counters.failed_writes == 1

    asyncio.run(main())
    assert [record.value for record in outbox.records() if isinstance(record, VitalRecord)] == [*range(PENDING_LIMIT), -1]


def test_a_full_disk_and_its_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    outbox = FakeOutbox()

    async def main() -> None:
        recorder = Recorder(outbox, call_inline, lambda: None)
        for is_full in (False, True, True, False, False):
            outbox.is_full = is_full
            await recorder.add((vital(60),), {})
            await recorder.flush()

    with caplog.at_level("INFO"):
        asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "cannot store readings, keeping them in memory: disk full",
        "readings are stored again",
    ]


def test_encodes_on_the_storage_thread_and_only_once_if_the_disk_is_full() -> None:
    outbox = FakeOutbox()
    outbox.is_full = True
    calls: list[tuple[str, object]] = []

    async def call(function: Callable[..., T], *arguments: object) -> T:
        calls.append((function.__name__, arguments[0]))
        return function(*arguments)

    async def main() -> None:
        recorder = Recorder(outbox, call, lambda: None)
        first, second = [vital(number) for number in range(3)], [vital(number) for number in range(3, 5)]
        await recorder.add(first, {})
        assert not await recorder.flush()
        await recorder.add(second, {})
        assert not await recorder.flush()
        outbox.is_full = False
        assert await recorder.flush()
        assert [arguments for name, arguments in calls if name == "_encode_blocks"] == [first, second]
        assert [name for name, _ in calls].count("put_many") == 4

    asyncio.run(main())
    assert [record.value for record in outbox.records() if isinstance(record, VitalRecord)] == [0, 1, 2, 3, 4]


def test_divides_a_backlog_into_blocks_that_fit() -> None:
    outbox, rng = FakeOutbox(), np.random.default_rng(1)
    waves = [WaveformRecord("strap", "ecg", TIMES, 130.0, 0.001, rng.integers(-4000, 4000, 73, np.int32)) for _ in range(1000)]

    async def main() -> None:
        recorder = Recorder(outbox, call_inline, lambda: None)
        await recorder.add(waves, {})
        assert await recorder.flush()

    asyncio.run(main())
    assert all(len(plaintext) <= PLAINTEXT_LIMIT_BYTES for _, plaintext in outbox.stored)
    stored = [record for record in outbox.records() if isinstance(record, WaveformRecord)]
    assert [record.samples.tolist() for record in stored] == [wave.samples.tolist() for wave in waves]


def test_divides_a_backlog_into_blocks_of_as_many_records_as_the_clinic_reads() -> None:
    outbox, values = FakeOutbox(), list(range(2 * MAX_RECORDS + 1))

    async def main() -> None:
        recorder = Recorder(outbox, call_inline, lambda: None)
        recorder.stop_blocking()
        await recorder.add([vital(value) for value in values], {})
        assert await recorder.flush()

    asyncio.run(main())
    assert len(outbox.stored) == 3
    assert [record.value for record in outbox.records() if isinstance(record, VitalRecord)] == values


def test_chooses_the_lane_by_the_type_of_record() -> None:
    wave = WaveformRecord("strap", "ecg", TIMES, 130.0, 0.001, np.zeros(1, np.int32))
    assert [lane_of(record) for record in (ALERT, vital(1), wave)] == ["alert", "vital", "wave"]
