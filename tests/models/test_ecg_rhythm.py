"""`ecg_rhythm` at run time: its inputs, what it rejects, and its classification of expert-labelled recordings."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import models
from captures import open_recording
from models.inference.ecg_rhythm import (
    CLASSES,
    ROWS,
    WINDOW_SAMPLES,
    EcgRhythm,
    RhythmClassification,
    features,
    record_probabilities,
    rejection_reason,
    windows,
)
from models.inference.session import ModelError
from models.signal.offline import Conditioned, condition

RELEASE = Path(models.__file__).parent / "release"
SIZE_LIMIT = 250_000


@pytest.fixture(scope="module")
def model() -> EcgRhythm:
    return EcgRhythm((RELEASE / "ecg_rhythm.onnx").read_bytes())


@pytest.fixture(scope="module")
def sample(data: Path) -> list[tuple[str, Conditioned]]:
    """The label and the recording of each entry in the Challenge's sample: twelve of each class."""
    folder = data / "cinc2017-sample"
    (reference,) = folder.rglob("REFERENCE*.csv")
    with reference.open(newline="") as file:
        rows = list(csv.reader(file))
    recordings = [(label, open_recording(reference.parent / f"{name}.hea")) for name, label in rows]
    return [(label, condition(recording.mv, recording.rate_hz)) for label, recording in recordings]


def ecg(samples: int = WINDOW_SAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """Return spikes of 1 mV at 75 bpm on a little noise."""
    mv = np.random.default_rng(seed).normal(0, 0.02, samples)
    mv[50::100] += 1.0
    mv[51::100] += 0.6
    mv[49::100] += 0.6
    return mv


class TestFeatures:
    def test_a_known_window(self) -> None:
        mv = np.zeros(WINDOW_SAMPLES)
        mv[:100] = 2.0  # more than 1 % of the samples: the height
        mv[200] = 9.0
        mv[300] = -1.0
        mv[400:500] = np.nan
        rows = features(mv[None])[0]
        assert rows.shape == (ROWS, WINDOW_SAMPLES)
        assert rows.dtype == np.float32
        assert rows[0, [0, 200, 300, 600]] == pytest.approx([1.0, 3.0, -0.5, 0.0])
        np.testing.assert_array_equal(rows[1], np.isfinite(mv))
        assert (rows[0, 400:500] == 0).all()

    @given(gain=st.floats(0.2, 50), seed=st.integers(0, 99))
    @settings(max_examples=25, deadline=None)
    def test_gain_does_not_matter(self, gain: float, seed: int) -> None:
        mv = ecg(seed=seed)
        np.testing.assert_allclose(features(gain * mv[None]), features(mv[None]), atol=1e-5)

    @given(
        mv=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=40), seed=st.integers(0, 99)
    )
    @settings(max_examples=50, deadline=None)
    def test_features_are_finite_and_bounded(self, mv: list[float], seed: int) -> None:
        window = np.random.default_rng(seed).choice(np.array(mv), WINDOW_SAMPLES)
        rows = features(window[None])
        assert np.isfinite(rows).all()
        assert np.abs(rows).max() <= 3
        assert (rows[0, 0][rows[0, 1] == 0] == 0).all()

    def test_a_window_without_known_samples_is_all_zero(self) -> None:
        assert not features(np.full((2, WINDOW_SAMPLES), np.nan)).any()


class TestWindows:
    @given(size=st.integers(1, 4 * WINDOW_SAMPLES))
    @settings(max_examples=40, deadline=None)
    def test_windows_cover_every_sample_and_overlap_by_half(self, size: int) -> None:
        cuts = windows(np.arange(size, dtype=np.float64))
        assert cuts.shape[1] == WINDOW_SAMPLES
        assert np.array_equal(np.unique(cuts[np.isfinite(cuts)]), np.arange(size))
        assert (np.diff(cuts[:, 0]) <= WINDOW_SAMPLES // 2).all()
        assert np.isfinite(cuts).all() or len(cuts) == 1


class TestRejection:
    def test_a_short_recording_is_too_short(self, model: EcgRhythm) -> None:
        rhythm = model.classify(ecg(9 * 125 - 1))
        assert rhythm == RhythmClassification("~", 0.0, (0.0, 0.0, 0.0, 0.0), "too_short")
        assert rejection_reason(ecg(9 * 125)) is None

    def test_many_missing_samples_are_gaps(self) -> None:
        mv = ecg()
        mv[: round(0.39 * WINDOW_SAMPLES)] = np.nan
        assert rejection_reason(mv) is None
        mv[: round(0.41 * WINDOW_SAMPLES)] = np.nan
        assert rejection_reason(mv) == "gaps"

    def test_a_flat_signal_is_lead_off(self) -> None:
        mv = ecg()
        mv[: 13 * 125] = 0.4
        assert rejection_reason(mv) == "lead_off"
        assert rejection_reason(np.zeros(WINDOW_SAMPLES)) == "lead_off"

    def test_noise_alone_is_inconclusive(self, model: EcgRhythm) -> None:
        for seed in range(5):
            mv = np.random.default_rng(seed).normal(0, 1, WINDOW_SAMPLES)
            assert model.classify(mv).inconclusive is not None

    def test_more_than_one_window_is_refused(self, model: EcgRhythm) -> None:
        with pytest.raises(ValueError, match="at most 3750"):
            model.classify(np.zeros(WINDOW_SAMPLES + 1))
        with pytest.raises(ValueError, match="one row"):
            model.classify(np.zeros((2, WINDOW_SAMPLES)))

    def test_bytes_that_are_not_this_model_are_refused(self) -> None:
        with pytest.raises(ModelError, match="Reinstall"):
            EcgRhythm(b"not a model")
        with pytest.raises(ModelError, match="rr_af"):
            EcgRhythm((RELEASE / "rr_af.onnx").read_bytes())


class TestRelease:
    def test_labelled_recordings_are_classified(self, model: EcgRhythm, sample: list[tuple[str, Conditioned]]) -> None:
        classes = [CLASSES[int(record_probabilities(model, conditioned).argmax())] for _, conditioned in sample]
        correct = [label == found for (label, _), found in zip(sample, classes, strict=True)]
        assert np.mean(correct) >= 0.75
        fibrillation = [found for (label, _), found in zip(sample, classes, strict=True) if label == "A"]
        assert fibrillation.count("A") >= 9
        assert [found for (label, _), found in zip(sample, classes, strict=True) if label == "N"].count("A") <= 1

    def test_inversion_and_packet_loss_change_few_classes(
        self, model: EcgRhythm, sample: list[tuple[str, Conditioned]]
    ) -> None:
        random = np.random.default_rng(1)
        same_inverted, same_lost = [], []
        for _, conditioned in sample:
            mv = windows(conditioned.mv)[0]
            lost = np.repeat(random.random(WINDOW_SAMPLES // 70 + 1) < 0.05, 70)[:WINDOW_SAMPLES]
            variants = np.stack([mv, -mv, np.where(lost, np.nan, mv)])
            original, inverted, with_gaps = model.probabilities(features(variants)).argmax(-1)
            same_inverted.append(original == inverted)
            same_lost.append(original == with_gaps)
        assert np.mean(same_inverted) >= 0.85
        assert np.mean(same_lost) >= 0.9

    def test_probabilities_add_up_to_one(self, model: EcgRhythm, sample: list[tuple[str, Conditioned]]) -> None:
        rhythm = model.classify(sample[0][1].mv[:WINDOW_SAMPLES])
        assert sum(rhythm.probabilities) == pytest.approx(1, abs=1e-5)
        assert rhythm.probability == max(rhythm.probabilities) == rhythm.probabilities[CLASSES.index(rhythm.label)]

    def test_an_uncertain_classification_is_inconclusive(self, model: EcgRhythm, sample: list[tuple[str, Conditioned]]) -> None:
        rhythms = [model.classify(conditioned.mv[:WINDOW_SAMPLES]) for _, conditioned in sample]
        for rhythm in rhythms:
            uncertain = rhythm.probability < model.lowest_probability
            assert (rhythm.inconclusive == "out_of_distribution") == (uncertain and rhythm.label != "~")
            assert (rhythm.inconclusive == "noise") == (rhythm.label == "~")

    def test_the_file_is_within_its_size_limit(self) -> None:
        assert (RELEASE / "ecg_rhythm.onnx").stat().st_size <= SIZE_LIMIT

    def test_the_card_states_the_threshold_of_the_file(self, model: EcgRhythm) -> None:
        card = json.loads((RELEASE / "ecg_rhythm.json").read_text())
        assert card["version"] == model.version
        assert card["coverage"]["lowest_probability"] == pytest.approx(model.lowest_probability, rel=1e-3)
        assert card["int8_parity"]["size_bytes"] == (RELEASE / "ecg_rhythm.onnx").stat().st_size

    def test_the_cards_figures_reach_the_targets(self) -> None:
        card = json.loads((RELEASE / "ecg_rhythm.json").read_text())
        figures = card["figures"]
        assert figures["f1_mean"]["value"] >= 83
        assert figures["f1_mean_at_90_percent"]["value"] >= 86
        assert figures["ece"]["value"] <= 0.03
        assert card["robustness"]["change_of_f1_mean_at_5_percent_lost"] >= -0.01
        for name in ("released, as recorded", "released, augmented", "folds, unseen recordings"):
            assert card["int8_parity"][name]["agreement"] >= 0.995
            assert card["int8_parity"][name]["largest_change"] <= 0.05
        assert abs(card["int8_parity"]["folds, unseen recordings"]["change_of_f1_mean"]) <= 0.005
