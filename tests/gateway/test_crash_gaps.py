"""What a crash costs of vital signs and intervals is a gap record after the restart."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from cloud.validate import validate_record
from config.limits import DEFAULT_LIMITS
from config.settings import SensorSettings
from drivers.readings import Intervals, Reading, Vital, Waveform
from drivers.registry import build_registry
from drivers.spec import uuid16
from gateway import virtual_time
from gateway.buffer_alert import BufferAlert
from gateway.clock import VirtualClock
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.recorder import Recorder
from gateway.sensor_events import Interruption, Notification
from gateway.sensor_runner import SensorRunner, state_key
from gateway.timeline import Arrival
from sync.records import GapRecord, VitalRecord
from tests.gateway.list_outbox import ListOutbox, call_inline

START_US = 1_800_000_000_000_000
VALUE = uuid16(0xFFF1)
RATE = Vital("heart_rate", 60.0)
INTERVALS = Intervals("rr", (1024,))
SPO2 = Vital("spo2", 97.0)
PRESSURE = Vital("systolic", 120.0)
ECG = Waveform("ecg", (0, 5, 100, 5) * 32, 128.0, 0.001)


def arrival(second: float) -> Arrival:
    return Arrival(START_US + round(second * 1e6), round(second * 1e9))


def at_us(second: float) -> int:
    return arrival(second).wall_us


def make_pipeline(saved: Mapping[str, Any] | None = None) -> Pipeline:
    return Pipeline("strap", DEFAULT_LIMITS, LoadedModels(), json.loads(json.dumps(saved)) if saved else None)


def feed(pipeline: Pipeline, readings: Iterable[tuple[float, Reading]]) -> Pipeline:
    for second, reading in readings:
        pipeline.feed((reading,), arrival(second))
    return pipeline


def gaps_after(readings: Iterable[tuple[float, Reading]], restart_s: float) -> dict[str, GapRecord]:
    """The gaps that a restart leaves after a crash, by kind."""
    saved = feed(make_pipeline(), readings).state()
    records = make_pipeline(saved).resume(arrival(restart_s)).records
    gaps = [record for record in records if isinstance(record, GapRecord)]
    for gap in gaps:
        validate_record(gap)
    return {gap.kind: gap for gap in gaps}


def test_a_restart_leaves_a_gap_from_the_last_stored_value_until_now() -> None:
    gaps = gaps_after([(1, RATE), (1, INTERVALS), (2, RATE), (2, SPO2)], 30)
    assert {kind: (gap.from_us, gap.to_us) for kind, gap in gaps.items()} == {
        "heart_rate": (at_us(2), at_us(30)),
        "rr": (at_us(1), at_us(30)),
        "spo2": (at_us(2), at_us(30)),
    }
    # Not a number of samples: the page adds these up per sensor.
    assert {(gap.missing, gap.reason) for gap in gaps.values()} == {(None, "the agent was restarted")}


@pytest.mark.parametrize(
    ("ended", "others"),
    [
        (PRESSURE, [(1, RATE)]),
        (SPO2, [(70, RATE)]),
        (SPO2, [(second, ECG) for second in range(1, 70)]),
        (RATE, [(70, PRESSURE)]),
    ],
    ids=["cuff", "an oximeter that was taken off", "beside a waveform", "before a spot reading"],
)
def test_a_stream_that_had_ended_before_the_crash_has_no_gap(ended: Reading, others: list[tuple[float, Reading]]) -> None:
    assert isinstance(ended, Vital)
    assert ended.kind not in gaps_after([(0, ended), *others], 200)


def test_a_pause_of_a_minute_is_not_the_end_of_a_stream() -> None:
    assert gaps_after([(0, SPO2), (60, RATE)], 200).keys() == {"spo2", "heart_rate"}


@pytest.mark.parametrize("kind", ["rr_padding", "rr_implausible", "rr_filler", "pp_void", "pp_error"])
def test_intervals_that_stand_in_place_of_beats_are_no_stream(kind: str) -> None:
    assert gaps_after([(0, Intervals(kind, (0,))), (0, INTERVALS)], 30).keys() == {"rr"}


@pytest.mark.parametrize("kind", ["cuff_pressure", "temperature_intermediate", "steps", "motion_x"])
def test_what_a_sensor_sends_beside_a_measurement_leaves_no_gap_when_it_leaves(kind: str) -> None:
    pipeline = feed(make_pipeline(), [(1, Vital(kind, 100.0)), (1, RATE)])
    gaps = pipeline.on_interruption("the link was lost", arrival(2)).records
    assert [gap.kind for gap in gaps if isinstance(gap, GapRecord)] == ["heart_rate"]


def test_a_waveform_keeps_its_open_gap() -> None:
    gaps = gaps_after([(1, ECG), (1, RATE)], 30)
    assert (gaps["ecg"].to_us, gaps["heart_rate"].to_us) == (None, at_us(30))


def test_after_a_clean_stop_the_next_start_adds_no_gap_of_its_own() -> None:
    pipeline = feed(make_pipeline(), [(1, RATE), (1, INTERVALS)])
    stopped = pipeline.on_interruption("the agent was stopped", arrival(2)).records
    assert [(gap.kind, gap.from_us, gap.to_us) for gap in stopped if isinstance(gap, GapRecord)] == [
        *(("heart_rate", at_us(1), None), ("rr", at_us(1), None))
    ]
    assert make_pipeline(pipeline.state()).resume(arrival(9)).records == ()


def test_a_second_crash_before_the_first_value_leaves_no_second_gap() -> None:
    resumed = make_pipeline(feed(make_pipeline(), [(1, RATE)]).state())
    assert len(resumed.resume(arrival(9)).records) == 1
    assert make_pipeline(resumed.state()).resume(arrival(20)).records == ()


def test_a_hub_whose_clock_was_set_back_leaves_a_gap_that_ends_where_it_begins() -> None:
    gap = gaps_after([(100, RATE)], 5)["heart_rate"]
    assert gap.from_us == gap.to_us == at_us(100)


def test_a_failed_analysis_costs_no_vital_sign() -> None:
    saved = feed(make_pipeline(), [(1, RATE)]).state()
    pipeline = make_pipeline().restarted(saved)
    assert pipeline.resume_analysis(arrival(2), "the analysis failed and was restarted").records == ()
    assert pipeline.streams == {"heart_rate"}  # the next value is not the first one of a stream


def test_a_state_of_an_earlier_version_leaves_no_gap() -> None:
    saved = {"waveforms": {}, "alerts": [], "streams": {}, "vitals": {}}
    assert make_pipeline(saved).resume(arrival(1)).records == ()


def test_a_saved_state_does_not_change_with_later_values() -> None:
    pipeline = feed(make_pipeline(), [(1, RATE)])
    before = pipeline.state()
    feed(pipeline, [(2, RATE)])
    assert before["values"] == {"heart_rate": at_us(1)}


async def run_until_killed(outbox: ListOutbox, from_s: float, until_s: float, *, link_lost_s: float | None = None) -> list[int]:
    """A strap that sends a heart rate and an interval every second until the agent is killed. Returns when they arrived."""
    loop = asyncio.get_running_loop()
    clock = VirtualClock(loop, at_us(from_s) - round(loop.time() * 1e6))
    recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(clock))
    stored = outbox.states.get(state_key("strap"))
    pipeline = make_pipeline(json.loads(stored) if stored else None)
    settings = SensorSettings("strap", advertised_name="strap")
    runner = SensorRunner(settings, pipeline, build_registry([]), clock, recorder, call_inline)
    await runner.resume()
    await recorder.flush()
    running = asyncio.create_task(recorder.run())
    sent: list[int] = []
    while clock.wall_us() < at_us(until_s):
        await asyncio.sleep(1)
        now = Arrival.now(clock)
        if link_lost_s is not None and now.wall_us >= at_us(link_lost_s):
            await runner._process_batch([Interruption("the link was lost", now)])
            continue
        sent.append(now.wall_us)
        await runner._process_batch([Notification(VALUE, b"", (RATE, INTERVALS), now)])
    running.cancel()
    await asyncio.wait([running])
    return sent


@pytest.mark.parametrize("killed_s", [1.0, 2.0, 10.0, 14.0, 33.0])
def test_every_value_that_a_kill_costs_is_inside_a_gap(killed_s: float) -> None:
    outbox = ListOutbox()

    async def main() -> list[int]:
        first = await run_until_killed(outbox, 0, killed_s)
        second = await run_until_killed(outbox, killed_s + 5, killed_s + 5 + killed_s)
        await run_until_killed(outbox, 2 * killed_s + 20, 2 * killed_s + 21)
        return first + second

    sent = virtual_time.run(main())
    records = outbox.records()
    for kind in ("heart_rate", "rr"):
        spans = [(gap.from_us, gap.to_us or 0) for gap in records if isinstance(gap, GapRecord) and gap.kind == kind]
        stored = [r.times.at_us for r in records if not isinstance(r, GapRecord) and getattr(r, "kind", "") == kind]
        lost = [value_us for value_us in sent if value_us not in stored]
        assert len(spans) == 2
        assert all(any(start < value_us < end for start, end in spans) for value_us in lost)
        assert not any(start < value_us < end for start, end in spans for value_us in stored)


def test_values_before_a_lost_link_are_stored_or_inside_a_gap() -> None:
    outbox = ListOutbox()

    async def main() -> None:
        await run_until_killed(outbox, 0, 40, link_lost_s=15)
        await run_until_killed(outbox, 50, 51)

    virtual_time.run(main())
    gaps = {(gap.kind, gap.from_us, gap.to_us) for gap in outbox.records() if isinstance(gap, GapRecord)}
    assert gaps == {(kind, at_us(14), end_us) for kind in ("heart_rate", "rr") for end_us in (None, at_us(51))}
    rates = [r.times.at_us for r in outbox.records() if isinstance(r, VitalRecord) and r.times.at_us < at_us(40)]
    assert rates == [at_us(second) for second in range(1, 15)]
