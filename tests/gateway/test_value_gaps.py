"""Gaps in continuous values: what a sensor sent while its link was failing lies in one."""

from config.limits import DEFAULT_LIMITS
from drivers.readings import Intervals, Vital
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.timeline import Arrival
from sync.records import GapRecord

LOST = "the link was lost"


def at(second: int) -> Arrival:
    return Arrival(1_800_000_000_000_000 + second * 1_000_000, second * 10**9)


def make_pipeline() -> Pipeline:
    return Pipeline("strap", DEFAULT_LIMITS, LoadedModels())


def gaps(records: tuple[object, ...]) -> list[tuple[str, int, int | None]]:
    return [
        (gap.kind, gap.from_us - at(0).wall_us, None if gap.to_us is None else gap.to_us - at(0).wall_us)
        for gap in records
        if isinstance(gap, GapRecord)
    ]


def test_a_gap_begins_at_the_last_value_and_ends_when_the_sensor_sends_again() -> None:
    pipeline = make_pipeline()
    assert gaps(pipeline.feed([Vital("heart_rate", 60.0), Intervals("rr", (1000,))], at(5)).records) == []
    opened = gaps(pipeline.on_interruption(LOST, at(9)).records)
    assert opened == [("heart_rate", 5_000_000, None), ("rr", 5_000_000, None)]
    assert gaps(pipeline.on_interruption(LOST, at(12)).records) == []  # it is open already
    closed = gaps(pipeline.feed([Vital("heart_rate", 61.0)], at(20)).records)
    assert closed == [("heart_rate", 5_000_000, 20_000_000), ("rr", 5_000_000, 20_000_000)]
    assert gaps(pipeline.feed([Vital("heart_rate", 61.0)], at(21)).records) == []


def test_an_open_gap_survives_a_restart() -> None:
    pipeline = make_pipeline()
    pipeline.feed([Vital("heart_rate", 60.0)], at(5))
    pipeline.on_interruption(LOST, at(9))
    resumed = pipeline.restarted(pipeline.state())
    assert gaps(resumed.feed([Vital("heart_rate", 61.0)], at(20)).records) == [("heart_rate", 5_000_000, 20_000_000)]


def test_a_sensor_that_has_sent_nothing_has_no_gap() -> None:
    assert make_pipeline().on_interruption(LOST, at(9)).records == ()
