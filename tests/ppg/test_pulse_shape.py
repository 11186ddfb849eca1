"""Pulses of published shapes are found at any rate, and periodic motion is noise: synthetic waves with known answers."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from config.contexts import Contexts
from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.inference.ppg_quality import PpgQuality
from models.ppg_analysis import PpgAnalysis, PpgStep
from models.signal.ppg_shape import is_symmetrical, repeats_in_pairs, stretch_halves

Samples = NDArray[np.float64]
RATE_HZ: Final = 50.0
SECONDS: Final = 40

SHAPES: Final[dict[str, Callable[[Samples], Samples]]] = {
    # Two waves of Tang et al., "Synthetic photoplethysmogram generation" (2020); phase 0 to 1 of a pulse.
    "two waves": lambda p: (
        0.82 * np.exp(-((2 * np.pi * (p - 0.25)) ** 2) / 0.72) + 0.4 * np.exp(-((2 * np.pi * (p - 0.5)) ** 2) / 2.88)
    ),
    # A Windkessel: ejection, then exponential run-off.
    "run-off": lambda p: np.minimum(p / 0.15, 1) * np.exp(-4 * np.maximum(p - 0.15, 0)),
    # A fundamental and one harmonic, as in a wave that is filtered strongly.
    "two harmonics": lambda p: np.sin(2 * np.pi * p) + 0.3 * np.sin(4 * np.pi * p + 0.5),
}


@pytest.fixture(scope="module")
def quality() -> PpgQuality:
    return PpgQuality.load_release()


def pulses(shape: Callable[[Samples], Samples], bpm: float, seed: int = 1) -> Samples:
    """A pulse wave whose intervals vary by 2 %, with noise of 1 %."""
    rng = np.random.default_rng(seed)
    intervals_s = 60 / bpm * (1 + rng.normal(0, 0.02, round(SECONDS * bpm / 60) + 9))
    onsets_s = np.concatenate(([0.0], np.cumsum(intervals_s)))
    t = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ
    index = np.searchsorted(onsets_s, t, "right") - 1
    return np.asarray(shape((t - onsets_s[index]) / intervals_s[index]) + rng.normal(0, 0.01, t.size))


def motion(rate_hz: float, swing: float, noise: float, seed: int = 1) -> Samples:
    """A sine whose amplitude swings by this share, with noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ
    return np.asarray((1 + swing * np.sin(0.3 * np.pi * t)) * np.sin(2 * np.pi * rate_hz * t) + rng.normal(0, noise, t.size))


def analyse(ppg: Samples, quality: PpgQuality, sizes: Sequence[int] = (10**6,)) -> PpgStep:
    analysis, steps, at, turn = PpgAnalysis(RATE_HZ, DEFAULT_LIMITS, None, quality), list[PpgStep](), 0, 0
    while at < ppg.size:
        size = sizes[turn % len(sizes)]
        steps.append(analysis.push(ppg[at : at + size]))
        at, turn = at + size, turn + 1
    steps.append(analysis.finish())
    return PpgStep(
        tuple(pulse for step in steps for pulse in step.pulses),
        tuple(finding for step in steps for finding in step.findings),
        tuple(good for step in steps for good in step.good),
    )


def conclusive(findings: Sequence[Finding]) -> set[str]:
    return {finding.kind for finding in findings if finding.inconclusive is None}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bpm", [40, 60, 90, 118, 122, 140, 160, 180, 200])
def test_a_pulse_of_any_published_shape_is_judged_at_its_rate(shape: str, bpm: float, quality: PpgQuality) -> None:
    step = analyse(pulses(SHAPES[shape], bpm), quality)
    assert np.mean(step.good[5:-5]) >= 0.95
    intervals_s = [pulse.pp_s for pulse in step.pulses if pulse.pp_s is not None]
    assert 60 / np.median(intervals_s) == pytest.approx(bpm, rel=0.01)
    assert conclusive(step.findings) == ({"tachycardia"} if bpm >= 140 else {"bradycardia"} if bpm <= 40 else set())


@pytest.mark.parametrize("rate_hz", [1.0, 1.5, 2.0, 2.5, 3.0, 3.5])
@pytest.mark.parametrize(("swing", "noise"), [(0.0, 0.01), (0.4, 0.01), (0.4, 0.1)])
def test_a_motion_to_and_fro_is_noise(rate_hz: float, swing: float, noise: float, quality: PpgQuality) -> None:
    step = analyse(motion(rate_hz, swing, noise), quality)
    assert np.mean(step.good) <= 0.05
    assert conclusive(step.findings) == set()


def test_motion_during_a_pulse_does_not_change_the_rate_that_was_found(quality: PpgQuality) -> None:
    ppg = np.concatenate((pulses(SHAPES["run-off"], 80), motion(2.5, 0.2, 0.02), pulses(SHAPES["run-off"], 80, seed=2)))
    assert conclusive(analyse(ppg, quality).findings) == set()


@pytest.mark.parametrize("sizes", [(1,), (17, 73), (50,), (999, 1)])
def test_a_fast_pulse_has_the_same_result_for_any_chunk_sizes(sizes: tuple[int, ...], quality: PpgQuality) -> None:
    ppg = pulses(SHAPES["run-off"], 180)
    ppg[900:930] = np.nan
    assert repr(analyse(ppg, quality, sizes)) == repr(analyse(ppg, quality))


def test_a_stretched_half_has_half_of_the_rate() -> None:
    t = np.arange(500) / RATE_HZ
    for half, begin in zip(stretch_halves(np.sin(2 * np.pi * 3 * t)), (0.0, 5.0), strict=True):
        assert half.size == 500
        assert np.abs(half - np.sin(2 * np.pi * 3 * (begin + t / 2)))[:-1].max() < 0.05
    with_gap = np.where((t > 2) & (t < 3), np.nan, t)
    first, second = stretch_halves(with_gap)
    assert np.isnan(first).mean() == pytest.approx(0.2, abs=0.01)
    assert not np.isnan(second).any()


def test_high_dicrotic_waves_are_not_taken_for_a_fast_pulse() -> None:
    t = np.arange(500) / RATE_HZ
    humps = sum(np.exp(-0.5 * ((t - at) / 0.08) ** 2) for at in np.arange(0, 10, 0.8))
    dicrotic = sum(np.exp(-0.5 * ((t - at) / 0.08) ** 2) for at in np.arange(0.35, 10, 0.8))
    assert repeats_in_pairs(np.asarray(humps + 0.8 * dicrotic), 0.4, 0.8)
    assert not repeats_in_pairs(pulses(SHAPES["run-off"], 150)[:500], 0.4, 0.8)
    assert not repeats_in_pairs(np.full(500, np.nan), 0.4, 0.8)


@pytest.mark.parametrize("gain", [1e-9, 1.0, -1.0, 1e12])
def test_the_shape_does_not_depend_on_gain_or_polarity(gain: float) -> None:
    assert not is_symmetrical(gain * pulses(SHAPES["run-off"], 180)[:500])
    assert is_symmetrical(gain * motion(2.5, 0.3, 0.02)[:500])


def test_in_known_af_a_fast_mean_rate_of_the_pulse_is_reported(quality: PpgQuality) -> None:
    ppg = np.concatenate([pulses(SHAPES["run-off"], 120, seed) for seed in range(18)])  # 12 min
    analysis = PpgAnalysis(RATE_HZ, DEFAULT_LIMITS, None, quality, Contexts(known_af=True))
    findings = [*analysis.push(ppg).findings, *analysis.finish().findings]
    assert {(finding.kind, finding.source) for finding in findings} == {("tachycardia", "rule:mean_rate")}
    assert [finding.end_s is None for finding in findings] == [True, False]
