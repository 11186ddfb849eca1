"""Training batches of `ecg_beat`: class shares, reproducibility by seed, imitated and escape rhythms."""

import numpy as np
import pytest

from models.inference.ecg_beat import (
    CLASSES,
    HISTORY_INTERVALS,
    ROWS,
    RR_INPUTS,
    SHAPE_FEATURES,
    WAVE_ROWS,
    WAVE_SAMPLES,
    N,
    V,
)
from training.beat_batches import CLASS_SHARES, IMITATED_SHARE, Pool, Sampler, _make_escape_rhythm
from training.beat_data import Beats

LAST_INTERVALS = slice(7, 16)
MEDIAN = 23
"""Numbers of the network's input: the last nine intervals over their median, and the median over 0.8 s."""


def beats(count: int, seed: int) -> Beats:
    random = np.random.default_rng(seed)
    return Beats(
        np.arange(count, dtype=np.float64),
        random.normal(0, 1, (count, WAVE_SAMPLES)).astype(np.float32),
        random.normal(0, 1, (count, WAVE_SAMPLES)).astype(np.float32),
        random.uniform(0.5, 1.2, (count, RR_INPUTS)).astype(np.float32),
        random.random((count, SHAPE_FEATURES)).astype(np.float32),
        np.arange(count).astype(np.int8) % len(CLASSES),
    )


@pytest.fixture
def pool() -> Pool:
    borrowed_rr_s, imitated_rr_s = (np.full((8, RR_INPUTS), seconds, np.float32) for seconds in (0.9, 0.6))
    return Pool(beats(120, 1), np.arange(120) % 5, borrowed_rr_s, np.arange(8).astype(np.int8) % 4, imitated_rr_s)


def test_a_batch_has_the_configured_class_shares(pool: Pool) -> None:
    inputs, labels = Sampler(pool, 1).batch(4000)
    assert inputs.shape == (4000, ROWS, WAVE_SAMPLES)
    assert np.isfinite(inputs).all()
    np.testing.assert_allclose(np.bincount(labels, minlength=4) / 4000, CLASS_SHARES, atol=0.03)


def test_the_same_seed_draws_the_same_batches(pool: Pool) -> None:
    first, second, third = (Sampler(pool, seed).batch(64)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_a_share_of_the_normal_beats_gets_imitated_intervals(pool: Pool) -> None:
    inputs, labels = Sampler(pool, 1).batch(4000)
    # In these, each interval is 0.6 s: the last eight, which come first in the row of numbers, deviate by the noise only.
    imitated = (np.abs(inputs[:, WAVE_ROWS, LAST_INTERVALS]) < 0.05).all(-1) & (
        inputs[:, WAVE_ROWS, MEDIAN] < np.log(0.75 / 0.8)
    )
    assert np.mean(imitated[labels == N]) == pytest.approx(IMITATED_SHARE * 0.85, abs=0.03)
    assert not imitated[labels != N].any()


def test_an_escape_rhythm_is_slow_and_other_beats_are_unchanged() -> None:
    original = beats(40, 5)
    chosen = original.labels == V
    escaped = _make_escape_rhythm(original, chosen, np.random.default_rng(1))
    assert np.array_equal(escaped.rr_s[~chosen], original.rr_s[~chosen])
    assert np.array_equal(escaped.shape[~chosen], original.shape[~chosen])
    assert (escaped.rr_s[chosen, HISTORY_INTERVALS - 1] > 0.75).all()
    assert np.isfinite(escaped.rr_s[chosen]).all()
