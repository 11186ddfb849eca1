"""Continuous values that raise no alert wait in memory and are processed together: none is lost, late or out of order."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from config.limits import DEFAULT_LIMITS
from config.settings import SensorSettings
from drivers.readings import Intervals, Origin, Reading, Vital
from drivers.registry import build_registry
from drivers.spec import uuid16
from gateway import virtual_time
from gateway.buffer_alert import BufferAlert
from gateway.clock import VirtualClock
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.recorder import COMMIT_INTERVAL_S, Recorder
from gateway.sensor_events import Interruption, Notification
from gateway.sensor_runner import SensorRunner
from gateway.timeline import Arrival
from gateway.waveform_analysis import Output
from sync.records import AlertRecord, GapRecord, IntervalsRecord, QuarantinedRecord, Record, VitalRecord
from tests.gateway.list_outbox import ListOutbox, call_inline

START_US = 1_800_000_000_000_000
VALUE = uuid16(0x2A37)
HEART = (Vital("heart_rate", 60.0), Intervals("rr", (1024,)))


def seconds(outbox: ListOutbox, cls: type[Any]) -> list[float]:
    """When the stored records of this class were measured."""
    return [(record.times.at_us - START_US) / 1e6 for record in outbox.records() if isinstance(record, cls)]


@dataclass
class Hub:
    """A sensor's runner over a recorder that writes at its intervals."""

    outbox: ListOutbox = field(default_factory=ListOutbox)

    def __post_init__(self) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop(), START_US)
        self.recorder = Recorder(self.outbox, call_inline, lambda: None, BufferAlert(self.clock))
        settings, pipeline = SensorSettings("made", advertised_name="made"), Pipeline("made", DEFAULT_LIMITS, LoadedModels())
        self.runner = SensorRunner(settings, pipeline, build_registry([]), self.clock, self.recorder, call_inline)
        self.runner._is_running = True

    def send(self, *readings: Reading) -> None:
        arrival = Arrival.now(self.clock)
        self.runner.events.put(Notification(VALUE, b"payload", readings, arrival))

    async def send_seconds(self, seconds: int, readings: Sequence[Reading] = HEART) -> None:
        for _ in range(seconds):
            self.send(*readings)
            await asyncio.sleep(1)


def run(script: Callable[[Hub], Any]) -> ListOutbox:
    """What is stored after a script, with the recorder running beside it."""

    async def main() -> ListOutbox:
        hub = Hub()
        writing = asyncio.create_task(hub.recorder.run())
        await asyncio.sleep(0.5)
        await script(hub)
        writing.cancel()
        return hub.outbox

    return virtual_time.run(main())


def test_the_first_value_is_stored_at_once_and_all_others_with_the_next_write() -> None:
    async def script(hub: Hub) -> None:
        await hub.send_seconds(9)
        assert seconds(hub.outbox, VitalRecord) == [0.5]
        assert hub.runner.events.empty()
        await asyncio.sleep(COMMIT_INTERVAL_S)

    outbox = run(script)
    assert seconds(outbox, VitalRecord) == seconds(outbox, IntervalsRecord) == [second + 0.5 for second in range(9)]


def test_values_that_wait_come_before_the_end_of_the_link_that_follows_them() -> None:
    async def script(hub: Hub) -> None:
        await hub.send_seconds(5)
        await hub.runner._process_batch([Interruption("the link was lost", Arrival.now(hub.clock))])
        await hub.recorder.flush()

    outbox = run(script)
    assert seconds(outbox, VitalRecord) == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert {gap.from_us for gap in outbox.records() if isinstance(gap, GapRecord)} <= {START_US + 4_500_000}


@pytest.mark.parametrize(
    ("reading", "stored"),
    [(Vital("spo2", 70.0), (AlertRecord,)), (Vital("systolic", 120.0, (), Origin(1)), ())],
    ids=["one that raises an alert", "one measured on demand"],
)
def test_a_reading_that_must_not_wait_takes_those_before_it_along(reading: Reading, stored: tuple[type[Record], ...]) -> None:
    async def script(hub: Hub) -> None:
        await hub.send_seconds(4)
        hub.send(reading)
        if not hub.runner.events.empty():
            await hub.runner._process_batch(hub.runner.events.drain(10))
        await asyncio.sleep(0.1)

    outbox = run(script)
    assert seconds(outbox, VitalRecord) == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert all(any(isinstance(record, cls) for record in outbox.records()) for cls in stored)


def test_a_waiting_value_whose_processing_fails_is_set_aside_and_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Pipeline.feed

    def fail_once(pipeline: Pipeline, readings: Sequence[Reading], arrival: Arrival) -> Output:
        if arrival.wall_us == START_US + 3_500_000:
            raise ZeroDivisionError
        return feed(pipeline, readings, arrival)

    monkeypatch.setattr(Pipeline, "feed", fail_once)

    async def script(hub: Hub) -> None:
        await hub.send_seconds(6)
        await hub.recorder.flush()
        assert hub.runner.analysis_restarts == 1

    outbox = run(script)
    assert seconds(outbox, VitalRecord) == [0.5, 1.5, 2.5, 4.5, 5.5]
    assert seconds(outbox, QuarantinedRecord) == [3.5]


def test_the_saved_state_covers_every_value_that_is_stored_with_it() -> None:
    async def script(hub: Hub) -> None:
        await hub.send_seconds(6)
        await hub.recorder.flush()
        assert hub.runner._saved["values"] == dict.fromkeys(("heart_rate", "rr"), START_US + 5_500_000)

    assert len(run(script).records()) == 12


def test_no_value_waits_while_its_time_may_change_an_alert() -> None:
    pipeline = Pipeline("made", DEFAULT_LIMITS, LoadedModels())
    waits: list[bool] = []
    for minute, spo2 in enumerate((97.0, 88.0, 97.0, 88.0)):
        arrival = Arrival(START_US + minute * 60_000_000, minute * 60_000_000_000)
        alerts = [
            record
            for record in pipeline.feed((Vital("spo2", spo2), *HEART), arrival).records
            if isinstance(record, AlertRecord)
        ]
        waits.append(pipeline.can_wait(HEART))
    assert waits == [True, True, True, False]
    assert [alert.end_us for alert in alerts] == [None]
