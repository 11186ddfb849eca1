"""An episode of a measured value becomes stale in the agent and in replay alike, with or without a further value."""

import asyncio
import json

from config.limits import DEFAULT_LIMITS
from config.settings import SensorSettings
from drivers.readings import Vital
from drivers.registry import build_registry
from gateway import virtual_time
from gateway.aging import watch_ages
from gateway.buffer_alert import BufferAlert
from gateway.clock import VirtualClock
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.recorder import Recorder
from gateway.sensor_runner import SensorRunner
from gateway.timeline import Arrival
from models.findings import STALE_REASON
from models.interval_analysis import RATE_REASON
from sync.records import AlertRecord, Record
from tests.gateway.list_outbox import ListOutbox, call_inline

START_US = 1_800_000_000_000_000
HOUR = 3600


def at(second: float) -> Arrival:
    return Arrival(START_US + round(second * 1e6), round(second * 1e9))


def alerts(records: tuple[Record, ...]) -> list[AlertRecord]:
    return [record for record in records if isinstance(record, AlertRecord)]


def make_pipeline() -> Pipeline:
    return Pipeline("oximeter", DEFAULT_LIMITS, LoadedModels())


def test_a_stale_alert_says_so_without_any_value() -> None:
    pipeline = make_pipeline()
    (raised,) = alerts(pipeline.feed([Vital("spo2", 92)], at(0)).records)
    assert pipeline.waits
    assert alerts(pipeline.advance_to(at(36 * HOUR)).records) == []
    (ended,) = alerts(pipeline.advance_to(at(37 * HOUR)).records)
    assert (ended.id, ended.end_us) == (raised.id, START_US)
    assert ended.reasons == (*raised.reasons, STALE_REASON)
    assert not pipeline.waits


def test_the_next_value_finds_the_same_as_the_passing_of_time() -> None:
    with_ticks, without = make_pipeline(), make_pipeline()
    found: list[list[tuple[str, int, int | None, tuple[str, ...]]]] = []
    for pipeline, ticks in ((with_ticks, range(60, 40 * HOUR, 60)), (without, ())):
        pipeline.feed([Vital("spo2", 92)], at(0))
        records = [record for second in ticks for record in pipeline.advance_to(at(second)).records]
        records += pipeline.feed([Vital("spo2", 97)], at(40 * HOUR)).records
        found.append([(one.kind, one.onset_us, one.end_us, one.reasons) for one in alerts(tuple(records))])
    assert found[0] == found[1]
    assert [one[3][-1] for one in found[0]] == [STALE_REASON]


def test_a_heart_rate_that_stops_ends_its_episode() -> None:
    pipeline = make_pipeline()
    (raised,) = alerts(tuple(r for second in range(40) for r in pipeline.feed([Vital("heart_rate", 150)], at(second)).records))
    (ended,) = alerts(pipeline.advance_to(at(60)).records)
    assert (ended.id, ended.end_us) == (raised.id, at(39).wall_us)
    assert ended.reasons == ("tachycardia.criterion", RATE_REASON, STALE_REASON)


def test_the_agent_notes_the_time_of_a_sensor_that_sends_nothing() -> None:
    async def run() -> list[AlertRecord]:
        outbox = ListOutbox()
        clock = VirtualClock(asyncio.get_running_loop(), START_US)
        recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(clock))
        settings = SensorSettings("oximeter", advertised_name="oximeter")
        runner = SensorRunner(settings, make_pipeline(), build_registry([]), clock, recorder, call_inline)
        runner.pipeline.feed([Vital("spo2", 92)], Arrival.now(clock))
        task = asyncio.create_task(watch_ages([runner]))
        await asyncio.sleep(37 * HOUR)
        task.cancel()
        await recorder.flush()
        return [record for record in outbox.records() if isinstance(record, AlertRecord)]

    (ended,) = virtual_time.run(run())
    assert (ended.end_us, ended.reasons[-1]) == (START_US, STALE_REASON)
    assert 36 * HOUR < (ended.decided_us - START_US) / 1e6 <= 36 * HOUR + 61


def test_a_stale_alert_of_high_priority_stays_open_until_a_value_is_within_its_limits() -> None:
    pipeline = make_pipeline()
    raised = alerts(tuple(r for second in range(30) for r in pipeline.feed([spo2(80)], at(second)).records))[-1]
    assert raised.priority == "high"
    (lost,) = alerts(pipeline.advance_to(at(400)).records)
    assert (lost.id, lost.priority, lost.end_us) == (raised.id, "high", None)
    assert STALE_REASON in lost.reasons
    assert alerts(tuple(r for second in range(500, 515) for r in pipeline.feed([spo2(84)], at(second)).records)) == []
    (ended,) = alerts(pipeline.feed([spo2(97)], at(515)).records)
    assert (ended.id, ended.end_us) == (raised.id, at(515).wall_us)


def test_a_normal_value_after_a_restart_ends_an_alert_of_high_priority() -> None:
    pipeline = make_pipeline()
    raised = alerts(tuple(r for second in range(30) for r in pipeline.feed([spo2(80)], at(second)).records))[-1]
    resumed = Pipeline("oximeter", DEFAULT_LIMITS, LoadedModels(), json.loads(json.dumps(pipeline.state())))
    assert all(alert.end_us is None for alert in alerts(resumed.resume(at(60)).records))
    (ended,) = alerts(resumed.feed([spo2(97)], at(70)).records)
    assert (ended.id, ended.end_us) == (raised.id, at(70).wall_us)


def spo2(percent: float) -> Vital:
    return Vital("spo2", percent, ("continuous",))
