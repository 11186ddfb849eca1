"""When the detector asks its beat classifier and what the classifier may decide, tested with stub classifiers."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captures import open_recording
from evaluation.matching import compare
from models.inference.ecg_qrs import EcgQrs
from models.signal.beat_classifier import (
    FEATURE_COUNT,
    INPUT_SIZE,
    MAX_R_PEAK_OFFSET_SAMPLES,
    CandidateFeatures,
    Classification,
    input_vector,
)
from models.signal.candidates import PeakCandidate
from models.signal.chain import EcgChain
from models.signal.noisy_qrs import AGREEMENTS_FOR_MILD, ON_TIME_TOLERANCE, DoubtfulBeat
from models.signal.qrs import MIN_R_PEAK_SPACING_SAMPLES

RATE_HZ = 125.0


class StubClassifier:
    """Always returns the same classification, and counts the calls."""

    def __init__(self, probability, r_peak_offset=0.0):
        self.classification, self.calls = Classification(probability, r_peak_offset), 0

    def __call__(self, values):
        assert values.shape == (INPUT_SIZE,)
        assert np.isfinite(values).all()
        self.calls += 1
        return self.classification


def ecg(beats_s, duration_s, noise_mv, quiet_s=8.0):
    """Return synthetic QRS complexes in noise; the first seconds are almost free of noise."""
    t = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    mv = np.random.default_rng(5).normal(0, 1, t.size) * np.where(t < quiet_s, 0.01, noise_mv)
    for beat in beats_s:
        for at, width, high in ((-0.028, 0.010, -0.1), (0.0, 0.012, 1.0), (0.03, 0.012, -0.25)):
            mv += high * np.exp(-(((t - beat - at) / width) ** 2) / 2)
    return mv


def beats(mv, classifier, size=40):
    chain = EcgChain(RATE_HZ, classifier)
    found = [beat for i in range(0, mv.size, size) for beat in chain.push(mv[i : i + size])] + chain.finish()
    return np.array([beat.t_s for beat in found])


REGULAR_S = np.arange(0.5, 40, 0.8)


def test_does_not_ask_the_classifier_in_a_clean_regular_signal():
    classifier = StubClassifier(0.0)
    mv = ecg(REGULAR_S, 40, 0.01)
    assert np.array_equal(beats(mv, classifier), beats(mv, None))
    assert classifier.calls == 0


def test_classifier_can_only_reject_early_beats_in_a_clean_signal():
    class RejectEarly(StubClassifier):
        def __call__(self, values):
            since = values[-FEATURE_COUNT + 2] + 0.7
            return Classification(float(since > 0.8), 0.0)

    mv = ecg([*REGULAR_S[:25], REGULAR_S[24] + 0.38, *REGULAR_S[26:]], 40, 0.01)
    alone = beats(mv, None)
    assert len(alone) == REGULAR_S.size
    np.testing.assert_allclose(beats(mv, RejectEarly(0)), np.delete(alone, 25), atol=0.01)
    np.testing.assert_allclose(beats(mv, StubClassifier(1.0)), alone, atol=0.03)


def test_accepts_an_early_beat_of_full_height_unclassified_in_a_very_clean_signal():
    classifier = StubClassifier(0.0)
    mv = ecg([*REGULAR_S[:25], REGULAR_S[24] + 0.5, *REGULAR_S[26:]], 40, 0.03)
    assert np.array_equal(beats(mv, classifier), beats(mv, None))
    assert classifier.calls == 0


def test_classifies_early_beats_of_full_height_while_no_noise_was_measured():
    """The noise level starts at an eighth of a beat, above `MAX_VERY_CLEAN_NOISE_RATIO`."""
    mv = ecg([*REGULAR_S[:25], REGULAR_S[24] + 0.5, *REGULAR_S[26:]], 40, 0.01)
    accepting, rejecting = StubClassifier(1.0), StubClassifier(0.0)
    np.testing.assert_allclose(beats(mv, accepting), beats(mv, None), atol=0.03)
    assert accepting.calls > 0
    assert len(beats(mv, rejecting)) < REGULAR_S.size


@pytest.mark.parametrize("early_rr_s", [0.38, 0.5, 0.6, 0.68])
@pytest.mark.parametrize("noise_mv", [0.0, 0.01, 0.03])
def test_released_classifier_rejects_no_early_beat_of_full_height(early_rr_s, noise_mv):
    mv = ecg([*REGULAR_S[:25], REGULAR_S[24] + early_rr_s, *REGULAR_S[26:]], 40, noise_mv)
    assert len(beats(mv, EcgQrs.load_release())) == REGULAR_S.size


def test_classifier_decides_in_noise():
    mv = ecg(REGULAR_S, 40, 0.25)
    never, always = beats(mv, StubClassifier(0.0)), beats(mv, StubClassifier(1.0))
    assert np.count_nonzero(never > 10) < 0.4 * np.count_nonzero(REGULAR_S > 10)
    assert np.count_nonzero(always > 10) > 1.4 * np.count_nonzero(REGULAR_S > 10)


def test_classifier_locates_the_r_peak_in_noise():
    mv = ecg(REGULAR_S, 40, 0.25)
    here, later = beats(mv, StubClassifier(1.0)), beats(mv, StubClassifier(1.0, 2.0))
    assert later[here > 20] - here[here > 20] == pytest.approx(2 / RATE_HZ)


def test_limits_the_offset_of_an_r_peak_from_its_candidate():
    mv = ecg(REGULAR_S, 40, 0.25)
    here, far = beats(mv, StubClassifier(1.0)), beats(mv, StubClassifier(1.0, 100.0))
    assert far[here > 20] - here[here > 20] == pytest.approx(MAX_R_PEAK_OFFSET_SAMPLES / RATE_HZ)


def test_r_peaks_stay_in_order_for_any_offsets():
    class AlternatingOffset(StubClassifier):
        def __call__(self, values):
            super().__call__(values)
            return Classification(1.0, 100.0 if self.calls % 2 else -100.0)

    found = beats(ecg(REGULAR_S, 40, 0.25), AlternatingOffset(1.0))
    assert np.diff(found).min() >= MIN_R_PEAK_SPACING_SAMPLES / RATE_HZ - 1e-9


@pytest.mark.parametrize("probability", [0.6, 1.0])
def test_reports_no_beat_before_the_horizon(probability):
    chain, mv, horizon_s = EcgChain(RATE_HZ, StubClassifier(probability, -100.0)), ecg(REGULAR_S, 40, 0.25), 0.0
    for start in range(0, mv.size, 20):
        assert all(beat.t_s >= horizon_s for beat in chain.push(mv[start : start + 20]))
        horizon_s = chain.horizon_s


class CertainOfTall(StubClassifier):
    """Accepts tall candidates and rejects low ones with certainty; gives medium ones its fixed classification."""

    def __call__(self, values):
        fixed, height = super().__call__(values), np.exp(values[-FEATURE_COUNT] - 0.9)
        return fixed if 0.45 < height < 0.75 else Classification(0.95 if height > 0.6 else 0.02, 0.0)


BETWEEN_S = REGULAR_S[15::4] + 0.4


def ecg_with_low_beats(regular_s=REGULAR_S, between_s=BETWEEN_S):
    """Return beats in noise, with complexes of half the height midway between some of them."""
    return ecg(regular_s, 40, 0.14) + 0.5 * ecg(between_s, 40, 0.0)


def count_found(expected_s, beats_s):
    return sum(np.abs(beats_s - at).min() < 0.08 for at in expected_s)


def test_discards_a_doubtful_beat_if_the_next_is_on_time():
    doubtful, certain = beats(ecg_with_low_beats(), CertainOfTall(0.6)), beats(ecg_with_low_beats(), CertainOfTall(0.85))
    assert count_found(BETWEEN_S, certain) >= 8
    assert count_found(BETWEEN_S, doubtful) <= 1
    assert count_found(REGULAR_S, doubtful) == REGULAR_S.size


@example(interval=100.0, since=115, at=0)
@given(interval=st.integers(40, 600).map(lambda halves: halves / 2), since=st.integers(1, 400), at=st.integers(0, 10**8))
def test_does_not_refute_a_beat_that_was_reported(interval, since, at):
    """A beat is reported after `pending_until`. At a median of 100 samples, sample 115 must not be both on time and late."""
    doubtful = DoubtfulBeat(PeakCandidate(at + 30, 1.0, 1.0), PeakCandidate(at, 1.0, 1.0), interval)
    refuted = doubtful.is_refuted_by(PeakCandidate(at + since, 1.0, 1.0))
    assert not (refuted and at + since > doubtful.pending_until)
    assert refuted == (abs(since - interval) < ON_TIME_TOLERANCE * interval) or abs(since - interval) == pytest.approx(
        ON_TIME_TOLERANCE * interval
    )


def test_keeps_a_doubtful_beat_if_the_next_is_late():
    """Premature beats are followed by a pause."""
    followed = REGULAR_S[16::4]
    found = beats(ecg_with_low_beats(regular_s=np.setdiff1d(REGULAR_S, followed)), CertainOfTall(0.6))
    assert count_found(BETWEEN_S, found) >= 8


def test_does_not_discard_a_certain_beat(data):
    """A low ventricular beat of mitdb 203: it becomes pending in a clean signal, and accepting it makes the signal noisy."""
    recording = open_recording(data / "mitdb" / "203.hea")
    chain, rate_hz = EcgChain(recording.rate_hz, EcgQrs.load_release()), round(recording.rate_hz)
    mv = recording.mv[407 * rate_hz : 477 * rate_hz]
    found = [beat for start in range(0, mv.size, rate_hz) for beat in chain.push(mv[start : start + rate_hz])] + chain.finish()
    assert np.abs(np.array([beat.t_s for beat in found]) - 60.086).min() < 0.05


def test_doubtful_beats_are_the_same_for_any_chunk_size():
    mv = ecg_with_low_beats()
    whole = beats(mv, CertainOfTall(0.6), mv.size)
    assert all(np.array_equal(beats(mv, CertainOfTall(0.6), size), whole) for size in (1, 7, 73, 250))


def test_stops_asking_a_classifier_that_long_agreed_with_the_threshold():
    long_s = np.arange(0.5, 200, 0.8)
    mv = ecg(long_s, 200, 0.03) + 0.3 * ecg(long_s + 0.4, 200, 0.0)
    agrees, refuses = CertainOfTall(0.02), StubClassifier(0.9)
    found = beats(mv, agrees)
    beats(mv, refuses)
    assert AGREEMENTS_FOR_MILD <= agrees.calls < AGREEMENTS_FOR_MILD + 10
    assert refuses.calls > long_s.size
    assert count_found(long_s, found) == found.size == long_s.size


def test_few_beats_count_as_early_in_an_irregular_rhythm():
    """One in three beats comes before 0.9 of the median interval, but one in ten before 0.9 of the second shortest."""
    classifier = StubClassifier(1.0)
    at = np.cumsum(np.random.default_rng(3).uniform(0.5, 1.1, 200))
    beats(ecg(at, at[-1] + 1, 0.06), classifier)
    assert 0 < classifier.calls < 0.15 * at.size


def test_classifies_only_doubtful_candidates_in_mild_noise():
    """Noise of 0.075 mV is a noise-to-beat ratio of about 0.15, noise of 0.12 mV one of over 0.2."""
    mild, strong = StubClassifier(1.0), StubClassifier(1.0)
    beats(ecg(REGULAR_S, 40, 0.075), mild)
    beats(ecg(REGULAR_S, 40, 0.12), strong)
    assert 0 < mild.calls < 0.1 * REGULAR_S.size < REGULAR_S.size < strong.calls


def test_a_doubtful_beat_waits_for_a_more_probable_candidate():
    mv = ecg(REGULAR_S, 40, 0.25)
    counts = compare(REGULAR_S, beats(mv, StubClassifier(0.6)), 0.15)
    assert counts.fn < REGULAR_S.size


def test_beats_are_the_same_for_any_chunk_size():
    mv = ecg(REGULAR_S, 40, 0.2)

    class Linear(StubClassifier):
        def __call__(self, values):
            return Classification(float(1 / (1 + np.exp(-2 * values[-FEATURE_COUNT]))), float(values[10]))

    whole = beats(mv, Linear(0), mv.size)
    assert all(np.array_equal(beats(mv, Linear(0), size), whole) for size in (1, 7, 73, 250))


def test_features_are_finite_at_the_start():
    row = input_vector(np.zeros((2, 129)), CandidateFeatures(0.0, 0.0, 1.0, 1.0, float("inf"), ()))
    assert row.shape == (INPUT_SIZE,)
    assert np.isfinite(row).all()
