"""What a judge may decide, and when it is asked: with judges that say always the same."""

import numpy as np
import pytest

from models.evaluation.qrs import compare
from models.inference.ecg_qrs import EcgQrs
from models.signal.candidate import NUMBERS, SIZE, Situation, Verdict, values
from models.signal.chain import EcgChain
from models.signal.judged import APART, FARTHEST

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


def test_no_beat_comes_before_the_horizon():
    chain, mv, horizon_s = EcgChain(RATE_HZ, Judge(1.0, -100.0)), ecg(REGULAR_S, 40, 0.25), 0.0
    for start in range(0, mv.size, 20):
        assert all(beat.t_s >= horizon_s for beat in chain.push(mv[start : start + 20]))
        horizon_s = chain.horizon_s


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
