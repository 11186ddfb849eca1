"""Training batches of `ecg_beat`: class shares, reproducibility by seed, distillation targets and escape rhythms."""

import numpy as np
import pytest
import torch

from models.inference.ecg_beat import CLASSES, HISTORY_INTERVALS, ROWS, RR_INPUTS, SHAPE_FEATURES, WAVE_SAMPLES, V
from training.beat_batches import CINC_SHARES, CLASS_SHARES, Pool, Sampler, _make_escape_rhythm
from training.beat_cinc import AF, SINUS, CincBeats
from training.beat_data import Beats
from training.beat_net import BeatNet


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
    cinc = beats(90, 2)
    cinc = cinc.select(cinc.labels < 3)
    rhythms = np.where(np.arange(len(cinc)) % 2, AF, SINUS).astype(np.int8)
    borrowed_rr_s = np.full((8, RR_INPUTS), 0.9, np.float32)
    return Pool(beats(120, 1), np.arange(120) % 5, borrowed_rr_s, np.arange(8).astype(np.int8) % 4, CincBeats(cinc, rhythms))


def test_a_batch_has_the_configured_class_shares(pool: Pool) -> None:
    inputs, labels = Sampler(pool, 1).batch(4000)
    assert inputs.shape == (4000, ROWS, WAVE_SAMPLES)
    assert np.isfinite(inputs).all()
    np.testing.assert_allclose(np.bincount(labels, minlength=4) / 4000, CLASS_SHARES, atol=0.03)


def test_the_same_seed_draws_the_same_batches(pool: Pool) -> None:
    first, second, third = (Sampler(pool, seed).batch(64)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_no_fusion_beat_is_drawn_from_cinc_which_has_none() -> None:
    assert CINC_SHARES[CLASSES.index("F")] == 0


def test_targets_combine_labels_and_teacher_predictions(pool: Pool) -> None:
    torch.manual_seed(1)
    inputs, targets = next(Sampler(pool, 1).stream([BeatNet().eval(), BeatNet().eval()]))
    _, labels = next(Sampler(pool, 1).stream())
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-5)
    assert (targets.argmax(-1) == labels).float().mean() > 0.5
    assert inputs.shape[0] == targets.shape[0]


def test_an_escape_rhythm_is_slow_and_other_beats_are_unchanged() -> None:
    original = beats(40, 5)
    chosen = original.labels == V
    escaped = _make_escape_rhythm(original, chosen, np.random.default_rng(1))
    assert np.array_equal(escaped.rr_s[~chosen], original.rr_s[~chosen])
    assert np.array_equal(escaped.shape[~chosen], original.shape[~chosen])
    assert (escaped.rr_s[chosen, HISTORY_INTERVALS - 1] > 0.75).all()
    assert np.isfinite(escaped.rr_s[chosen]).all()
