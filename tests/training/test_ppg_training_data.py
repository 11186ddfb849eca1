"""Training data of `ppg_quality`: simulated pulse times, artefacts, folds by person and labels."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from models.inference.ppg_quality import WINDOW_SAMPLES
from training.ppg_augmentation import ARTEFACTS, add_gaps, augment
from training.ppg_data import FOLDS, SIMULATED, Source, detect_pulses, sample_windows, split_folds
from training.ppg_synth import simulate_ppg

Samples = NDArray[np.float64]


@pytest.mark.parametrize("seed", range(6))
def test_simulated_pulses_are_at_their_stated_times(seed: int) -> None:
    truth = simulate_ppg(30.0, np.random.default_rng(seed))
    assert truth.ppg.size == 1500
    assert np.isfinite(truth.ppg).all()
    found = np.array([pulse.t_s for pulse in detect_pulses(truth.ppg)])
    inner = truth.pulses_s[(truth.pulses_s > 1) & (truth.pulses_s < 29)]
    near = np.array([np.abs(found - t).min() for t in inner])
    assert (near < 0.1).mean() > 0.8


@pytest.mark.parametrize("artefact", dict.fromkeys(ARTEFACTS))
def test_every_artefact_keeps_the_length_and_changes_the_signal(
    artefact: Callable[[Samples, np.random.Generator], Samples],
) -> None:
    x = np.sin(np.arange(200) / 8)
    for seed in range(5):
        out = artefact(x.copy(), np.random.default_rng(seed))
        assert out.shape == x.shape
        assert np.isfinite(out).all()
    assert any(not np.array_equal(artefact(x.copy(), np.random.default_rng(seed)), x) for seed in range(5))


def test_augmentation_is_reproducible_and_does_not_change_its_input() -> None:
    x = np.sin(np.arange(3000) / 8)
    before = x.copy()
    one, two = (augment(x, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, two, equal_nan=True)
    assert np.array_equal(x, before)
    assert 0 < np.isnan(add_gaps(x, np.random.default_rng(4))).sum() < 1000


def sources() -> list[Source]:
    found = []
    for index in range(7):
        truth = simulate_ppg(60.0, np.random.default_rng(100 + index))
        found.append(Source(f"person {index}", truth.ppg, np.array([pulse.t_s for pulse in detect_pulses(truth.ppg)])))
    return found


def test_no_person_is_in_two_folds() -> None:
    groups = split_folds(sources())
    everyone = [name for group in groups for name in group]
    assert len(groups) == FOLDS
    assert len(everyone) == len(set(everyone)) == 7 + FOLDS


def test_windows_have_both_labels_and_an_origin() -> None:
    windows = sample_windows(sources(), 15, seed=5)
    assert windows.ppg.shape == (windows.good.size, WINDOW_SAMPLES)
    assert 0.1 < windows.good.mean() < 0.9
    assert {name.split()[0] for name in windows.origin} == {"person", SIMULATED}
    unchanged = windows.select(~windows.augmented & np.char.startswith(windows.origin, "person"))
    assert unchanged.good.mean() > 0.8
    again = sample_windows(sources(), 15, seed=5)
    assert np.array_equal(again.good, windows.good)
    assert np.array_equal(again.ppg, windows.ppg, equal_nan=True)
