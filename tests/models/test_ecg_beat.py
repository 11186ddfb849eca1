"""`ecg_beat` at run time: its inputs, what they must not depend on, and how classes are chosen."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.inference.ecg_beat import (
    BACKGROUND,
    CLASSES,
    HISTORY_INTERVALS,
    LONG_TERM_INTERVALS,
    QRS,
    ROWS,
    RR_INPUTS,
    SAMPLES_BEFORE_R,
    SCALARS,
    SHAPE_FEATURES,
    WAVE_ROWS,
    WAVE_SAMPLES,
    EcgBeat,
    choose_classes,
    features,
    find_early_beats,
    long_term_rr_quantiles,
)
from models.inference.release import RELEASE_DIR
from models.inference.session import ModelError

Values = NDArray[np.float64]


@pytest.fixture(scope="module")
def model() -> EcgBeat:
    return EcgBeat((RELEASE_DIR / "ecg_beat.onnx").read_bytes())


def spike(height_mv: float = 1.0) -> Values:
    """Return a QRS complex of 0.1 s."""
    return height_mv * np.exp(-0.5 * ((np.arange(WAVE_SAMPLES) - SAMPLES_BEFORE_R) / 2.5) ** 2)


def steady(rr_s: float = 0.8) -> Values:
    intervals_s = np.full(RR_INPUTS, rr_s)
    intervals_s[BACKGROUND + 1 :] = 0.008, 0.02
    return intervals_s


TYPICAL_SHAPE: Values = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.9, 1.0, 1.0])
"""Shape and P wave features if every beat matches the template, has a P wave and comes on time."""

RHYTHM = 7
"""The first number that compares intervals with the median; those before compare them with the background rhythm."""


def inputs_of(wave: Values, template: Values, rr_s: Values) -> NDArray[np.float32]:
    """Return the network's input for one beat, (5, 104)."""
    inputs: NDArray[np.float32] = features(wave[None], template[None], rr_s[None], TYPICAL_SHAPE[None])[0]
    return inputs


class TestFeatures:
    def test_a_typical_beat(self) -> None:
        inputs = inputs_of(spike(), spike(), steady())
        assert inputs.shape == (ROWS, WAVE_SAMPLES)
        np.testing.assert_allclose(inputs[0], spike(), atol=1e-6)
        assert (inputs[2] == 0).all()
        assert (inputs[3] == 1).all()
        numbers = inputs[WAVE_ROWS]
        np.testing.assert_allclose(numbers[RHYTHM : RHYTHM + 12], 0, atol=1e-6)  # no interval differs from the median
        np.testing.assert_allclose(numbers[RHYTHM + 31], 1, atol=1e-3)  # the cosine of the QRS complexes
        assert (numbers[SCALARS:] == 0).all()

    def test_a_premature_beat(self) -> None:
        rr_s = steady()
        rr_s[HISTORY_INTERVALS - 1 : HISTORY_INTERVALS + 1] = 0.4, 1.2
        numbers = inputs_of(spike(), spike(), rr_s)[WAVE_ROWS]
        np.testing.assert_allclose(numbers[[RHYTHM + 7, RHYTHM + 8]], np.log([0.5, 1.5]), atol=1e-6)
        np.testing.assert_allclose(numbers[RHYTHM + 9 : RHYTHM + 11], np.log(0.5), atol=1e-6)  # against the last minutes
        np.testing.assert_allclose(numbers[0], np.log(0.5), atol=1e-6)  # against the background rhythm

    @given(gain=st.floats(0.3, 20.0))
    def test_gain_does_not_matter(self, gain: float) -> None:
        wide = -0.8 * np.exp(-0.5 * ((np.arange(WAVE_SAMPLES) - SAMPLES_BEFORE_R) / 6) ** 2)
        one, other = inputs_of(wide, spike(), steady()), inputs_of(gain * wide, gain * spike(), steady())
        np.testing.assert_allclose(one, other, atol=1e-5)

    @given(
        wave=arrays(np.float64, WAVE_SAMPLES, elements=st.floats(-20, 20)),
        missing=arrays(np.bool_, WAVE_SAMPLES),
        rr_s=arrays(np.float64, RR_INPUTS, elements=st.floats(0, 10)),
        unknown=arrays(np.bool_, RR_INPUTS),
        has_template=st.booleans(),
    )
    def test_features_are_finite_bounded_and_independent_of_missing_values(
        self, wave: Values, missing: NDArray[np.bool_], rr_s: Values, unknown: NDArray[np.bool_], *, has_template: bool
    ) -> None:
        template = spike() if has_template else np.full(WAVE_SAMPLES, np.nan)
        inputs = inputs_of(np.where(missing, np.nan, wave), template, np.where(unknown, np.nan, rr_s))
        assert np.isfinite(inputs).all()
        assert np.abs(inputs).max() <= 3
        assert (inputs[0, missing] == 0).all()
        assert (inputs[2, missing] == 0).all()
        assert np.array_equal(inputs[3] == 1, ~missing)
        assert np.array_equal(inputs, inputs_of(np.where(missing, np.nan, wave), template, np.where(unknown, 99.0, rr_s)))

    def test_a_batch_gives_the_same_as_single_beats(self) -> None:
        random = np.random.default_rng(1)
        waves, templates = random.normal(0, 1, (5, WAVE_SAMPLES)), np.stack([spike(h) for h in (0.3, 1, 2, 1, 1)])
        rr_s, shape = random.uniform(0.3, 1.5, (5, RR_INPUTS)), random.uniform(0, 1, (5, SHAPE_FEATURES))
        together = features(waves, templates, rr_s, shape)
        for index in range(5):
            one = features(*(part[index : index + 1] for part in (waves, templates, rr_s, shape)))
            np.testing.assert_allclose(one[0], together[index], atol=1e-5)

    def test_long_term_rr_quantiles(self) -> None:
        rr_s = np.full((3, LONG_TERM_INTERVALS), np.nan)
        rr_s[0, -11:] = np.arange(11)[::-1]
        rr_s[1] = 0.8
        np.testing.assert_array_equal(long_term_rr_quantiles(rr_s), [[5, 8], [0.8, 0.8], [np.nan, np.nan]])


class TestModel:
    def test_probabilities_add_up_to_one(self, model: EcgBeat) -> None:
        inputs = np.stack([inputs_of(spike(), spike(), steady()), inputs_of(-spike(), spike(), steady(0.4))])
        found = model.probabilities(inputs)
        assert found.shape == (2, len(CLASSES))
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)

    def test_a_typical_beat_in_a_regular_rhythm_is_normal(self, model: EcgBeat) -> None:
        for rr_s in (0.5, 0.7, 0.9, 1.2):
            found = model.probabilities(inputs_of(spike(), spike(), steady(rr_s))[None])
            assert CLASSES[int(model.choose_classes(found, find_early_beats(steady(rr_s)[None]), np.array([rr_s]))[0])] == "N"

    def test_bytes_that_are_not_a_model_are_refused(self) -> None:
        with pytest.raises(ModelError, match="ecg_beat cannot be loaded"):
            EcgBeat(b"not a model")

    def test_the_model_matches_its_card_and_its_limits(self, model: EcgBeat) -> None:
        card = json.loads((RELEASE_DIR / "ecg_beat.json").read_text())
        assert (RELEASE_DIR / "ecg_beat.onnx").stat().st_size == card["outputs"]["bytes"] <= 80_000
        assert (card["name"], card["version"]) == (model.name, model.version)
        for name in ("as_recorded", "augmented"):
            assert card["int8_parity"][name]["agreement"] >= 0.995
            assert card["int8_parity"][name]["largest_change"] <= 0.05

    def test_inference_needs_only_numpy_and_onnxruntime(self) -> None:
        code = (
            "import sys, models.beat_labels; "
            "print([m for m in ('scipy', 'wfdb', 'torch', 'onnx', 'pandas') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "[]"


class TestChooseClasses:
    def test_the_greatest_product_of_probability_and_weight_wins(self) -> None:
        shares = np.array([[0.5, 0.3, 0.15, 0.05], [0.5, 0.05, 0.4, 0.05]])
        assert self.classes(shares, np.ones(4)) == "NN"
        assert self.classes(shares, np.array([1.0, 2.0, 1.5, 1.0])) == "SV"

    def test_only_early_beats_are_supraventricular(self) -> None:
        shares = np.array([[0.5, 0.3, 0.15, 0.05], [0.3, 0.5, 0.15, 0.05]])
        weights = np.array([1.0, 2.0, 1.0, 1.0])
        assert self.classes(shares, weights, is_early=[True, False]) == "SN"
        assert self.classes(shares, weights, is_early=[False, False]) == "NN"

    def test_the_weight_of_s_cannot_hide_a_ventricular_beat(self) -> None:
        shares = np.array([[0.2, 0.3, 0.45, 0.05]])
        assert self.classes(shares, np.array([1.0, 100.0, 1.0, 1.0])) == "V"

    def test_a_run_continues_at_its_rate(self) -> None:
        assert self.run([0.5, 0.5, 0.56]) == "SSS"
        assert self.run([0.5, 0.57]) == "SN"  # the interval is too long
        assert self.run([0.5, np.nan, 0.5]) == "SNN"  # after a gap
        assert self.run([0.5, 0.5], is_early=[True, False]) == "SN"
        assert self.run([0.5, 0.5, 0.5, 0.5], ventricular=1) == "SVNN"

    @given(
        shares=arrays(np.float64, (12, 4), elements=st.floats(0.01, 1.0)),
        is_early=arrays(np.bool_, 12),
        rr_before_s=arrays(np.float64, 12, elements=st.one_of(st.floats(0.3, 1.0), st.just(np.nan))),
    )
    def test_a_batch_gives_the_classes_of_single_beats(
        self, shares: Values, is_early: NDArray[np.bool_], rr_before_s: Values
    ) -> None:
        weights = np.array([1.0, 2.0, 0.8, 1.0])
        previous_ectopic_rr_s, found = np.nan, ""
        for one in range(12):
            beat = slice(one, one + 1)
            found += CLASSES[choose_classes(shares[beat], weights, is_early[beat], rr_before_s[beat], previous_ectopic_rr_s)[0]]
            previous_ectopic_rr_s = float(rr_before_s[one]) if found[-1] == "S" else np.nan
        assert found == self.classes(shares, weights, is_early=is_early.tolist(), rr_before_s=rr_before_s.tolist())

    def run(self, rr_before_s: list[float], is_early: list[bool] | None = None, ventricular: int | None = None) -> str:
        """Return the classes of a beat that is S by itself, then of beats that are S only in a run; beat `ventricular` is V."""
        shares = np.array([[0.6, 0.35, 0.04, 0.01], *[[0.6, 0.1, 0.29, 0.01]] * (len(rr_before_s) - 1)])
        if ventricular is not None:
            shares[ventricular] = 0.1, 0.1, 0.79, 0.01
        return self.classes(shares, np.array([1.0, 2.0, 1.0, 1.0]), is_early=is_early, rr_before_s=rr_before_s)

    @staticmethod
    def classes(
        shares: Values, weights: Values, *, is_early: list[bool] | None = None, rr_before_s: list[float] | None = None
    ) -> str:
        early = np.array(is_early or [True] * len(shares))
        indices = choose_classes(shares, weights, early, np.array(rr_before_s or [0.8] * len(shares)))
        return "".join(CLASSES[index] for index in indices)


class TestFindEarlyBeats:
    def test_compares_with_the_median(self) -> None:
        assert find_early_beats(np.stack([self.beat(now, after_s=now) for now in (0.70, 0.71)])).tolist() == [True, False]

    def test_compares_with_both_neighbours(self) -> None:
        assert find_early_beats(np.stack([self.beat(now) for now in (0.73, 0.74)])).tolist() == [True, False]

    def test_compares_with_the_background_rhythm(self) -> None:
        runs = np.full((2, RR_INPUTS), 0.5)
        runs[:, BACKGROUND] = 0.57, 0.56
        assert find_early_beats(runs).tolist() == [True, False]

    def test_compares_with_the_slow_intervals_of_the_last_minutes(self) -> None:
        runs = [np.where(np.arange(RR_INPUTS) < HISTORY_INTERVALS + 1, 0.5, slow_s) for slow_s in (0.72, 0.71)]
        for rr_s in runs:
            rr_s[BACKGROUND] = 0.5
        assert find_early_beats(np.stack(runs)).tolist() == [True, False]

    def test_a_beat_without_known_intervals_is_not_early(self) -> None:
        without_next = self.beat(0.5)
        without_next[HISTORY_INTERVALS] = np.nan
        assert find_early_beats(np.stack([without_next, np.full(RR_INPUTS, np.nan)])).tolist() == [False, False]

    @staticmethod
    def beat(rr_before_s: float, after_s: float = 0.8) -> Values:
        rr_s = steady()
        rr_s[HISTORY_INTERVALS - 1 : HISTORY_INTERVALS + 1] = rr_before_s, after_s
        return rr_s


def test_the_qrs_window_lies_in_the_wave() -> None:
    assert 0 < QRS.start < SAMPLES_BEFORE_R < QRS.stop < WAVE_SAMPLES
