"""What the hub stores of vital signs while its buffer is nearly full."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.kinds import KINDS, is_continuous
from gateway.recorder import lane_of
from gateway.thinning import THINNED_REASON, THINNED_TO_US, VitalThinner
from sync.records import (
    AlertRecord,
    FindingRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    SpotOrigin,
    StatusRecord,
    Times,
    VitalRecord,
    WaveformRecord,
)

START_US = 1_800_000_000_000_000


def times(second: float) -> Times:
    at_us = START_US + round(second * 1e6)
    return Times(at_us, at_us, 0)


def vital(second: float, kind: str = "heart_rate", sensor: str = "strap") -> VitalRecord:
    return VitalRecord(sensor, kind, times(second), 60.0)


def gap(from_s: float, kind: str = "heart_rate") -> GapRecord:
    from_us = times(from_s).at_us
    return GapRecord("strap", kind, from_us, from_us + 60_000_000, None, THINNED_REASON)


def thin(records: Sequence[Record], thinner: VitalThinner | None = None, *, is_nearly_full: bool = True) -> list[Record]:
    return (thinner or VitalThinner()).thin(records, is_nearly_full=is_nearly_full)


def test_one_value_a_minute_is_stored_with_a_gap_for_the_others() -> None:
    thinner = VitalThinner()
    stored = thin([vital(second) for second in range(150)], thinner)
    assert stored == [vital(0), gap(0), vital(60), gap(60), vital(120), gap(120)]
    assert thinner.left_out == 147


def test_results_measured_on_demand_are_all_stored() -> None:
    results = [replace(vital(second, "spo2"), origin=SpotOrigin(second, "measured", is_stored=False)) for second in range(3)]
    assert thin(results) == results


def test_each_kind_of_each_sensor_keeps_its_own_value() -> None:
    intervals = [IntervalsRecord("strap", "rr", times(second), (1000, 1010)) for second in range(3)]
    others = [vital(second, sensor="watch") for second in range(2)]
    thinner = VitalThinner()
    stored = thin([vital(0), vital(1), *intervals, *others], thinner)
    assert [record for record in stored if not isinstance(record, GapRecord)] == [vital(0), intervals[0], others[0]]
    assert {(record.sensor, record.kind) for record in stored if isinstance(record, GapRecord)} == {
        ("strap", "heart_rate"),
        ("strap", "rr"),
        ("watch", "heart_rate"),
    }
    assert thinner.left_out == 1 + 2 * 2 + 1  # each interval counts


def test_a_stream_that_is_slower_than_a_value_a_minute_has_no_gap() -> None:
    records = [vital(second) for second in (0, 60, 130, 300)]
    assert thin(records) == records


def test_everything_is_stored_while_there_is_room() -> None:
    records = [vital(second / 4) for second in range(1000)]
    thinner = VitalThinner()
    assert thin(records, thinner, is_nearly_full=False) == records
    assert thinner.left_out == 0


def test_a_minute_that_has_begun_is_completed_so_that_its_gap_is_true() -> None:
    thinner = VitalThinner()
    thin([vital(0), vital(1)], thinner)
    later = [vital(2), vital(59.9), vital(60), vital(61)]
    assert thin(later, thinner, is_nearly_full=False) == [vital(60), vital(61)]


def test_a_clock_that_is_set_back_begins_another_minute() -> None:
    assert thin([vital(3600), vital(3601), vital(1), vital(2)]) == [vital(3600), gap(3600), vital(1), gap(1)]


SPOT = [kind for kind, row in KINDS.items() if row.is_spot]
KEPT: list[Record] = [
    AlertRecord("id", "strap", "af", "low", 1, None, 1, "rule", ()),
    FindingRecord("strap", "af", 1, None, "rule"),
    StatusRecord("strap", "battery", times(0), 80),
    QuarantinedRecord("strap", "2a37", times(0), b"\xff", "too short"),
    GapRecord("strap", "ecg", 1, None, None, "the link was lost"),
    WaveformRecord("strap", "ecg", times(0), 130.0, 0.001, np.zeros(1, np.int32)),
    vital(0, "of_a_newer_version"),
    *(vital(0, kind) for kind in SPOT),
]


@pytest.mark.parametrize("record", KEPT, ids=lambda record: f"{type(record).__name__} {getattr(record, 'kind', '')}")
def test_other_records_are_all_stored(record: Record) -> None:
    stored = thin([record, record, record])
    assert [id(one) for one in stored] == [id(record)] * 3


def test_continuous_kinds_are_the_vital_signs_that_no_person_takes() -> None:
    assert {"heart_rate", "rr", "spo2", "pulse_rate"} <= {kind for kind in KINDS if is_continuous(kind)}
    assert not any(is_continuous(kind) for kind in (*SPOT, "ecg", "of_a_newer_version"))


def test_gaps_of_vital_signs_are_in_a_lane_that_is_not_deleted() -> None:
    assert [lane_of(gap(0, kind)) for kind in ("heart_rate", "rr", "ecg", "ppg")] == ["vital", "vital", "wave", "wave"]


@given(st.lists(st.tuples(st.integers(0, 90), st.sampled_from(("heart_rate", "pulse_rate")), st.booleans()), max_size=60))
def test_no_value_is_left_out_without_a_gap_and_none_is_stored_inside_one(events: list[tuple[int, str, bool]]) -> None:
    thinner, second = VitalThinner(), 0
    arrived: list[VitalRecord] = []
    stored: list[Record] = []
    for pause_s, kind, is_nearly_full in events:
        second += pause_s
        arrived.append(vital(second, kind))
        stored += thin([arrived[-1]], thinner, is_nearly_full=is_nearly_full)
    kept = [record for record in stored if isinstance(record, VitalRecord)]
    gaps = [record for record in stored if isinstance(record, GapRecord)]
    left_out = [record for record in arrived if not any(record is one for one in kept)]
    assert thinner.left_out == len(left_out)
    for record in left_out:
        assert any(is_inside(record, one) for one in gaps)
    for one in gaps:
        assert {record.times.at_us for record in kept if is_inside(record, one)} == {one.from_us}
    for kind in ("heart_rate", "pulse_rate"):
        starts = [one.from_us for one in gaps if one.kind == kind]
        assert all(later - earlier >= THINNED_TO_US for earlier, later in pairwise(starts))


def is_inside(record: VitalRecord, one: GapRecord) -> bool:
    assert one.to_us is not None
    return record.kind == one.kind and one.from_us <= record.times.at_us < one.to_us
