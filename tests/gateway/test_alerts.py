"""From findings to alerts: priorities, what raises none, floods, and one alert an episode."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from config.limits import DEFAULT_LIMITS, Limits
from gateway.alerts import HELD, PRIORITIES, AlertBook, raises
from models.findings import INCONCLUSIVE, Finding
from models.rules.burden import DailyBurden
from models.rules.pauses import PauseRule
from models.rules.rates import RateRule
from models.rules.ventricular import GeminyRule, RunRule
from models.rules.vitals import VitalRules
from sync.records import AlertRecord, FindingRecord, decode, encode

MINUTE_S = 60.0
MEASURED: dict[str, dict[str, float]] = {
    "af_burden": {"af_percent": 20.0, "limit_percent": 11.4},
    "spo2_low": {"spo2_percent": 92, "limit_percent": 93},
}


def finding(
    kind: str, onset_s: float, end_s: float | None = None, inconclusive: str | None = None, **measured: float
) -> Finding:
    return Finding(kind, onset_s, end_s, f"rule:{kind}", None, measured or MEASURED.get(kind, {}), inconclusive)


class Book:
    """An alert book that takes findings in seconds."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, flood: Any = None) -> None:
        self.book = AlertBook("strap-1", limits, flood)

    def say(self, kind: str, onset_s: float, end_s: float | None = None, **measured: float) -> list[AlertRecord]:
        return self.take(finding(kind, onset_s, end_s, None, **measured))

    def take(self, stated: Finding) -> list[AlertRecord]:
        records = self.book.records(stated, to_us, 0)
        assert isinstance(records[0], FindingRecord)
        assert [type(record) for record in records[1:]] in ([], [AlertRecord])
        return [record for record in records if isinstance(record, AlertRecord)]

    def released(self, at_s: float) -> list[AlertRecord]:
        return list(self.book.released(to_us(at_s), 7))


def to_us(seconds: float) -> int:
    return round(seconds * 1e6)


@pytest.mark.parametrize("kind", PRIORITIES)
def test_an_episode_is_one_alert_from_its_onset_to_its_end(kind: str) -> None:
    book = Book()
    (first,) = book.say(kind, 10.0)
    assert [alert.id for alert in book.book.ongoing()] == [first.id]
    (last,) = book.say(kind, 10.0, 70.0)
    assert first.id == last.id
    assert (first.onset_us, first.end_us, last.onset_us, last.end_us) == (10_000_000, None, 10_000_000, 70_000_000)
    assert first.reasons == last.reasons == (f"{kind}.criterion",)
    assert book.book.ongoing() == ()


@pytest.mark.parametrize(
    ("kind", "measured", "expected"),
    [
        ("pause", {}, "high"),
        ("short_pause", {}, "low"),
        ("vt", {"beats": 4}, "medium"),
        ("vt", {"beats": 5}, "high"),
        ("v_run", {"beats": 9}, "low"),
        ("bp_crisis", {"readings": 1}, "medium"),
        ("bp_crisis", {"readings": 2}, "high"),
        ("spo2_low", {"limit_percent": 93}, "low"),
        ("spo2_low", {"limit_percent": 91}, "medium"),
        ("spo2_low", {"limit_percent": 85}, "high"),
        ("fever", {"limit_celsius": 38.0}, "low"),
        ("fever", {"limit_celsius": 39.1}, "medium"),
        ("af", {"rate_bpm": 90}, "medium"),
    ],
)
def test_how_urgent_an_alert_is(kind: str, measured: dict[str, float], expected: str) -> None:
    assert Book().say(kind, 0.0, **measured)[0].priority == expected


def test_a_patients_limit_decides_when_a_tachycardia_is_urgent() -> None:
    book = Book(DEFAULT_LIMITS.with_values({"vt_high_beats": 3}))
    assert book.say("vt", 0.0, beats=3)[0].priority == "high"


def test_a_priority_rises_and_never_falls_within_an_episode() -> None:
    book = Book()
    priorities = [book.say("vt", 0.0, beats=beats)[0].priority for beats in (3, 5)]
    assert [*priorities, book.say("vt", 0.0, 9.0, beats=4)[0].priority] == ["medium", "high", "high"]


@pytest.mark.parametrize("why", INCONCLUSIVE)
def test_what_is_inconclusive_is_recorded_with_its_reason_and_raises_no_alert(why: str) -> None:
    for stated in (finding("af", 0.0, 10.0, why), finding("pause", 0.0, 10.0, why)):
        assert not raises(stated)
        (record,) = AlertBook("strap-1").records(stated, to_us, 0)
        assert isinstance(record, FindingRecord)
        assert record.inconclusive == why
        assert decode(encode([record])) == [record]


def test_a_kind_that_is_only_recorded_raises_no_alert() -> None:
    assert Book().say("rhythm", 0.0, 30.0, n=0.9) == []


def test_a_burden_below_its_limit_is_only_recorded() -> None:
    assert Book().say("af_burden", 0.0, 86400.0, af_percent=3.0, limit_percent=11.4) == []
    assert len(Book().say("af_burden", 0.0, 86400.0, af_percent=30.0, limit_percent=11.4)) == 1


def test_an_episode_soon_after_another_is_recorded_and_the_next_alert_says_so() -> None:
    book = Book()
    book.say("af", 0.0)
    book.say("af", 0.0, 60.0)
    for onset in (100.0, 200.0):
        assert book.say("af", onset) == []
        assert book.say("af", onset, onset + 50) == []
    (told,) = book.say("af", 400.0, rate_bpm=90)
    assert (told.reasons, told.measured) == (("af.criterion", HELD), {"rate_bpm": 90, "held": 2})
    (ended,) = book.say("af", 400.0, 500.0, rate_bpm=95)
    assert (ended.id, ended.reasons, ended.measured) == (told.id, told.reasons, {"rate_bpm": 95, "held": 2})


def test_an_episode_that_was_held_back_is_told_when_it_outlasts_the_time_out() -> None:
    book = Book()
    book.say("af", 0.0, 60.0)
    assert book.say("af", 100.0) == []
    assert book.released(359.9) == []
    (told,) = book.released(360.0)
    assert (told.onset_us, told.end_us, told.decided_us, told.reasons) == (100_000_000, None, 7, ("af.criterion",))
    assert book.released(400.0) == []
    (ended,) = book.say("af", 100.0, 900.0)
    assert ended.id == told.id


def test_one_that_ended_before_is_never_told() -> None:
    book = Book()
    book.say("af", 0.0, 60.0)
    assert [*book.say("af", 100.0), *book.say("af", 100.0, 200.0), *book.released(1000.0)] == []


def test_high_priority_is_never_held_back_and_a_rising_one_breaks_through() -> None:
    book = Book()
    for onset in range(10):
        assert len(book.say("pause", onset * 10.0, onset * 10.0 + 4)) == 1
    assert len(book.say("vt", 0.0, 2.0, beats=3)) == 1
    assert book.say("vt", 20.0, beats=3) == []
    (told,) = book.say("vt", 20.0, beats=5)
    assert (told.priority, told.reasons) == ("high", ("vt.criterion",))
    assert len(book.say("vt", 20.0, 30.0, beats=20)) == 1


def test_kinds_do_not_hold_each_other_back() -> None:
    book = Book()
    assert [len(book.say(kind, 0.0, 1.0)) for kind in PRIORITIES] == [1] * len(PRIORITIES)


def test_a_time_out_survives_a_restart() -> None:
    before = Book()
    before.say("af", 0.0, 60.0)
    before.say("af", 100.0)
    after = Book(flood=json.loads(json.dumps(before.book.flood())))
    assert after.say("af", 200.0, 210.0) == []
    (told,) = after.say("af", 500.0)
    assert told.measured is not None
    assert told.measured["held"] == 2


def test_an_alert_without_ecg_has_no_strip() -> None:
    assert Book().say("bp_crisis", 1.7e9, readings=1)[0].strip is None


class Quiet:
    """A signal that shows no beats."""

    def usable(self, start_s: float, end_s: float) -> bool:
        return end_s > start_s

    def quiet(self, start_s: float, end_s: float, bumps: int = 1) -> bool:
        return end_s > start_s and bumps >= 0


def ecg_findings() -> list[Finding]:
    """One finding at least of every rule on beats."""
    runs, pauses = RunRule(DEFAULT_LIMITS), PauseRule(DEFAULT_LIMITS)
    found = [f for i, rr in enumerate([0.4] * 6) for f in runs.beat(i * rr, rr, "V")]
    runs = RunRule(DEFAULT_LIMITS)
    found += [f for i, rr in enumerate([0.9] * 6) for f in runs.beat(i * rr, rr, "V")]
    for kind, pattern in (("bigeminy", "NV" * 4), ("trigeminy", "NNV" * 4)):
        geminy = GeminyRule(kind, DEFAULT_LIMITS)
        found += [f for i, label in enumerate(pattern) for f in geminy.beat(float(i), 1.0, label)]
    found += [f for t in (0.0, 1.0, 3.5, 8.0) for f in pauses.beat(t, Quiet())]
    for kind, rr in (("tachycardia", 0.3), ("bradycardia", 2.0)):
        rates = RateRule(kind, DEFAULT_LIMITS)
        found += [f for i in range(60) for f in rates.beat(i * rr, rr)]
    burden = DailyBurden(DEFAULT_LIMITS)
    return [*found, *burden.add(0.0, 86400.0, is_af=True), *burden.finish()]


def vital_findings() -> list[Finding]:
    """One finding at least of every rule on vitals."""
    rules = VitalRules(DEFAULT_LIMITS)
    measured: list[tuple[str, float, tuple[str, ...]]] = []
    for systolic in (*[120.0] * 28, *[160.0] * 28, 200.0, 80.0):
        measured += [("systolic", systolic, ("irregular_pulse",)), ("diastolic", 70.0, ())]
    measured += [("spo2", 80.0, ()), ("weight", 80.0, ()), ("weight", 83.0, ())]
    measured += [("temperature", 40.0, ()), ("temperature", 34.0, ())]
    found, at_us = [], 0
    for kind, value, flags in measured:
        at_us += 0 if kind == "diastolic" else 6 * 3600 * 1_000_000
        at_us += 86400 * 1_000_000 if kind == "weight" else 0
        found += rules.feed(kind, value, at_us, flags)
    return found


def test_every_reason_finds_its_numbers_in_what_the_rules_measured() -> None:
    words = Path(__file__).parents[2] / "cloud" / "page" / "static" / "lang" / "en.json"
    reasons = json.loads(words.read_text(encoding="utf-8"))["reason"]
    found = [*ecg_findings(), *vital_findings()]
    for stated in found:
        if raises(stated) and (stated.kind, stated.end_s) != ("bp_crisis", None):
            wanted = set(re.findall(r"\{(\w+)\}", reasons[f"{stated.kind}.criterion"]))
            assert wanted <= stated.measured.keys(), stated
    assert {stated.kind for stated in found} == PRIORITIES.keys() - {"af", "models_refused"}
