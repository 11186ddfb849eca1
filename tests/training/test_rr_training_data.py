"""Training windows of `rr_af`: separation of patients, database shares and augmentation."""

import numpy as np
import pytest

from captures.rhythms import AF, NOT_AF, UNUSED, WINDOW, Rhythm
from training.rr_data import (
    DATABASE_SHARES,
    FOLDS,
    MIN_TRAINING_VALID,
    SOURCE_LENGTH,
    STEADY_SHARE,
    Sampler,
    draw_ectopic_beats,
    simulate_sensor,
    split_folds,
    vary_sinus_rhythm,
)


def create_rhythm(name: str, share_af: float, database: str = "afdb", beats: int = 1000) -> Rhythm:
    random = np.random.default_rng(len(name))
    labels = (np.arange(beats) < share_af * beats).astype(np.int8)
    return Rhythm(database, name, 0.004, np.cumsum(random.uniform(0.6, 1.0, beats)), labels)


def test_no_patient_is_in_two_folds_and_af_is_balanced() -> None:
    rhythms = [create_rhythm(f"a{i}", i / 17) for i in range(17)] + [create_rhythm(f"n{i}", 0, "nsr2db") for i in range(27)]
    groups = split_folds(rhythms)
    names = [rhythm.name for group in groups for rhythm in group]
    assert len(groups) == FOLDS
    assert sorted(names) == sorted(rhythm.name for rhythm in rhythms)
    burdens = [sum(float(np.mean(rhythm.labels == AF)) for rhythm in group) for group in groups]
    assert max(burdens) < 1.5 * min(burdens)


def test_the_same_seed_draws_the_same_windows() -> None:
    rhythms = [create_rhythm("a", 0.5), create_rhythm("b", 0, "nsr2db")]
    first, same, different = (Sampler(rhythms, seed).batch(64) for seed in (1, 1, 2))
    assert np.array_equal(first[0], same[0])
    assert np.array_equal(first[1], same[1])
    assert not np.array_equal(first[0], different[0])


def test_draws_both_classes_and_never_flutter() -> None:
    rhythm = create_rhythm("a", 0.5)
    rhythm.labels[800:] = UNUSED
    features, targets = Sampler([rhythm], 1).batch(400)
    assert features.shape == (len(targets), 6, WINDOW)
    assert 0.35 < targets.mean() < 0.65
    assert set(targets) == {0.0, 1.0}


def test_short_recordings_fill_part_of_a_window_and_patients_never_share_one() -> None:
    short = [Rhythm("cinc2017 A", f"s{i}", 0.001, 0.5 * np.arange(30.0), np.ones(30, np.int8)) for i in range(3)]
    features, targets = Sampler([*short, create_rhythm("n", 0.0)], 1).batch(400)
    of_short = features[targets == 1]
    assert (of_short[:, 1].sum(-1) >= MIN_TRAINING_VALID).all()
    assert (of_short[:, :, :28] == 0).all()  # 29 intervals, and a few false beats between them
    assert len(of_short) > 150


def test_draws_databases_by_their_share() -> None:
    slow = Rhythm("nsr2db", "slow", 0.001, np.arange(0.0, 8000.0, 1.6), np.zeros(5000, np.int8))
    fast = Rhythm("afdb", "fast", 0.001, np.arange(0.0, 119.9, 0.4), np.zeros(300, np.int8))
    with_af = Rhythm("afdb", "af", 0.001, np.arange(0.0, 119.9, 0.4), np.ones(300, np.int8))
    features, targets = Sampler([slow, fast, with_af], 1).batch(2000)
    rate = features[targets == 0, 5].max(-1)
    share = DATABASE_SHARES[NOT_AF]
    assert np.mean(rate > 0) == pytest.approx(share["nsr2db"] / (share["nsr2db"] + share["afdb"]), abs=0.06)


def test_simulated_sensor_output_has_the_stated_properties() -> None:
    random = np.random.default_rng(1)
    rr = random.uniform(0.6, 1.0, (500, SOURCE_LENGTH))
    intervals_s, valid, labels = simulate_sensor(rr, np.full(rr.shape, AF, np.int8), random)
    assert intervals_s.shape == valid.shape == labels.shape == (500, WINDOW)
    assert (intervals_s >= 0).all()
    np.testing.assert_allclose(intervals_s * 1024, np.round(intervals_s * 1024), atol=1e-9)
    assert ((labels == AF) == valid).all()
    full = valid.all(-1)
    assert 0.2 < full.mean() < 0.6
    assert abs(np.median(intervals_s[full]) - 0.8) < 0.02


def test_sinus_variants_keep_intervals_positive_and_leave_half_of_the_windows_unchanged() -> None:
    random = np.random.default_rng(1)
    rr = np.full((2000, SOURCE_LENGTH), 0.8)
    varied = vary_sinus_rhythm(rr, random)
    assert (varied > 0.2).all()
    unchanged = (varied == rr).all(-1).mean()
    assert 0.5 <= unchanged < 0.75


def test_some_windows_become_steady_at_random_rates() -> None:
    random = np.random.default_rng(1)
    varied = vary_sinus_rhythm(random.uniform(0.5, 1.1, (5000, SOURCE_LENGTH)), random)
    steady = varied[varied.std(-1) < 0.02 * varied.mean(-1)]
    assert abs(len(steady) / 5000 - STEADY_SHARE) < 0.01
    bpm = 60 / steady.mean(-1)
    assert bpm.min() < 50
    assert bpm.max() > 200


def test_ectopic_beats_are_a_minority() -> None:
    early = draw_ectopic_beats((2000, SOURCE_LENGTH), np.random.default_rng(1))
    assert early.shape == (2000, SOURCE_LENGTH)
    assert 0.08 < early.mean() < 0.3
    assert early.mean(-1).max() <= 0.65
