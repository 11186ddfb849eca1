"""Beats that the detector finds in broadband noise raise no alert of high priority; the same beats in a signal do."""

from dataclasses import replace

import numpy as np
import pytest

from config.limits import DEFAULT_LIMITS
from gateway.models import load_models
from models.analysis import EcgAnalysis
from models.findings import Finding
from models.inference.models import Models
from models.signal.filters import Samples
from models.signal.rhythm_window import NOISE, ORGANISED
from tests.models.known_beats import NORMAL, VENTRICULAR, ecg, rhythm
from tests.signal.rhythms import noise

RATE_HZ = 250.0
DANGEROUS = {"vf", "vt", "pause", "asystole", "bradycardia"}


class StubNet:
    """Stands for `ecg_organised`: calls every window the same."""

    name, version = "ecg_organised", "0"

    def __init__(self, rhythm: int) -> None:
        self._probabilities = tuple(0.96 if index == rhythm else 0.01 for index in range(5))

    def classify(self, mv: Samples) -> tuple[float, ...]:
        del mv
        return self._probabilities


@pytest.fixture(scope="module")
def models() -> Models:
    loaded = load_models()
    assert not loaded.refused
    return loaded


def analyse(mv: Samples, models: Models, rate_hz: float = RATE_HZ) -> list[Finding]:
    """Return the conclusive findings that begin, or become worse."""
    analysis = EcgAnalysis(rate_hz, DEFAULT_LIMITS, models)
    findings = (*analysis.push(mv).findings, *analysis.finish().findings)
    return [finding for finding in findings if finding.end_s is None and not finding.inconclusive]


def kinds_with(net: int, mv: Samples, models: Models) -> set[str]:
    """Return the kinds found where the net calls every window `net`."""
    return {finding.kind for finding in analyse(mv, replace(models, ecg_organised=StubNet(net)))}  # type: ignore[arg-type]


def test_ventricular_beats_are_a_tachycardia_unless_the_monitor_hears_noise(models: Models) -> None:
    sinus = rhythm(NORMAL, 70, 30)
    mv = ecg([*sinus, *rhythm(VENTRICULAR, 160, 20, start_s=sinus[-1][0] + 0.5)], 52.0, RATE_HZ)
    assert "vt" in kinds_with(ORGANISED, mv, models)
    assert "vt" not in kinds_with(NOISE, mv, models)


def test_slow_beats_are_a_bradycardia_unless_the_monitor_hears_noise(models: Models) -> None:
    with_slow_waves = (*NORMAL, (0.9, 0.7, 0.06))
    mv = ecg(rhythm(with_slow_waves, 27, 50), 50.0, RATE_HZ)
    assert "bradycardia" in kinds_with(ORGANISED, mv, models)
    assert "bradycardia" not in kinds_with(NOISE, mv, models)


@pytest.mark.parametrize("rate_hz", [125.0, 130.0, 250.0, 360.0, 500.0])
@pytest.mark.parametrize("noise_mv", [0.3, 2.0])
def test_white_noise_without_a_patient_is_no_signal_and_no_rhythm(models: Models, rate_hz: float, noise_mv: float) -> None:
    for seed in range(2):
        kinds = {finding.kind for finding in analyse(noise(75.0, rate_hz, noise_mv, seed), models, rate_hz)}
        assert kinds & DANGEROUS == set()
        assert "no_signal" in kinds


@pytest.mark.parametrize(("rate_hz", "noise_mv", "seed"), [(130.0, 0.6, 1), (130.0, 1.5, 2), (250.0, 0.6, 3), (250.0, 1.5, 3)])
def test_a_signal_lost_in_bursts_of_noise_raises_no_pause_in_the_calm_between(
    models: Models, rate_hz: float, noise_mv: float, seed: int
) -> None:
    t_s = np.arange(round(300 * rate_hz)) / rate_hz
    bursts = noise(300.0, rate_hz, noise_mv, seed) * (1 + 0.8 * np.sin(2 * np.pi * 0.05 * t_s))
    found = analyse(np.concatenate((ecg(rhythm(NORMAL, 70, 28), 25.0, rate_hz), bursts)), models, rate_hz)
    assert {finding.kind for finding in found} & (DANGEROUS | {"short_pause"}) == set()
    assert "no_signal" in {finding.kind for finding in found}


def test_steps_of_a_signal_at_the_limit_of_its_amplifier_are_no_slow_beats(models: Models) -> None:
    at = np.arange(round(120 * RATE_HZ)) % round(7 * RATE_HZ)
    steps = np.where(at < 0.3 * RATE_HZ, -4.5, -5.0)
    kinds = {finding.kind for finding in analyse(np.concatenate((ecg(rhythm(NORMAL, 70, 28), 25.0, RATE_HZ), steps)), models)}
    assert "no_signal" in kinds
    assert "bradycardia" not in kinds
