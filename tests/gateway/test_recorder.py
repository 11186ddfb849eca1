"""When the recorder writes, and that it writes every accepted record exactly once, cancelled or with a full disk."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pytest

from drivers.kinds import KINDS
from drivers.weighing import BODY_KINDS
from gateway import virtual_time
from gateway.buffer_alert import BufferAlert
from gateway.cancellation import finish_despite_cancel
from gateway.clock import SystemClock
from gateway.recorder import BLOCK_BYTES, LIVE_LIMIT_S, PENDING_LIMIT, Recorder, lane_of
from sync.errors import TransientError
from sync.record_codec import MAX_RECORDS, decode_records
from sync.records import AlertRecord, Record, Times, VitalRecord, WaveformRecord
from sync.wire import PLAINTEXT_LIMIT_BYTES, Lane
from tests.gateway.list_outbox import ListOutbox, call_inline

T = TypeVar("T")
TIMES = Times(1, 1, 1)
ALERT = AlertRecord("id", "strap", "af", "medium", 1, None, 1, "rule", ())


def vital(value: float) -> VitalRecord:
    return VitalRecord("strap", "heart_rate", TIMES, value)


class FakeOutbox(ListOutbox):
    """An outbox that stores blocks, waits for `gate`, or fails because the disk is full."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.is_full = False

    def put_many(self, blocks: Iterable[tuple[Lane, bytes]], state: Mapping[str, bytes] | None = None) -> list[object]:
        self.gate.wait(10)
        if self.is_full:
            raise TransientError("disk full")
        return super().put_many(blocks, state)


def test_writes_a_cancelled_flush_only_once() -> None:
    outbox = FakeOutbox()

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:

            async def call(function: Callable[..., T], *arguments: object) -> T:
                return await asyncio.get_running_loop().run_in_executor(executor, lambda: function(*arguments))

            recorder = Recorder(outbox, call, lambda: None, BufferAlert(SystemClock()))
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
        recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(SystemClock()))
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
        recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(SystemClock()))
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
        recorder = Recorder(outbox, call, lambda: None, BufferAlert(SystemClock()))
        first, second = [vital(number) for number in range(3)], [vital(number) for number in range(3, 5)]
        await recorder.add(first, {})
        assert not await recorder.flush()
        await recorder.add(second, {})
        assert not await recorder.flush()
        outbox.is_full = False
        assert await recorder.flush()
        encoded = [arguments for name, arguments in calls if name == "_encode_batch"]
        assert encoded == [[("vital", record) for record in records] for records in (first, second)]
        assert [name for name, _ in calls].count("_put_batch") == 4

    asyncio.run(main())
    assert [record.value for record in outbox.records() if isinstance(record, VitalRecord)] == [0, 1, 2, 3, 4]


def noise(frames: int, samples: int = 73) -> list[Record]:
    rng = np.random.default_rng(1)
    return [
        WaveformRecord("strap", "ecg", TIMES, 130.0, 0.001, rng.integers(-4000, 4000, samples, np.int32)) for _ in range(frames)
    ]


def write(records: Sequence[Record]) -> FakeOutbox:
    """The outbox after one commit of these records."""
    outbox = FakeOutbox()

    async def main() -> None:
        recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(SystemClock()))
        await recorder.add(records, {})
        assert await recorder.flush()

    asyncio.run(main())
    return outbox


def test_divides_a_backlog_into_blocks_that_a_slow_link_sends_within_a_second() -> None:
    waves = noise(1000)
    outbox = write([*waves, *map(vital, range(900))])
    assert {lane for lane, _ in outbox.blocks} == {"wave", "vital"}
    assert all(len(plaintext) <= BLOCK_BYTES for _, plaintext in outbox.blocks)
    stored = [record for record in outbox.records() if isinstance(record, WaveformRecord)]
    assert [record.samples.tolist() for record in stored] == [
        wave.samples.tolist() for wave in waves if isinstance(wave, WaveformRecord)
    ]
    assert [record.value for record in outbox.records() if isinstance(record, VitalRecord)] == [*range(900)]


def test_a_record_that_is_longer_than_a_block_should_be_has_a_block_of_its_own() -> None:
    outbox = write([*noise(2), *noise(1, samples=5000), *noise(2)])
    sizes = [len(plaintext) for _, plaintext in outbox.blocks]
    assert [len(decode_records(plaintext)) for _, plaintext in outbox.blocks if len(plaintext) > BLOCK_BYTES] == [1]
    assert BLOCK_BYTES < max(sizes) < PLAINTEXT_LIMIT_BYTES
    assert len(outbox.records()) == 5


def commit_seconds(script: Callable[[Recorder], Awaitable[None]], seconds: float) -> list[float]:
    """The virtual times of all commits while a heart rate arrives four times a second and `script` runs."""
    commits: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        recorder = Recorder(
            FakeOutbox(), call_inline, lambda: commits.append(round(loop.time(), 3)), BufferAlert(SystemClock())
        )

        async def receive() -> None:
            while True:
                await asyncio.sleep(0.25)
                await recorder.add((vital(60),), {})

        tasks = [asyncio.create_task(work) for work in (recorder.run(), receive(), script(recorder))]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[2] is None

    virtual_time.run(main())
    return commits


async def nothing(_recorder: Recorder) -> None:
    pass


def alert(priority: str = "high", end_us: int | None = None, id_: str = "id") -> AlertRecord:
    return AlertRecord(id_, "strap", "vt", priority, 1, end_us, 1, "rule", ())


def adding_alerts(*alerts: tuple[float, AlertRecord]) -> Callable[[Recorder], Awaitable[None]]:
    """A script that adds alerts, each so many seconds after the one before."""

    async def script(recorder: Recorder) -> None:
        for pause_s, record in alerts:
            await asyncio.sleep(pause_s)
            await recorder.add((record,), {})

    return script


def test_streamed_records_are_written_every_ten_seconds() -> None:
    assert commit_seconds(nothing, 45) == [10, 20, 30, 40]


@pytest.mark.parametrize("priority", ["low", "medium"])
def test_an_alert_of_lower_priority_is_written_at_once_and_changes_nothing_else(priority: str) -> None:
    assert commit_seconds(adding_alerts((13.1, alert(priority))), 45) == [10, 13.1, 20, 30, 40]


def test_ten_minutes_from_a_high_alert_on_records_are_written_every_second() -> None:
    commits = commit_seconds(adding_alerts((13.1, alert())), 650)
    after = [second for second in commits if second > 13.1]
    assert commits[:2] == [10, 13.1]
    assert np.diff([13.1, *after[:600]]) == pytest.approx(1.0)
    assert np.diff(after[600:]) == pytest.approx(10.0)
    assert after[599] == pytest.approx(613.1)


@pytest.mark.parametrize(
    ("alerts", "live_until_s"),
    [
        ([(5, alert()), (300, alert()), (1, alert(end_us=2))], 605),  # repeated, and ended
        ([(5, alert(end_us=2))], 5),  # over before anybody was told
        ([(5, alert("medium")), (300, alert("high"))], 905),  # worsened
        ([(5, alert()), (300, replace(alert(), raised_us=9))], 905),  # raised again
        ([(5, alert()), (100, alert(end_us=2)), (100, alert(id_="second"))], 805),
        ([(5, alert()), (100, alert(id_="second"))], 705),
        ([(5, alert()), (1, alert(id_="second")), (10, alert(end_us=2)), (500, alert(id_="second"))], 606),
    ],
)
def test_only_a_new_or_worsened_high_alert_makes_the_live_time_longer(
    alerts: list[tuple[float, AlertRecord]], live_until_s: float
) -> None:
    commits = commit_seconds(adding_alerts(*alerts), 1000)
    pauses = list(pairwise([second for second in commits if second > 400]))
    last_live = max((later for earlier, later in pauses if later - earlier <= 1.0), default=None)
    assert last_live == (pytest.approx(live_until_s, abs=1.0) if live_until_s > 400 else None)


def test_while_someone_watches_records_are_written_every_second() -> None:
    async def script(recorder: Recorder) -> None:
        await asyncio.sleep(12.1)
        recorder.watch_live(5)
        await asyncio.sleep(3)
        recorder.watch_live(4)  # the next acknowledgement

    commits = commit_seconds(script, 35)
    assert commits == pytest.approx([10, 12.1, 13.1, 14.1, 15.1, 16.1, 17.1, 18.1, 19.1, 29.1], abs=0.01)


def test_watching_is_bounded_and_repeated_calls_do_not_make_commits() -> None:
    async def script(recorder: Recorder) -> None:
        recorder.watch_live(float("inf"))
        for _ in range(100):
            await asyncio.sleep(0.1)
            recorder.watch_live(1)

    commits = commit_seconds(script, LIVE_LIMIT_S + 60)
    assert [second for second in commits if second <= 10] == pytest.approx(range(1, 11))
    assert len([second for second in commits if second > LIVE_LIMIT_S + 1]) <= 6


def test_the_time_to_the_next_commit_ends_when_pending_records_reach_their_limit() -> None:
    async def script(recorder: Recorder) -> None:
        await asyncio.sleep(3.1)
        await recorder.add([vital(number) for number in range(PENDING_LIMIT)], {})
        await recorder.add((vital(0),), {})  # waits only for the write

    assert commit_seconds(script, 12)[0] == 3.1


def test_a_spot_reading_and_everything_before_it_is_durable_when_add_returns() -> None:
    spot = VitalRecord("cuff", "systolic", TIMES, 120)
    outbox = FakeOutbox()

    async def main() -> None:
        recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(SystemClock()))
        await recorder.add((vital(60), VitalRecord("oximeter", "of_a_newer_version", TIMES, 1)), {})
        assert outbox.records() == []
        await recorder.add((spot,), {})

    asyncio.run(main())
    assert outbox.records()[-1] == spot
    assert len(outbox.records()) == 3


def test_spot_kinds_are_what_a_person_measures_on_demand() -> None:
    spot = {name for name, kind in KINDS.items() if kind.is_spot}
    pressure = {"systolic", "diastolic", "mean_pressure", "pulse_rate_cuff"}
    assert spot == pressure | {"weight", "temperature", "height", "bmi"} | BODY_KINDS


def test_divides_a_backlog_into_blocks_of_as_many_records_as_the_clinic_reads() -> None:
    outbox, values = FakeOutbox(), list(range(2 * MAX_RECORDS + 1))

    async def main() -> None:
        recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(SystemClock(), None))
        recorder.stop_blocking()
        await recorder.add([vital(value) for value in values], {})
        assert await recorder.flush()

    asyncio.run(main())
    assert len(outbox.blocks) == 3
    assert [record.value for record in outbox.records() if isinstance(record, VitalRecord)] == values


def test_chooses_the_lane_by_the_type_of_record() -> None:
    wave = WaveformRecord("strap", "ecg", TIMES, 130.0, 0.001, np.zeros(1, np.int32))
    assert [lane_of(record) for record in (ALERT, vital(1), wave)] == ["alert", "vital", "wave"]
