"""What the analysis of an ECG has learnt of the patient's rhythm survives a restart, with the time in between."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from gateway.alert_tracker import AlertTracker
from gateway.ppg_waveform import PpgWaveformAnalysis
from gateway.waveform_analysis import EcgWaveformAnalysis
from models.inference.models import Models
from models.inference.rr_af import is_conclusive
from sync.records import AlertRecord, FindingRecord

Samples = NDArray[np.float64]
Intervals = NDArray[np.float64]
Flags = NDArray[np.bool_]

RATE_HZ = 130.0
START_US = 1_800_000_000_000_000
SINUS_S, SILENCE_S = 20.0, 17.0


def sinus_mv() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    t = np.arange(round(SINUS_S * RATE_HZ)) / RATE_HZ
    beats = sum(np.exp(-(((t - at) / 0.012) ** 2) / 2) for at in np.arange(0.5, SINUS_S, 0.8))
    return beats + np.random.default_rng(3).normal(0, 0.01, t.size)


def silence_mv() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(4).normal(0, 0.01, round(SILENCE_S * RATE_HZ))


def analysis(saved: Mapping[str, Any] | None = None) -> EcgWaveformAnalysis:
    return EcgWaveformAnalysis(AlertTracker("strap-1", has_rhythm=True), RATE_HZ, DEFAULT_LIMITS, Models(), saved)


def state_after_sinus() -> dict[str, Any]:
    first = analysis()
    first.process_samples(sinus_mv(), START_US, RATE_HZ, START_US)
    saved: dict[str, Any] = json.loads(json.dumps(first.state()))
    return saved


@pytest.mark.parametrize(("away_s", "expected"), [(60.0, "asystole"), (3500.0, "asystole"), (3600.0, "no_beats")])
def test_beats_before_a_restart_are_known_for_an_hour(away_s: float, expected: str) -> None:
    at_us = START_US + round((SINUS_S + away_s) * 1e6)
    output = analysis(state_after_sinus()).process_samples(silence_mv(), at_us, RATE_HZ, at_us)
    kinds = [record.kind for record in output.records if isinstance(record, FindingRecord)]
    assert kinds[-1] == expected


def test_a_restart_without_a_sample_loses_nothing() -> None:
    saved = state_after_sinus()
    assert analysis(saved).state()["rhythm"] == saved["rhythm"]


def test_the_first_start_has_learnt_nothing() -> None:
    assert analysis().state()["rhythm"] == {}


class Irregularity:
    """A stand-in for `rr_af`: AF where successive intervals differ by more than 15 % on average, without much doubt."""

    name, version, window, on_threshold = "irregularity", "1", 64, 0.5

    def is_conclusive(self, rr_s: Intervals, valid: Flags) -> bool:
        return bool(is_conclusive(rr_s, valid))

    def probability(self, rr_s: Intervals, valid: Flags) -> float:
        return 0.97 if np.abs(np.diff(rr_s[valid])).mean() > 0.15 * rr_s[valid].mean() else 0.01


def brief_af_mv() -> Samples:
    """A minute of steady beats, two of irregular ones, three of steady ones."""
    irregular_s = np.random.default_rng(3).uniform(0.4, 1.0, 170)
    at_s = np.cumsum([0.8] * 75 + irregular_s.tolist() + [0.8] * 225)
    t = np.arange(round((at_s[-1] + 1) * RATE_HZ)) / RATE_HZ
    mv = np.random.default_rng(4).normal(0, 0.01, t.size)
    for beat_s in at_s:
        near = slice(max(round((beat_s - 0.1) * RATE_HZ), 0), round((beat_s + 0.1) * RATE_HZ))
        mv[near] += np.exp(-(((t[near] - beat_s) / 0.012) ** 2) / 2)
    return mv


def test_brief_af_is_known_after_a_restart() -> None:
    waits_s, saved, at_us = [], None, START_US
    for _ in range(2):
        one = EcgWaveformAnalysis(
            AlertTracker("strap-1", has_rhythm=True), RATE_HZ, DEFAULT_LIMITS, Models(rr_af=Irregularity()), saved
        )
        found = []
        for second in np.array_split(brief_af_mv(), 360):
            found += one.process_samples(second, at_us, RATE_HZ, at_us + 1_000_000).records
            at_us += round(second.size / RATE_HZ * 1e6)
        raised = next(record for record in found if isinstance(record, AlertRecord) and record.kind == "af")
        waits_s.append((raised.decided_us - raised.onset_us) / 1e6)
        saved = json.loads(json.dumps(one.state()))
        at_us += 3_600_000_000
    assert waits_s[0] < waits_s[1]
    assert len(saved["rhythm"]["learnt"]["brief_af_s"]) == 2


def test_brief_episodes_of_a_pulse_wave_are_known_after_a_restart() -> None:
    saved = {"rhythm": {"at_us": START_US, "brief_ages_s": [100.0]}}
    one = PpgWaveformAnalysis(AlertTracker("ring"), 50.0, DEFAULT_LIMITS, Models(rr_af=Irregularity()), saved)
    assert one.state() == saved
    wave = np.sin(2 * np.pi * 1.2 * np.arange(500) / 50.0)
    one.process_samples(wave, START_US + 60_000_000, 50.0, START_US + 70_000_000)
    again = json.loads(json.dumps(one.state()))["rhythm"]
    assert again["at_us"] == pytest.approx(START_US + 70_000_000, abs=1_000_000)
    assert again["brief_ages_s"] == [pytest.approx(100.0 + (again["at_us"] - START_US) / 1e6, abs=0.1)]
