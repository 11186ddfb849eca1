"""What a judge may decide, and when it is asked: with judges that say always the same."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captures import open_recording
from evaluation.qrs import compare
from models.inference.ecg_qrs import EcgQrs
from models.signal.candidate import FARTHEST, NUMBERS, SIZE, Situation, Verdict, values
from models.signal.chain import EcgChain
from models.signal.judged import AGREED, ON_TIME, Doubted
from models.signal.qrs import APART, Bump

RATE_HZ = 125.0


class Judge:
    """Says always the same, and counts how often it was asked."""

    def __init__(self, probability, place=0.0):
        self.verdict, self.asked = Verdict(probability, place), 0

    def __call__(self, values):
        assert values.shape == (SIZE,)
        assert np.isfinite(values).all()
        self.asked += 1
        return self.verdict


def ecg(beats_s, duration_s, noise_mv, quiet_s=8.0):
    """R peaks with Q and S, the first seconds quiet."""
    t = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    mv = np.random.default_rng(5).normal(0, 1, t.size) * np.where(t < quiet_s, 0.01, noise_mv)
    for beat in beats_s:
        for at, width, high in ((-0.028, 0.010, -0.1), (0.0, 0.012, 1.0), (0.03, 0.012, -0.25)):
            mv += high * np.exp(-(((t - beat - at) / width) ** 2) / 2)
    return mv


def beats(mv, judge, size=40):
    chain = EcgChain(RATE_HZ, judge)
    found = [beat for i in range(0, mv.size, size) for beat in chain.push(mv[i : i + size])] + chain.finish()
    return np.array([beat.t_s for beat in found])


REGULAR_S = np.arange(0.5, 40, 0.8)


def test_in_a_clean_regular_signal_nobody_is_asked():
    judge = Judge(0.0)
    mv = ecg(REGULAR_S, 40, 0.01)
    assert np.array_equal(beats(mv, judge), beats(mv, None))
    assert judge.asked == 0


def test_in_a_clean_signal_an_early_beat_can_be_vetoed_and_nothing_be_added():
    class Strict(Judge):
        def __call__(self, values):
            since = values[-NUMBERS + 2] + 0.7
            return Verdict(float(since > 0.8), 0.0)

    mv = ecg([*REGULAR_S[:25], REGULAR_S[24] + 0.38, *REGULAR_S[26:]], 40, 0.01)
    alone = beats(mv, None)
    assert len(alone) == REGULAR_S.size
    np.testing.assert_allclose(beats(mv, Strict(0)), np.delete(alone, 25), atol=0.01)
    np.testing.assert_allclose(beats(mv, Judge(1.0)), alone, atol=0.03)


def test_in_a_calm_signal_an_early_beat_of_full_height_needs_no_judge():
    judge = Judge(0.0)
    mv = ecg([*REGULAR_S[:25], REGULAR_S[24] + 0.5, *REGULAR_S[26:]], 40, 0.03)
    assert np.array_equal(beats(mv, judge), beats(mv, None))
    assert judge.asked == 0


def test_where_no_noise_was_met_an_early_beat_of_full_height_is_asked_about_and_may_be_vetoed():
    """Noise counts as an eighth of a beat until some is met: over `CALM`."""
    mv = ecg([*REGULAR_S[:25], REGULAR_S[24] + 0.5, *REGULAR_S[26:]], 40, 0.01)
    asked, refused = Judge(1.0), Judge(0.0)
    np.testing.assert_allclose(beats(mv, asked), beats(mv, None), atol=0.03)
    assert asked.asked > 0
    assert len(beats(mv, refused)) < REGULAR_S.size


@pytest.mark.parametrize("lead_s", [0.38, 0.5, 0.6, 0.68])
@pytest.mark.parametrize("noise_mv", [0.0, 0.01, 0.03])
def test_the_released_judge_vetoes_no_early_beat_of_full_height(lead_s, noise_mv):
    mv = ecg([*REGULAR_S[:25], REGULAR_S[24] + lead_s, *REGULAR_S[26:]], 40, noise_mv)
    assert len(beats(mv, EcgQrs.load_release())) == REGULAR_S.size


def test_in_noise_the_judge_decides():
    mv = ecg(REGULAR_S, 40, 0.25)
    never, always = beats(mv, Judge(0.0)), beats(mv, Judge(1.0))
    assert np.count_nonzero(never > 10) < 0.4 * np.count_nonzero(REGULAR_S > 10)
    assert np.count_nonzero(always > 10) > 1.4 * np.count_nonzero(REGULAR_S > 10)


def test_in_noise_the_judge_places_the_r_peak():
    mv = ecg(REGULAR_S, 40, 0.25)
    here, later = beats(mv, Judge(1.0)), beats(mv, Judge(1.0, 2.0))
    assert later[here > 20] - here[here > 20] == pytest.approx(2 / RATE_HZ)


def test_no_r_peak_is_placed_far_from_its_bump():
    mv = ecg(REGULAR_S, 40, 0.25)
    here, far = beats(mv, Judge(1.0)), beats(mv, Judge(1.0, 100.0))
    assert far[here > 20] - here[here > 20] == pytest.approx(FARTHEST / RATE_HZ)


def test_r_peaks_stay_in_order_wherever_the_judge_places_them():
    class Unsteady(Judge):
        def __call__(self, values):
            super().__call__(values)
            return Verdict(1.0, 100.0 if self.asked % 2 else -100.0)

    found = beats(ecg(REGULAR_S, 40, 0.25), Unsteady(1.0))
    assert np.diff(found).min() >= APART / RATE_HZ - 1e-9


@pytest.mark.parametrize("probability", [0.6, 1.0])
def test_no_beat_comes_before_the_horizon(probability):
    chain, mv, horizon_s = EcgChain(RATE_HZ, Judge(probability, -100.0)), ecg(REGULAR_S, 40, 0.25), 0.0
    for start in range(0, mv.size, 20):
        assert all(beat.t_s >= horizon_s for beat in chain.push(mv[start : start + 20]))
        horizon_s = chain.horizon_s


class SureOfTall(Judge):
    """Sure of what is as tall as a usual beat, and of what is not half as tall; says always the same of what lies between."""

    def __call__(self, values):
        says, height = super().__call__(values), np.exp(values[-NUMBERS] - 0.9)
        return says if 0.45 < height < 0.75 else Verdict(0.95 if height > 0.6 else 0.02, 0.0)


BETWEEN_S = REGULAR_S[15::4] + 0.4


def with_low_ones(regular_s=REGULAR_S, between_s=BETWEEN_S):
    """Half as high complexes halfway between some beats, in noise."""
    return ecg(regular_s, 40, 0.14) + 0.5 * ecg(between_s, 40, 0.0)


def found_of(expected_s, beats_s):
    return sum(np.abs(beats_s - at).min() < 0.08 for at in expected_s)


def test_a_beat_in_noise_that_is_less_than_sure_is_none_when_the_next_is_on_time():
    unsure, sure = beats(with_low_ones(), SureOfTall(0.6)), beats(with_low_ones(), SureOfTall(0.85))
    assert found_of(BETWEEN_S, sure) >= 8
    assert found_of(BETWEEN_S, unsure) <= 1
    assert found_of(REGULAR_S, unsure) == REGULAR_S.size


@example(interval=100.0, since=115, at=0)
@given(interval=st.integers(40, 600).map(lambda halves: halves / 2), since=st.integers(1, 400), at=st.integers(0, 10**8))
def test_a_beat_that_was_reported_is_not_refuted_any_more(interval, since, at):
    """It is reported after `until`: at an interval of 100 samples 115 once counted as on time, but as after 114.99…9 too."""
    doubted = Doubted(Bump(at + 30, 1.0, 1.0), Bump(at, 1.0, 1.0), interval)
    refuted = doubted.is_refuted_by(Bump(at + since, 1.0, 1.0))
    assert not (refuted and at + since > doubted.until)
    assert refuted == (abs(since - interval) < ON_TIME * interval) or abs(since - interval) == pytest.approx(ON_TIME * interval)


def test_it_is_one_when_the_next_comes_later():
    """A premature beat, and the pause after it."""
    followed = REGULAR_S[16::4]
    found = beats(with_low_ones(regular_s=np.setdiff1d(REGULAR_S, followed)), SureOfTall(0.6))
    assert found_of(BETWEEN_S, found) >= 8


def test_a_beat_that_the_network_is_sure_of_is_not_taken_back(data):
    """A ventricular beat of mitdb 203, lower than usual: it waits in a calm signal, and as a beat it makes the signal noisy."""
    recording = open_recording(data / "mitdb" / "203.hea")
    chain, rate_hz = EcgChain(recording.rate_hz, EcgQrs.load_release()), round(recording.rate_hz)
    mv = recording.mv[407 * rate_hz : 477 * rate_hz]
    found = [beat for start in range(0, mv.size, rate_hz) for beat in chain.push(mv[start : start + rate_hz])] + chain.finish()
    assert np.abs(np.array([beat.t_s for beat in found]) - 60.086).min() < 0.05


def test_chunks_do_not_matter_to_beats_that_are_less_than_sure():
    mv = with_low_ones()
    whole = beats(mv, SureOfTall(0.6), mv.size)
    assert all(np.array_equal(beats(mv, SureOfTall(0.6), size), whole) for size in (1, 7, 73, 250))


def test_a_judge_that_long_said_what_the_height_says_is_asked_no_more():
    long_s = np.arange(0.5, 200, 0.8)
    mv = ecg(long_s, 200, 0.03) + 0.3 * ecg(long_s + 0.4, 200, 0.0)
    agrees, refuses = SureOfTall(0.02), Judge(0.9)
    found = beats(mv, agrees)
    beats(mv, refuses)
    assert AGREED <= agrees.asked < AGREED + 10
    assert refuses.asked > long_s.size
    assert found_of(long_s, found) == found.size == long_s.size


def test_in_an_irregular_rhythm_few_beats_are_early():
    """Of three beats one comes before 0.9 of the usual interval, of ten one before 0.9 of the second shortest."""
    judge = Judge(1.0)
    at = np.cumsum(np.random.default_rng(3).uniform(0.5, 1.1, 200))
    beats(ecg(at, at[-1] + 1, 0.06), judge)
    assert 0 < judge.asked < 0.15 * at.size


def test_in_mild_noise_only_doubtful_bumps_are_shown():
    """At 0.075 mV noise is some 0.15 of a beat, at 0.12 mV over 0.2."""
    mild, strong = Judge(1.0), Judge(1.0)
    beats(ecg(REGULAR_S, 40, 0.075), mild)
    beats(ecg(REGULAR_S, 40, 0.12), strong)
    assert 0 < mild.asked < 0.1 * REGULAR_S.size < REGULAR_S.size < strong.asked


def test_unsure_beats_wait_for_a_likelier_bump():
    mv = ecg(REGULAR_S, 40, 0.25)
    counts = compare(REGULAR_S, beats(mv, Judge(0.6)), 0.15)
    assert counts.fn < REGULAR_S.size


def test_chunks_do_not_matter():
    mv = ecg(REGULAR_S, 40, 0.2)

    class Linear(Judge):
        def __call__(self, values):
            return Verdict(float(1 / (1 + np.exp(-2 * values[-NUMBERS]))), float(values[10]))

    whole = beats(mv, Linear(0), mv.size)
    assert all(np.array_equal(beats(mv, Linear(0), size), whole) for size in (1, 7, 73, 250))


def test_the_numbers_of_a_situation_are_finite_at_the_start():
    row = values(np.zeros((2, 129)), Situation(0.0, 0.0, 1.0, 1.0, float("inf"), ()))
    assert row.shape == (SIZE,)
    assert np.isfinite(row).all()
