"""Each episode is written with its final values, an alert once for each priority; summary figures of a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.replay.output import json_lines, summary
from gateway.replay.run import empty_result
from gateway.replay.sources import Source
from reporting.result import OutputRecord, ReplayResult, TimedBeat
from reporting.text import format_clock
from sync.records import AlertRecord, FindingRecord, GapRecord, IntervalsRecord, Strip, Times, VitalRecord

START_US = 1_714_920_600_000_000
STRIP = Strip(START_US, 125.0, 0.001, np.zeros(10, np.int32), ())


def at(seconds: float) -> int:
    return START_US + round(seconds * 1e6)


def new_result() -> ReplayResult:
    return empty_result(Source(Path("a.hea"), "strap", START_US, True, (), iter(())))


def alert(onset: float, end: float | None, probability: float, strip: Strip | None, kind: str = "af") -> AlertRecord:
    until = None if end is None else at(end)
    measured = {"rate_bpm": 90.0}
    return AlertRecord(
        f"{kind}-{onset}", "strap", kind, "medium", at(onset), until, at(40), "rr_af 1", ("r",), probability, measured, strip
    )


def add_records(result: ReplayResult, *records: AlertRecord | FindingRecord | GapRecord) -> list[OutputRecord]:
    return [line for record in records for line in result.add((record,), ())]


def test_writes_an_alert_once_with_its_final_values_and_its_strip() -> None:
    result = new_result()
    assert add_records(result, alert(10.0004, None, 0.91, STRIP), alert(10.0004, 62.0, 0.98, None)) == []
    (line,) = result.close()
    assert list(json_lines(line, result)) == [
        {
            "type": "alert",
            "file": "a.hea",
            "t": 10.0,
            "kind": "af",
            "priority": "medium",
            "onset": 10.0,
            "end": 62.0,
            "probability": 0.98,
            "measured": {"rate_bpm": 90.0},
            "source": "rr_af 1",
            "reasons": ["r"],
            "id": "af-10.0004",
            "raised": 40.0,
        }
    ]
    assert result.alerts[0].strip is STRIP
    assert list(result.close()) == []


def test_writes_a_line_for_each_kind_and_priority_with_the_time_at_which_it_was_raised() -> None:
    result, first = new_result(), replace(alert(10.0, None, 0.9, STRIP, "no_beats"), raised_us=at(25.0))
    high = replace(first, priority="high", raised_us=at(70.0), strip=None)
    asystole = replace(high, kind="asystole", raised_us=at(90.0))
    repeated = replace(asystole, raised_us=at(95.0))
    add_records(result, first, first, high, asystole, repeated, replace(repeated, end_us=at(120.0)))
    lines = [item for line in result.close() for item in json_lines(line, result)]
    assert [(line["kind"], line["priority"], line["raised"]) for line in lines] == [
        ("no_beats", "medium", 25.0),
        ("no_beats", "high", 70.0),
        ("asystole", "high", 90.0),
    ]
    assert {(line["id"], line["onset"], line["end"]) for line in lines} == {("no_beats-10.0", 10.0, 120.0)}
    assert [alert.kind for alert in result.alerts] == ["asystole"]
    assert result.alerts[0].strip is STRIP


def test_holds_an_alert_while_another_episode_may_open_it_again() -> None:
    result = new_result()
    first = alert(10.0, 40.0, 0.9, STRIP)
    assert add_records(result, first, replace(first, end_us=None), replace(first, end_us=at(100.0))) == []
    result.end_us = at(1899.0)
    assert list(result.add((), ())) == []
    result.end_us = at(1901.0)
    (line,) = result.add((), ())
    assert isinstance(line, AlertRecord)
    assert line.end_us == at(100.0)


def test_an_alert_that_waits_for_another_episode_at_the_end_ended_with_the_latest() -> None:
    result = new_result()
    add_records(result, replace(alert(10.0, None, 0.9, STRIP), measured={"episodes": 2.0, "latest_s": 32.5}))
    (line,) = (item for line in result.close() for item in json_lines(line, result))
    assert (line["onset"], line["end"]) == (10.0, 42.5)


def test_a_finding_that_changes_its_kind_is_one_finding() -> None:
    result = new_result()
    pause = FindingRecord("strap", "pause", at(10), None, "rule:pause")
    (line,) = add_records(result, pause, replace(pause, kind="asystole"), replace(pause, kind="asystole", end_us=at(30)))
    assert isinstance(line, FindingRecord)
    assert line.kind == "asystole"
    assert list(result.close()) == []


def test_writes_open_episodes_at_the_end_in_order_of_onset() -> None:
    result = new_result()
    result.end_us = at(100)
    gap = GapRecord("strap", "ecg", at(80), None, None, "the link was lost")
    add_records(result, alert(50, None, 0.9, STRIP), gap, alert(20, None, 0.9, STRIP, "tachycardia"))
    lines = [item for line in result.close() for item in json_lines(line, result)]
    assert [(line["type"], line["onset"], line["end"]) for line in lines] == [
        ("alert", 20.0, None),
        ("alert", 50.0, None),
        ("gap", 80.0, 100.0),
    ]
    assert [alert.kind for alert in result.alerts] == ["tachycardia", "af"]


def test_counts_two_episodes_of_one_kind() -> None:
    result = new_result()
    add_records(
        result, alert(10, None, 0.9, STRIP), alert(10, 20, 0.9, None), alert(30, None, 0.9, STRIP), alert(30, 40, 0.9, None)
    )
    assert len(list(result.close())) == 2
    assert summary(result)["alerts"] == {"af": 2}


def test_places_intervals_before_their_arrival() -> None:
    record = IntervalsRecord("strap", "rr", Times(at(5), at(5), 0), (1024, 512))
    assert [(line["t"], line["ms"]) for line in json_lines(record, new_result())] == [(4.5, 1000.0), (5.0, 500.0)]


def test_a_vital_carries_its_ucum_unit() -> None:
    (line,) = json_lines(VitalRecord("strap", "heart_rate", Times(at(5.5555), at(6), 0), 72.0, ("no_contact",)), new_result())
    assert line == {
        "type": "vital",
        "file": "a.hea",
        "t": 5.556,
        "kind": "heart_rate",
        "value": 72.0,
        "unit": "/min",
        "flags": ["no_contact"],
    }


def test_rates_never_span_a_gap() -> None:
    result = new_result()
    result.ecg.rate_hz = 125.0
    first = [TimedBeat(at(second), "N") for second in range(1, 11)]
    second = [TimedBeat(at(20 + 0.5 * index), "N") for index in range(10)]
    list(result.add((), tuple(first)))
    add_records(result, GapRecord("strap", "ecg", at(10.5), at(19.5), 1000, "the link was lost"))
    list(result.add((), tuple(second)))
    result.end_us = at(25)
    rates = result.rates()
    assert np.isnan(rates.per_beat[[0, 10]]).all()
    assert rates.per_beat[1:10] == pytest.approx(60.0)
    assert rates.per_beat[11:] == pytest.approx(120.0)
    assert rates.mean == pytest.approx(60 * 18 / 13.5)
    assert [rates.lowest, rates.highest] == pytest.approx([60.0, 120.0])
    assert np.isnan(rates.smoothed[10:15]).all(), "a median of five does not span the gap"


def test_a_file_without_beats_has_no_rate() -> None:
    line = summary(new_result())
    assert (line["beats"], line["mean_rate"], line["lowest_rate"], line["highest_rate"]) == (0, None, None, None)


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (245, "4:05"), (3723, "1:02:03"), (-1, "0:00")])
def test_formats_seconds_as_a_clock(seconds: float, shown: str) -> None:
    assert format_clock(seconds) == shown
