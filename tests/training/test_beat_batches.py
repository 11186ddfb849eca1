"""Training batches of `ecg_beat`: their classes, that a seed draws the same ones, and what escape rhythms look like."""

import numpy as np
import pytest
import torch

from models.inference.ecg_beat import CLASSES, HISTORY, INTERVALS, ROWS, SHAPE_FEATURES, WAVE_SAMPLES, V
from training.beat_batches import OF_STRIPS, SHARES, Pool, Sampler, _escaped
from training.beat_data import Beats
from training.beat_net import BeatNet
from training.beat_strips import AF, SINUS, Strips


def beats(count: int, seed: int) -> Beats:
    random = np.random.default_rng(seed)
    return Beats(
        np.arange(count, dtype=np.float64),
        random.normal(0, 1, (count, WAVE_SAMPLES)).astype(np.float32),
        random.normal(0, 1, (count, WAVE_SAMPLES)).astype(np.float32),
        random.uniform(0.5, 1.2, (count, INTERVALS)).astype(np.float32),
        random.random((count, SHAPE_FEATURES)).astype(np.float32),
        np.arange(count).astype(np.int8) % len(CLASSES),
    )


@pytest.fixture
def pool() -> Pool:
    strips = beats(90, 2)
    strips = strips.chosen(strips.labels < 3)
    rhythms = np.where(np.arange(len(strips)) % 2, AF, SINUS).astype(np.int8)
    lent = np.full((8, INTERVALS), 0.9, np.float32)
    return Pool(beats(120, 1), np.arange(120) % 5, lent, np.arange(8).astype(np.int8) % 4, Strips(strips, rhythms))


def test_a_batch_has_the_shares_of_classes_that_were_asked_for(pool: Pool) -> None:
    inputs, labels = Sampler(pool, 1).batch(4000)
    assert inputs.shape == (4000, ROWS, WAVE_SAMPLES)
    assert np.isfinite(inputs).all()
    np.testing.assert_allclose(np.bincount(labels, minlength=4) / 4000, SHARES, atol=0.03)


def test_the_same_seed_draws_the_same_batches(pool: Pool) -> None:
    one, other, third = (Sampler(pool, seed).batch(64)[0] for seed in (3, 3, 4))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)


def test_no_fusion_beat_comes_from_where_none_is_labelled() -> None:
    assert OF_STRIPS[CLASSES.index("F")] == 0


def test_teachers_and_labels_make_the_targets(pool: Pool) -> None:
    torch.manual_seed(1)
    inputs, targets = next(Sampler(pool, 1).stream([BeatNet().eval(), BeatNet().eval()]))
    _, labels = next(Sampler(pool, 1).stream())
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-5)
    assert (targets.argmax(-1) == labels).float().mean() > 0.5
    assert inputs.shape[0] == targets.shape[0]


def test_an_escape_rhythm_is_slow_and_other_beats_stay_as_they_are() -> None:
    made = beats(40, 5)
    chosen = made.labels == V
    escaped = _escaped(made, chosen, np.random.default_rng(1))
    assert np.array_equal(escaped.rr_s[~chosen], made.rr_s[~chosen])
    assert np.array_equal(escaped.shape[~chosen], made.shape[~chosen])
    assert (escaped.rr_s[chosen, HISTORY - 1] > 0.75).all()
    assert np.isfinite(escaped.rr_s[chosen]).all()
