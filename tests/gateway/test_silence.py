"""Silence is an alarm: a signal that is lost is one alert `no_signal` with its reason, until it is back."""

from collections.abc import Sequence

import numpy as np
import pytest

from config.limits import DEFAULT_LIMITS
from drivers.readings import Intervals, Reading, Status, Vital, Waveform
from gateway.models import LoadedModels, load_models
from gateway.pipeline import Pipeline
from gateway.timeline import Arrival
from models.analysis import EcgAnalysis
from sync.records import AlertRecord
from tests.signal.rhythms import Samples, regular

RATE_HZ = 130
START_S = 1_800_000_000
GOOD_S, LOST_S, BACK_S = 30, 615, 20


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return load_models()


def lost_signal(reason: str) -> Samples:
    """The signal while it is lost; of a strap that was taken off, 20 uV of noise, which could be an asystole."""
    n, random = LOST_S * RATE_HZ, np.random.default_rng(3)
    return {
        "lead_off": random.normal(0.0, 0.02, n),
        "flat": np.full(n, 0.07),
        "rail": np.full(n, 5.0),
        "hum": 1.5 * np.sin(2 * np.pi * 50 * np.arange(n) / RATE_HZ),
        "noise": random.normal(0.0, 0.5, n),
    }[reason]


def second_of(ecg: Samples, second: int) -> Waveform:
    counts = np.round(ecg[second * RATE_HZ : (second + 1) * RATE_HZ] * 1000).astype(int)
    return Waveform("ecg", tuple(counts.tolist()), float(RATE_HZ), 0.001)


def run(pipeline: Pipeline, seconds: Sequence[Sequence[Reading]]) -> list[tuple[int, AlertRecord]]:
    """Feed the readings of each second; return the alerts with their second."""
    found = []
    for second, readings in enumerate(seconds):
        now = Arrival((START_S + second) * 1_000_000, second * 1_000_000_000)
        records = (*pipeline.advance_to(now).records, *pipeline.feed(readings, now).records)
        found += [(second, record) for record in records if isinstance(record, AlertRecord)]
    return found


def heart_rate(bpm: int, *, has_contact: bool) -> tuple[Reading, ...]:
    """A frame of a strap: `drivers.heart_rate`."""
    beats = (Intervals("rr", (1024 * 60 // bpm,)),) if has_contact else ()
    return (Vital("heart_rate", bpm if has_contact else 0), Status("skin_contact", has_contact), *beats)


def assert_one_alert(found: Sequence[tuple[int, AlertRecord]], reason: str, *, within_s: int) -> None:
    """One alert: low after a minute, medium after ten, and ended when the signal is back."""
    assert {alert.kind for _, alert in found} == {"no_signal"}
    assert len({alert.id for _, alert in found}) == 1
    assert all(alert.reasons == ("no_signal.criterion", f"no_signal.{reason}") for _, alert in found)
    (low_s, low), (medium_s, medium), (ended_s, ended) = found
    assert (low.priority, medium.priority, ended.priority) == ("low", "medium", "medium")
    assert (low.end_us, medium.end_us, medium.raised_us) == (None, None, medium.decided_us)
    assert ended.end_us is not None
    for second, due_s in ((low_s, GOOD_S + 60), (medium_s, GOOD_S + 600), (ended_s, GOOD_S + LOST_S + 5)):
        assert due_s - 1 <= second <= due_s + within_s


@pytest.mark.parametrize("reason", ["lead_off", "flat", "rail", "hum", "noise"])
def test_an_ecg_that_is_lost_is_one_alert_until_it_is_back(models: LoadedModels, reason: str) -> None:
    before, after = (regular("narrow", 72, rate_hz=RATE_HZ, seconds=seconds, seed=1).mv for seconds in (GOOD_S, BACK_S))
    ecg = np.concatenate((before, lost_signal(reason), after))
    lost = range(GOOD_S, GOOD_S + LOST_S)
    status = [Status("skin_contact", reason != "lead_off" or second not in lost) for second in range(len(ecg) // RATE_HZ)]
    seconds = [(one, second_of(ecg, second)) for second, one in enumerate(status)]
    found = run(Pipeline("strap", DEFAULT_LIMITS, models), seconds)
    assert_one_alert(found, reason, within_s=10)


def test_a_strap_without_an_ecg_that_was_taken_off_is_one_alert_until_it_is_worn_again() -> None:
    contact = [True] * GOOD_S + [False] * LOST_S + [True] * BACK_S
    seconds = [heart_rate(72, has_contact=one) for one in contact]
    assert_one_alert(run(Pipeline("strap", DEFAULT_LIMITS, LoadedModels()), seconds), "lead_off", within_s=1)


def test_the_alert_about_the_contact_ends_when_the_strap_is_silent_and_when_its_ecg_comes() -> None:
    off = [heart_rate(72, has_contact=False)] * 70
    (_, raised), (second, ended) = run(Pipeline("strap", DEFAULT_LIMITS, LoadedModels()), [*off, *[()] * 20])
    assert (second, ended.id, ended.end_us) == (80, raised.id, (START_S + 69) * 1_000_000)
    ecg = regular("narrow", 72, rate_hz=RATE_HZ, seconds=5, seed=1).mv
    with_ecg = [(second_of(ecg, second),) for second in range(5)]
    (_, raised), (second, ended) = run(Pipeline("strap", DEFAULT_LIMITS, LoadedModels()), [*off, *with_ecg])
    assert (second, ended.id, ended.end_us) == (70, raised.id, (START_S + 69) * 1_000_000)


def test_what_a_sensor_said_of_its_contact_counts_for_ten_seconds(models: LoadedModels) -> None:
    """A strap that goes on without its heart rates must not stay without a watch."""
    pause = np.random.default_rng(3).normal(0.0, 0.02, 40 * RATE_HZ)
    ecg = np.concatenate((regular("narrow", 72, rate_hz=RATE_HZ, seconds=GOOD_S, seed=1).mv, pause))
    seconds: list[tuple[Reading, ...]] = [(second_of(ecg, second),) for second in range(len(ecg) // RATE_HZ)]
    seconds[GOOD_S] = (Status("skin_contact", False), *seconds[GOOD_S])
    found = run(Pipeline("strap", DEFAULT_LIMITS, models), seconds)
    assert {alert.kind for _, alert in found} == {"pause", "asystole"}
    assert min(second for second, _ in found) >= GOOD_S + 10


def test_an_open_asystole_stays_open_as_lost_when_the_strap_is_taken_off(models: LoadedModels) -> None:
    standstill = np.random.default_rng(3).normal(0.0, 0.02, 60 * RATE_HZ)
    ecg = np.concatenate((regular("narrow", 72, rate_hz=RATE_HZ, seconds=GOOD_S, seed=1).mv, standstill))
    off_s = GOOD_S + 20
    seconds = [(Status("skin_contact", second < off_s), second_of(ecg, second)) for second in range(len(ecg) // RATE_HZ)]
    found = run(Pipeline("strap", DEFAULT_LIMITS, models), seconds)
    asystole = [alert for _, alert in found if alert.kind in {"pause", "asystole"}]
    assert (asystole[-1].end_us, asystole[-1].priority, asystole[-1].reasons[-1]) == (None, "high", "latched.signal_lost")
    ((second, silent),) = [(second, alert) for second, alert in found if alert.kind == "no_signal"]
    assert (silent.priority, second - off_s) == ("medium", 5)


def test_a_standstill_is_seen_through_hum_through_which_beats_were_seen(models: LoadedModels) -> None:
    beats = regular("narrow", 72, rate_hz=RATE_HZ, seconds=GOOD_S, seed=1).mv
    ecg = np.concatenate((beats, np.random.default_rng(3).normal(0.0, 0.02, 20 * RATE_HZ)))
    ecg += 0.5 * np.sin(2 * np.pi * 50 * np.arange(ecg.size) / RATE_HZ)
    found = run(Pipeline("strap", DEFAULT_LIMITS, models), [(second_of(ecg, second),) for second in range(len(ecg) // RATE_HZ)])
    assert [(alert.kind, alert.priority) for _, alert in found if alert.kind != "no_signal"][:2] == [
        ("pause", "high"),
        ("asystole", "high"),
    ]


def test_without_contact_nothing_is_called_a_standstill() -> None:
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, LoadedModels())
    analysis.push(regular("narrow", 72, rate_hz=RATE_HZ, seconds=GOOD_S, seed=1).mv)
    analysis.has_contact = False
    findings = analysis.push(np.random.default_rng(3).normal(0.0, 0.02, 60 * RATE_HZ)).findings
    assert [finding.kind for finding in findings if finding.kind in {"pause", "asystole", "no_beats"}] == []
