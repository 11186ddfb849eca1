"""Findings become alerts: priorities, findings that raise no alert, ids, and one alert per episode."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.contexts import Contexts
from config.limits import DEFAULT_LIMITS, Limits
from gateway.alert_tracker import AlertTracker
from gateway.alerts import make_alert_id
from gateway.priorities import PRIORITIES, raises_alert
from models.findings import INCONCLUSIVE, Finding
from models.rules.burden import BURDEN_KEYS, DailyBurden
from models.rules.pacing import PacingRule
from models.rules.pauses import PauseRule
from models.rules.rates import RateRule
from models.rules.ventricular import GeminyRule, RunRule
from models.rules.vitals import VitalRules
from sync.record_codec import decode_records, encode_records
from sync.records import AlertRecord, FindingRecord

MEASURED: dict[str, dict[str, float]] = {
    "af_burden": {"af_percent": 20.0, "limit_percent": 11.4},
    "irregular_pulse_burden": {"irregular_percent": 20.0, "limit_percent": 11.4},
    "spo2_low": {"spo2_percent": 92, "limit_percent": 93},
}


def finding(
    kind: str, onset_s: float, end_s: float | None = None, inconclusive: str | None = None, **measured: float
) -> Finding:
    return Finding(kind, onset_s, end_s, f"rule:{kind}", None, measured or MEASURED.get(kind, {}), inconclusive)


class SecondsTracker(AlertTracker):
    """An alert tracker for findings in seconds, which returns only the alerts."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, saved: Any = None, **options: Any) -> None:
        super().__init__("strap-1", limits, saved, **options)

    def alerts(self, kind: str, onset_s: float, end_s: float | None = None, **measured: float) -> list[AlertRecord]:
        """The alerts of a finding, which arrives at its end or, as an ongoing one, at its onset."""
        return self.report(finding(kind, onset_s, end_s, None, **measured))

    def lose(self, kind: str, onset_s: float, end_s: float, **measured: float) -> list[AlertRecord]:
        """The alerts of a finding whose signal ends."""
        return self.report(replace(finding(kind, onset_s, end_s, None, **measured), lost=True))

    def report(self, reported: Finding) -> list[AlertRecord]:
        decided_s = reported.onset_s if reported.end_s is None else reported.end_s
        records = self.on_finding(reported, to_us, to_us(decided_s))
        assert isinstance(records[0], FindingRecord)
        assert not any(isinstance(record, FindingRecord) for record in records[1:])
        return [record for record in records if isinstance(record, AlertRecord)]

    def pass_time(self, at_s: float, organised_since_s: float | None = None) -> list[AlertRecord]:
        since_us = None if organised_since_s is None else to_us(organised_since_s)
        return list(self.advance(to_us(at_s), to_us(at_s), since_us))

    def restarted(self, at_s: float) -> tuple["SecondsTracker", list[AlertRecord]]:
        """The tracker after a restart, and what it says of the stream that ended at `at_s`."""
        after = SecondsTracker(self._limits, json.loads(json.dumps(self.state())), has_rhythm=self._has_rhythm)
        return after, list(after.end_stream(to_us(at_s), to_us(at_s)))


def to_us(seconds: float) -> int:
    return round(seconds * 1e6)


@pytest.mark.parametrize("kind", PRIORITIES)
def test_an_episode_is_one_alert_from_onset_to_end(kind: str) -> None:
    tracker = SecondsTracker()
    (first,) = tracker.alerts(kind, 10.0)
    assert [alert.id for alert in tracker.ongoing_alerts()] == [first.id]
    (last,) = tracker.alerts(kind, 10.0, 70.0)
    assert first.id == last.id
    assert (first.onset_us, first.end_us, last.onset_us, last.end_us) == (10_000_000, None, 10_000_000, 70_000_000)
    assert first.reasons == last.reasons == (f"{kind}.criterion",)
    assert first.raised_us == last.raised_us == 10_000_000
    assert tracker.ongoing_alerts() == ()


@pytest.mark.parametrize(
    ("kind", "measured", "expected"),
    [
        ("vf", {}, "high"),
        ("asystole", {}, "high"),
        ("no_beats", {"seconds": 59}, "medium"),
        ("no_beats", {"seconds": 60}, "high"),
        ("no_signal", {"seconds": 599}, "low"),
        ("no_signal", {"seconds": 600}, "medium"),
        ("tachycardia", {"rate_bpm": 199.9}, "medium"),
        ("tachycardia", {"rate_bpm": 200}, "high"),
        ("bradycardia", {"rate_bpm": 30.1}, "medium"),
        ("bradycardia", {"rate_bpm": 30}, "high"),
        ("pause", {}, "high"),
        ("short_pause", {}, "low"),
        ("vt", {"beats": 4}, "medium"),
        ("vt", {"beats": 5}, "high"),
        ("vt", {"beats": 3, "origin_unknown": 1}, "high"),
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
def test_priority_of_an_alert(kind: str, measured: dict[str, float], expected: str) -> None:
    assert SecondsTracker().alerts(kind, 0.0, **measured)[0].priority == expected


def test_a_patients_own_limit_raises_the_priority_of_vt() -> None:
    tracker = SecondsTracker(DEFAULT_LIMITS.with_values({"vt_high_beats": 3}))
    assert tracker.alerts("vt", 0.0, beats=3)[0].priority == "high"


def test_the_priority_can_rise_but_not_fall_within_an_episode() -> None:
    tracker = SecondsTracker()
    priorities = [tracker.alerts("vt", 0.0, beats=beats)[0].priority for beats in (3, 5)]
    assert [*priorities, tracker.alerts("vt", 0.0, 9.0, beats=4)[0].priority] == ["medium", "high", "high"]


@pytest.mark.parametrize("why", INCONCLUSIVE)
def test_records_an_inconclusive_finding_with_its_reason_and_raises_no_alert(why: str) -> None:
    for inconclusive in (finding("af", 0.0, 10.0, why), finding("pause", 0.0, 10.0, why)):
        assert not raises_alert(inconclusive)
        (record,) = AlertTracker("strap-1").on_finding(inconclusive, to_us, 0)
        assert isinstance(record, FindingRecord)
        assert record.inconclusive == why
        assert decode_records(encode_records([record])) == [record]


def test_raises_no_alert_for_a_kind_that_is_only_recorded() -> None:
    assert SecondsTracker().alerts("rhythm", 0.0, 30.0, n=0.9) == []


def test_only_records_an_af_burden_below_its_limit() -> None:
    assert SecondsTracker().alerts("af_burden", 0.0, 86400.0, af_percent=3.0, limit_percent=11.4) == []
    assert len(SecondsTracker().alerts("af_burden", 0.0, 86400.0, af_percent=30.0, limit_percent=11.4)) == 1


def test_an_alert_id_is_the_hash_of_sensor_kind_and_onset() -> None:
    expected = hashlib.sha256(b"strap-1|af|10000000").hexdigest()[:24]
    assert expected == "07bcbac720ea4cac57bcdd49"
    assert make_alert_id("strap-1", "af", 10_000_000) == expected
    assert SecondsTracker().alerts("af", 10.0)[0].id == expected


def test_an_alert_without_ecg_has_no_strip() -> None:
    assert SecondsTracker().alerts("bp_crisis", 1.7e9, readings=1)[0].strip is None


class BeatFreeSignal:
    """A usable signal without beats."""

    def is_usable(self, start_s: float, end_s: float) -> bool:
        return end_s > start_s

    def is_beat_free(self, start_s: float, end_s: float, max_peaks: int = 1) -> bool:
        return end_s > start_s and max_peaks >= 0

    def strip(self, start_s: float, end_s: float) -> tuple[float, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        return start_s, np.zeros(round((end_s - start_s) * 125))


def ecg_findings() -> list[Finding]:
    """At least one finding of every rule on beats."""
    runs, pauses = RunRule(DEFAULT_LIMITS), PauseRule(DEFAULT_LIMITS)
    found = [f for i, rr in enumerate([0.4] * 6) for f in runs.on_beat(i * rr, rr, "V")]
    runs = RunRule(DEFAULT_LIMITS)
    found += [f for i, rr in enumerate([0.9] * 6) for f in runs.on_beat(i * rr, rr, "V")]
    for kind, pattern in (("bigeminy", "NV" * 4), ("trigeminy", "NNV" * 4)):
        geminy = GeminyRule(kind, DEFAULT_LIMITS)
        found += [f for i, label in enumerate(pattern) for f in geminy.on_beat(float(i), 1.0, label)]
    found += [f for t in (0.0, 1.0, 3.5, 8.0) for f in pauses.on_beat(t, 1.0, BeatFreeSignal())]
    for kind, rr in (("tachycardia", 0.3), ("bradycardia", 2.0)):
        rates = RateRule(kind, DEFAULT_LIMITS)
        found += [f for i in range(60) for f in rates.on_beat(i * rr, rr)]
    for kind in BURDEN_KEYS:
        burden = DailyBurden(DEFAULT_LIMITS, kind=kind)
        found += [*burden.add(0.0, 86400.0, is_af=True), *burden.finish()]
    return [*found, *PacingRule(130.0, Contexts(paced=True)).start()]


def vital_findings() -> list[Finding]:
    """At least one finding of every rule on vital signs."""
    rules = VitalRules(DEFAULT_LIMITS)
    measured: list[tuple[str, float, tuple[str, ...]]] = []
    for systolic in (*[120.0] * 28, *[160.0] * 28, 200.0, 80.0):
        measured += [("systolic", systolic, ("irregular_pulse",)), ("diastolic", 70.0, ())]
    measured += [("spo2", 80.0, ()), *[("weight", 80.0, ())] * 9, *[("weight", 83.0, ())] * 3]
    measured += [("temperature", 40.0, ()), ("temperature", 34.0, ())]
    found, at_us = [], 0
    for kind, value, flags in measured:
        at_us += 0 if kind == "diastolic" else 6 * 3600 * 1_000_000
        at_us += 86400 * 1_000_000 if kind == "weight" else 0
        found += rules.feed(kind, value, at_us, flags)
    return found


def test_the_rules_measure_every_number_in_the_reason_texts() -> None:
    texts_file = Path(__file__).parents[2] / "cloud" / "page" / "static" / "lang" / "en.json"
    reasons = json.loads(texts_file.read_text(encoding="utf-8"))["reason"]
    findings = [*ecg_findings(), *vital_findings()]
    for result in findings:
        if raises_alert(result) and (result.kind, result.end_s) != ("bp_crisis", None):
            wanted = set(re.findall(r"\{(\w+)\}", reasons[f"{result.kind}.criterion"]))
            assert wanted <= result.measured.keys(), result
    technical = {"models_refused", "buffer_nearly_full", "buffer_damaged", "pairing_lost"}
    from_samples = {"af", "vf", "asystole", "no_beats", "no_signal"}
    assert {result.kind for result in findings} == PRIORITIES.keys() - {*from_samples, *technical}
