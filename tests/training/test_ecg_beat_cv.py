"""Figures and calibration of the cross-validation of `ecg_beat`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluation import beats
from evaluation.ec57 import Reference
from evaluation.statistics import softmax
from models.atrial_rhythms import AtrialRhythms
from models.early_beats import EarlyBeats
from models.inference.ecg_beat import (
    CLASSES,
    HISTORY_INTERVALS,
    RR_INPUTS,
    SHAPE_FEATURES,
    WAVE_SAMPLES,
    N,
    S,
    choose_classes,
    find_early_beats,
)
from training.beat_cv import (
    FOLDS,
    Calibration,
    RecordPrediction,
    confusion,
    fit_calibration,
    nested_calibrations,
    pair_with_reference,
)
from training.beat_data import RECORDS, Beats

DS1 = {101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230}
"""De Chazal, O'Dwyer & Reilly 2004, table II."""

WEIGHTED = Calibration(1.0, np.zeros(4), np.array([1.0, 3.0, 0.8, 1.0]))


def random_prediction(name: str, seed: int, count: int = 100) -> RecordPrediction:
    random = np.random.default_rng(seed)
    truth = random.choice(4, count, p=(0.8, 0.1, 0.09, 0.01))
    logits = random.normal(0, 1, (count, 4)) + 4.0 * np.eye(4)[truth]
    return create_prediction(name, logits, truth)


def create_prediction(name: str, logits: NDArray[np.float64], truth: NDArray[np.int64]) -> RecordPrediction:
    """Return a prediction in which all beats are labelled, and none is in AF or early."""
    none = np.zeros(truth.size, np.bool_)
    missed, interval_s = np.zeros(5, np.int64), np.full(truth.size, 0.8)
    return RecordPrediction(name, logits, truth.astype(np.int64), missed, none, none, none, interval_s, none)


def create_beats(times_s: NDArray[np.float64], random: np.random.Generator) -> Beats:
    """Return beats of which half are early; one in ten was not received."""
    count = times_s.size
    wave = np.where(random.random((count, 1)) < 0.1, np.nan, np.zeros((count, WAVE_SAMPLES))).astype(np.float32)
    rr_s = np.full((count, RR_INPUTS), 0.8, np.float32)
    rr_s[random.random(count) < 0.5, HISTORY_INTERVALS - 1] = 0.5
    return Beats(times_s, wave, wave, rr_s, np.zeros((count, SHAPE_FEATURES), np.float32), np.zeros(count, np.int8))


def test_every_record_is_held_out_once() -> None:
    held_out = [name for fold in FOLDS for name in fold]
    assert sorted(held_out) == sorted(RECORDS)
    assert {name for name in held_out if name.startswith("mitdb/")} == {f"mitdb/{number}" for number in DS1}


def test_records_that_look_like_one_person_are_held_out_together() -> None:
    """Data README: svdb 828, 829, 876 and 877, 878 and 879, 882 and 883."""
    for same in ((828, 829, 876, 877), (878, 879), (882, 883)):
        assert sum(any(f"svdb/{number}" in fold for number in same) for fold in FOLDS) == 1


@given(seed=st.integers(0, 1000))
def test_counts_match_those_of_the_evaluation(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth_s = np.sort(random.uniform(290, 400, 60))
    labels = tuple(random.choice(list("NSVFQ"), 60).tolist())
    found_s = np.sort(np.concatenate((truth_s[random.random(60) < 0.8] + 0.02, random.uniform(290, 400, 10))))
    logits = random.normal(0, 1, (found_s.size, 4))
    truth, found = Reference(truth_s, labels), create_beats(found_s, random)
    labels_called, before_s, early_beats, atrial_rhythms = [], np.nan, EarlyBeats(), AtrialRhythms()
    for shares, missing, rr_s in zip(softmax(logits, 1.0), np.isnan(found.wave_mv[:, 0]), found.rr_s, strict=True):
        is_early = find_early_beats(rr_s[None])
        judged = early_beats.adjust(shares) if is_early[0] and not missing else shares
        index = choose_classes(judged[None], WEIGHTED.weights, is_early, rr_s[None, HISTORY_INTERVALS - 1], before_s)[0]
        rr_before_s = float(rr_s[HISTORY_INTERVALS - 1])
        before_s = rr_before_s if index == S and not missing else np.nan
        label = "S" if atrial_rhythms.push(rr_before_s) and index == N else CLASSES[index]
        labels_called.append("?" if missing else label)
    expected = beats.confusion(truth, (found_s, labels_called))
    assert confusion(pair_with_reference("1", truth, found, logits), WEIGHTED) == expected


def test_calibration_recovers_a_known_temperature() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (20_000, 4))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    truth = (random.random((20_000, 1)) > shares.cumsum(-1)).sum(-1)
    found = fit_calibration([create_prediction("1", 3.0 * logits, truth)])
    assert found.temperature == pytest.approx(3.0, rel=0.05)
    np.testing.assert_allclose(found.bias - found.bias.mean(), 0, atol=0.3)


def test_the_calibration_of_a_fold_depends_only_on_the_others() -> None:
    folds = [[random_prediction("1", 1)], [random_prediction("2", 2)], [random_prediction("3", 3)]]
    before = nested_calibrations(folds)
    changed = nested_calibrations([[random_prediction("1", 9)], *folds[1:]])
    assert before["1"].temperature == changed["1"].temperature
    assert before["2"].temperature != changed["2"].temperature
