"""Figures and choices of the cross-validation of `ecg_beat`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluation import beats
from evaluation.ec57 import Reference
from evaluation.statistics import softmax
from models.inference.ecg_beat import (
    CLASSES,
    HISTORY,
    INTERVALS,
    SHAPE_FEATURES,
    WAVE_SAMPLES,
    choose_classes,
    find_early_beats,
)
from training.beat_cv import FOLDS, Calibration, Scored, calibrated, confusion, nested, scored
from training.beat_data import RECORDS, Beats

DS1 = {101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230}
"""De Chazal, O'Dwyer & Reilly 2004, table II."""

WEIGHED = Calibration(1.0, np.zeros(4), np.array([1.0, 3.0, 0.8, 1.0]))


def record(name: str, seed: int, count: int = 100) -> Scored:
    random = np.random.default_rng(seed)
    truth = random.choice(4, count, p=(0.8, 0.1, 0.09, 0.01))
    logits = random.normal(0, 1, (count, 4)) + 4.0 * np.eye(4)[truth]
    return plain(name, logits, truth)


def plain(name: str, logits: NDArray[np.float64], truth: NDArray[np.int64]) -> Scored:
    """All beats are labelled, none is in AF or early."""
    none = np.zeros(truth.size, np.bool_)
    return Scored(name, logits, truth.astype(np.int64), np.zeros(5, np.int64), none, none, none, np.full(truth.size, 0.8))


def found_at(times_s: NDArray[np.float64], random: np.random.Generator) -> Beats:
    """Beats of which one in ten was hardly received, half of them early."""
    count = times_s.size
    wave = np.where(random.random((count, 1)) < 0.1, np.nan, np.zeros((count, WAVE_SAMPLES))).astype(np.float32)
    rr_s = np.full((count, INTERVALS), 0.8, np.float32)
    rr_s[random.random(count) < 0.5, HISTORY - 1] = 0.5
    return Beats(times_s, wave, wave, rr_s, np.zeros((count, SHAPE_FEATURES), np.float32), np.zeros(count, np.int8))


def test_every_record_is_held_out_once() -> None:
    held = [name for fold in FOLDS for name in fold]
    assert sorted(held) == sorted(RECORDS)
    assert {int(name) for name in held} == DS1


@given(seed=st.integers(0, 1000))
def test_counts_are_those_of_the_evaluation(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth_s = np.sort(random.uniform(290, 400, 60))
    labels = tuple(random.choice(list("NSVFQ"), 60).tolist())
    found_s = np.sort(np.concatenate((truth_s[random.random(60) < 0.8] + 0.02, random.uniform(290, 400, 10))))
    logits = random.normal(0, 1, (found_s.size, 4))
    truth, found = Reference(truth_s, labels), found_at(found_s, random)
    said, before_s = [], np.nan
    for shares, hidden, rr_s in zip(softmax(logits, 1.0), np.isnan(found.wave_mv[:, 0]), found.rr_s, strict=True):
        place = choose_classes(shares[None], WEIGHED.weights, find_early_beats(rr_s[None]), rr_s[None, HISTORY - 1], before_s)[
            0
        ]
        said.append("?" if hidden else CLASSES[place])
        before_s = float(rr_s[HISTORY - 1]) if said[-1] == "S" else np.nan
    expected = beats.confusion(truth, (found_s, said))
    assert confusion(scored("1", truth, found, logits), WEIGHED) == expected


def test_calibration_finds_the_temperature_that_was_put_in() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (20_000, 4))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    truth = (random.random((20_000, 1)) > shares.cumsum(-1)).sum(-1)
    found = calibrated([plain("1", 3.0 * logits, truth)])
    assert found.temperature == pytest.approx(3.0, rel=0.05)
    np.testing.assert_allclose(found.bias - found.bias.mean(), 0, atol=0.3)


def test_a_fold_is_judged_by_what_the_others_say() -> None:
    folds = [[record("1", 1)], [record("2", 2)], [record("3", 3)]]
    before = nested(folds)
    changed = nested([[record("1", 9)], *folds[1:]])
    assert before["1"].temperature == changed["1"].temperature
    assert before["2"].temperature != changed["2"].temperature
