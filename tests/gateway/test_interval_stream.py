"""Intervals and heart rates of a strap become alerts where no waveform of it is received."""

import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import numpy as np
import pytest

from config.limits import DEFAULT_LIMITS
from drivers.readings import Intervals, Reading, Status, Vital, Waveform
from gateway.alerts import CLOSED_REASON, SIGNAL_LOST_REASON
from gateway.models import LoadedModels, load_models
from gateway.pipeline import Pipeline
from gateway.timeline import Arrival
from models.interval_analysis import INTERVALS_REASON, RATE_REASON, WAVEFORM_REASON
from sync.records import AlertRecord, FindingRecord, Record

START_S: Final = 1_800_000_000 // 86400 * 86400
DAY_S: Final = 86400


def at(second: float) -> Arrival:
    return Arrival(round((START_S + second) * 1e6), round(second * 1e9))


def make_pipeline() -> Pipeline:
    return Pipeline("strap", DEFAULT_LIMITS, LoadedModels())


def beats(intervals_s: Sequence[float], begin_s: float = 0.0) -> list[tuple[float, Reading]]:
    """One reading for each beat, as it occurs."""
    ends_s = list(accumulate(intervals_s, initial=begin_s))[1:]
    return [
        (end_s, Intervals("rr", (round(interval_s * 1024),))) for end_s, interval_s in zip(ends_s, intervals_s, strict=True)
    ]


def rates(bpm: float, seconds: range, *flags: str) -> list[tuple[float, Reading]]:
    return [(float(second), Vital("heart_rate", bpm, flags)) for second in seconds]


def ecg(seconds: range) -> list[tuple[float, Reading]]:
    return [(float(second), Waveform("ecg", (0, 1) * 65, 130.0, 0.001)) for second in seconds]


def feed(pipeline: Pipeline, readings: Sequence[tuple[float, Reading]]) -> list[Record]:
    return [record for second, reading in readings for record in pipeline.feed([reading], at(second)).records]


def alerts(records: Sequence[Record]) -> list[AlertRecord]:
    return [record for record in records if isinstance(record, AlertRecord)]


def test_a_fast_strap_raises_an_alert_that_says_what_it_is_from() -> None:
    for readings, reason in ((beats([0.4] * 100), INTERVALS_REASON), (rates(150, range(40)), RATE_REASON)):
        (alert,) = alerts(feed(make_pipeline(), readings))
        assert (alert.kind, alert.reasons) == ("tachycardia", ("tachycardia.criterion", reason))


def test_heart_rates_without_contact_do_not_count() -> None:
    assert alerts(feed(make_pipeline(), rates(150, range(40), "no_contact"))) == []
    without_contact = [(0.0, Status("skin_contact", False)), *beats([0.4] * 100)]
    assert alerts(feed(make_pipeline(), without_contact)) == []


@pytest.mark.parametrize("kind", ["rr_filler", "rr_padding", "pp_error", "pp_void"])
def test_what_is_no_valid_interval_raises_nothing(kind: str) -> None:
    readings = [(second, Intervals(kind, (410,))) for second, _ in beats([0.4] * 100)]
    assert [record for record in feed(make_pipeline(), readings) if isinstance(record, FindingRecord)] == []


def test_only_the_ecg_counts_while_it_is_received() -> None:
    pipeline = make_pipeline()
    both = sorted([*ecg(range(60)), *rates(150, range(60)), *beats([0.4] * 150)], key=lambda reading: reading[0])
    assert [alert.kind for alert in alerts(feed(pipeline, both)) if alert.kind == "tachycardia"] == []
    after = alerts(feed(pipeline, rates(150, range(60, 100))))
    assert [(alert.kind, alert.onset_us // 1_000_000 - START_S >= 69) for alert in after] == [("tachycardia", True)]


def test_an_ecg_that_comes_ends_the_episode_of_the_rates() -> None:
    pipeline = make_pipeline()
    (raised,) = alerts(feed(pipeline, rates(150, range(40))))
    ended = alerts(feed(pipeline, ecg(range(40, 42))))
    assert [(alert.id, alert.end_us) for alert in ended] == [(raised.id, at(39).wall_us)]
    assert ended[0].reasons == (*raised.reasons, WAVEFORM_REASON)


def test_the_result_does_not_depend_on_how_the_beats_were_bundled() -> None:
    rng = np.random.default_rng(2)
    intervals = [0.8] * 80 + rng.uniform(0.4, 1.1, 200).tolist() + [0.41] * 100 + [0.8] * 100
    ticks = [round(interval_s * 1024) for interval_s in intervals]
    by_second: dict[int, list[int]] = {}
    for end, tick in zip(accumulate(ticks), ticks, strict=True):
        by_second.setdefault(end // 1024 + 1, []).append(tick)
    single, bundled = Pipeline("strap", DEFAULT_LIMITS, load_models()), Pipeline("strap", DEFAULT_LIMITS, load_models())
    found: list[list[Record]] = [[], []]
    for second, frame in by_second.items():
        found[0] += bundled.feed([Intervals("rr", tuple(frame))], at(second)).records
        for tick in frame:
            found[1] += single.feed([Intervals("rr", (tick,))], at(second)).records
    first, other = ([one for one in records if isinstance(one, FindingRecord)] for records in found)
    assert {finding.kind for finding in first} == {"irregular_pulse", "tachycardia"}
    assert [(one.kind, one.end_us is None) for one in first] == [(one.kind, one.end_us is None) for one in other]
    assert all(abs(one.onset_us - two.onset_us) < 2_000_000 for one, two in zip(first, other, strict=True))


def test_the_burden_of_a_day_survives_restarts() -> None:
    limits = DEFAULT_LIMITS.with_values({"af_burden_observed": 1})
    pipeline = Pipeline("strap", limits, load_models())
    rng = np.random.default_rng(4)
    records: list[Record] = []
    for begin_s in (0, 3600):  # 25 min of them irregular, then a restart
        records += feed(pipeline, beats([1.2] * 1250 + np.clip(rng.normal(1.0, 0.2, 1500), 0.5, 1.6).tolist(), begin_s))
        records += pipeline.finish(at(begin_s + 3590)).records
        pipeline = pipeline.restarted(json.loads(json.dumps(pipeline.state())))
    records += feed(pipeline, beats([0.8] * 400, DAY_S + 60))
    (burden,) = (alert for alert in alerts(records) if alert.kind == "irregular_pulse_burden")
    assert burden.measured is not None
    assert burden.measured["irregular_percent"] == pytest.approx(50, abs=5)
    assert burden.measured["observed_h"] == pytest.approx(5 / 3, abs=0.1)
    assert (burden.onset_us, burden.end_us) == (at(0).wall_us, at(DAY_S).wall_us)


def test_the_clinic_can_close_an_alert_from_heart_rates() -> None:
    pipeline = make_pipeline()
    (raised,) = alerts(feed(pipeline, rates(150, range(40))))
    assert [alert["id"] for alert in pipeline.state()["alerts"]] == [raised.id]
    closed = pipeline.close_alert(raised.id, at(41).wall_us, CLOSED_REASON, 7)
    assert closed is not None
    assert CLOSED_REASON in closed.reasons


def test_values_that_can_begin_an_episode_do_not_wait() -> None:
    pipeline = make_pipeline()
    feed(pipeline, [*rates(70, range(5)), *beats([0.8] * 5)])
    assert pipeline.can_wait([Vital("heart_rate", 70.0), Intervals("rr", (800,))])
    assert not pipeline.can_wait([Vital("heart_rate", 140.0)])
    assert not pipeline.can_wait([Intervals("rr", (300,))])
    feed(pipeline, rates(150, range(5, 40)))
    assert not pipeline.can_wait([Vital("heart_rate", 70.0)]), "it may end the episode"
    feed(pipeline, sorted([*ecg(range(40, 50)), *rates(150, range(40, 50))], key=lambda reading: reading[0]))
    assert pipeline.can_wait([Vital("heart_rate", 150.0)]), "only the ECG counts"


def test_an_extreme_rate_that_stops_coming_stays_open_until_the_rate_has_been_organised_for_30_s() -> None:
    pipeline = make_pipeline()
    (raised,) = alerts(feed(pipeline, rates(210, range(40))))
    (lost,) = alerts(feed(pipeline, rates(70, range(100, 101))))
    assert (lost.id, lost.priority, lost.end_us, lost.reasons[-1]) == (raised.id, "high", None, SIGNAL_LOST_REASON)
    assert alerts(feed(pipeline, rates(70, range(101, 130)))) == []
    (ended,) = alerts(feed(pipeline, rates(70, range(130, 132))))
    assert (ended.id, ended.end_us) == (raised.id, at(130).wall_us)


@pytest.mark.parametrize("bpm", [39, 151])
def test_a_rate_that_is_not_organised_does_not_end_it(bpm: float) -> None:
    pipeline = make_pipeline()
    (raised,) = alerts(feed(pipeline, rates(210, range(40))))
    readings = [*rates(70, range(100, 120)), *rates(bpm, range(120, 121)), *rates(70, range(121, 151))]
    said = alerts(feed(pipeline, readings))
    assert [(alert.id, alert.end_us) for alert in said] == [(raised.id, None)]


def test_an_extreme_rate_outlasts_a_restart_and_the_clinic_can_close_it() -> None:
    before = make_pipeline()
    (raised,) = alerts(feed(before, rates(210, range(40))))
    after = Pipeline("strap", DEFAULT_LIMITS, LoadedModels(), json.loads(json.dumps(before.state())))
    (lost,) = alerts(after.resume(at(60)).records)
    assert (lost.id, lost.end_us, lost.reasons[-1]) == (raised.id, None, SIGNAL_LOST_REASON)
    ended = after.close_alert(raised.id, at(70).wall_us, CLOSED_REASON, 7)
    assert ended is not None
    assert after.state()["alerts"] == []


def brief_episode(begin_s: float) -> list[tuple[float, Reading]]:
    """Two minutes of steady beats, two of irregular ones, three of steady ones."""
    irregular_s = np.random.default_rng(3).uniform(0.4, 1.0, 170)
    return beats([0.8] * 150 + irregular_s.tolist() + [0.8] * 225, begin_s)


def test_brief_episodes_are_known_after_a_restart_and_after_a_waveform() -> None:
    pipeline = Pipeline("strap", DEFAULT_LIMITS, load_models())
    waits_s = []
    for begin_s in (0.0, 3600.0, 7200.0):
        (raised, *_, ended) = alerts(feed(pipeline, brief_episode(begin_s)))
        assert (raised.kind, ended.id, ended.end_us is None) == ("irregular_pulse", raised.id, False)
        waits_s.append((raised.decided_us - raised.onset_us) / 1e6)
        if begin_s == 0.0:
            feed(pipeline, ecg(range(1000, 1060)))
        pipeline = pipeline.restarted(json.loads(json.dumps(pipeline.state())))
    assert waits_s[0] < waits_s[1] < waits_s[2]
