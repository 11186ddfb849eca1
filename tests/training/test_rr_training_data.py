"""Training windows of `rr_af`: patients kept apart, and augmentation that stays what its name says."""

import numpy as np
import pytest

from captures.rhythms import AF, NOT_AF, UNUSED, WINDOW, Rhythm
from training.rr_data import FEWEST, FOLDS, SHARES, SOURCE, STEADY_SHARE, Sampler, ectopic, folds, radio, sinus_variants


def made(name: str, share_af: float, database: str = "afdb", beats: int = 1000) -> Rhythm:
    random = np.random.default_rng(len(name))
    labels = (np.arange(beats) < share_af * beats).astype(np.int8)
    return Rhythm(database, name, 0.004, np.cumsum(random.uniform(0.6, 1.0, beats)), labels)


def test_no_patient_is_in_two_folds_and_af_is_spread() -> None:
    everyone = [made(f"a{i}", i / 17) for i in range(17)] + [made(f"n{i}", 0, "nsr2db") for i in range(27)]
    groups = folds(everyone)
    names = [rhythm.name for group in groups for rhythm in group]
    assert len(groups) == FOLDS
    assert sorted(names) == sorted(rhythm.name for rhythm in everyone)
    burdens = [sum(float(np.mean(rhythm.labels == AF)) for rhythm in group) for group in groups]
    assert max(burdens) < 1.5 * min(burdens)


def test_the_same_seed_draws_the_same_windows() -> None:
    rhythms = [made("a", 0.5), made("b", 0, "nsr2db")]
    one, two, other = (Sampler(rhythms, seed).batch(64) for seed in (1, 1, 2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])
    assert not np.array_equal(one[0], other[0])


def test_both_classes_are_drawn_and_flutter_never() -> None:
    rhythm = made("a", 0.5)
    rhythm.labels[800:] = UNUSED
    features, targets = Sampler([rhythm], 1).batch(400)
    assert features.shape == (len(targets), 6, WINDOW)
    assert 0.35 < targets.mean() < 0.65
    assert set(targets) == {0.0, 1.0}


def test_short_recordings_fill_a_window_in_part_and_patients_never_share_one() -> None:
    short = [Rhythm("cinc2017 A", f"s{i}", 0.001, 0.5 * np.arange(30.0), np.ones(30, np.int8)) for i in range(3)]
    features, targets = Sampler([*short, made("n", 0.0)], 1).batch(400)
    of_short = features[targets == 1]
    assert (of_short[:, 1].sum(-1) >= FEWEST).all()
    assert (of_short[:, :, :28] == 0).all()  # 29 intervals, and a few false beats between them
    assert len(of_short) > 150


def test_databases_are_drawn_by_their_share() -> None:
    slow = Rhythm("nsr2db", "slow", 0.001, np.arange(0.0, 8000.0, 1.6), np.zeros(5000, np.int8))
    fast = Rhythm("afdb", "fast", 0.001, np.arange(0.0, 119.9, 0.4), np.zeros(300, np.int8))
    with_af = Rhythm("afdb", "af", 0.001, np.arange(0.0, 119.9, 0.4), np.ones(300, np.int8))
    features, targets = Sampler([slow, fast, with_af], 1).batch(2000)
    rate = features[targets == 0, 5].max(-1)
    share = SHARES[NOT_AF]
    assert np.mean(rate > 0) == pytest.approx(share["nsr2db"] / (share["nsr2db"] + share["afdb"]), abs=0.06)


def test_radio_keeps_what_it_says() -> None:
    random = np.random.default_rng(1)
    rr = random.uniform(0.6, 1.0, (500, SOURCE))
    kept, valid, labels = radio(rr, np.full(rr.shape, AF, np.int8), random)
    assert kept.shape == valid.shape == labels.shape == (500, WINDOW)
    assert (kept >= 0).all()
    np.testing.assert_allclose(kept * 1024, np.round(kept * 1024), atol=1e-9)
    assert ((labels == AF) == valid).all()
    full = valid.all(-1)
    assert 0.2 < full.mean() < 0.6
    assert abs(np.median(kept[full]) - 0.8) < 0.02


def test_sinus_variants_keep_time_moving_and_half_as_it_was() -> None:
    random = np.random.default_rng(1)
    rr = np.full((2000, SOURCE), 0.8)
    varied = sinus_variants(rr, random)
    assert (varied > 0.2).all()
    unchanged = (varied == rr).all(-1).mean()
    assert 0.5 <= unchanged < 0.75


def test_some_windows_become_steady_at_any_rate() -> None:
    random = np.random.default_rng(1)
    varied = sinus_variants(random.uniform(0.5, 1.1, (5000, SOURCE)), random)
    steady = varied[varied.std(-1) < 0.02 * varied.mean(-1)]
    assert abs(len(steady) / 5000 - STEADY_SHARE) < 0.01
    bpm = 60 / steady.mean(-1)
    assert bpm.min() < 50
    assert bpm.max() > 200


def test_ectopic_beats_are_a_minority() -> None:
    early = ectopic((2000, SOURCE), np.random.default_rng(1))
    assert early.shape == (2000, SOURCE)
    assert 0.08 < early.mean() < 0.3
    assert early.mean(-1).max() <= 0.65
