"""Beats of any shape and rate are found, and P waves, T waves and spikes are not: on synthetic rhythms with known truth."""

import numpy as np
import pytest
from hypothesis import given, settings

from evaluation.matching import compare
from models.inference.ecg_qrs import EcgQrs
from models.signal.candidates import PeakCandidate
from models.signal.chain import EcgChain
from models.signal.learning import FastRhythmWatch
from tests.signal.rhythms import REGULAR_CASES, Rhythm, asystole, draw, join, regular, standstill, times_of

CLASSIFIER = EcgQrs.load_release()
SETTLED_S = 10.0
"""Time after which the beats of a regular rhythm must be found."""


def detect(rhythm, classifier=CLASSIFIER):
    """Return the times of the detected beats; samples arrive in chunks of half a second."""
    chain, size = EcgChain(rhythm.rate_hz, classifier), round(rhythm.rate_hz / 2)
    beats = [beat for start in range(0, rhythm.mv.size, size) for beat in chain.push(rhythm.mv[start : start + size])]
    return times_of([*beats, *chain.finish()])


def missed_and_extra(rhythm, found_s, since_s, rr_s):
    """Return the shares of beats missed and of detections that are no beats; one at each end may lie across the border."""
    until_s = rhythm.seconds - 0.5
    truth_s = rhythm.beats_s[(rhythm.beats_s > since_s) & (rhythm.beats_s < until_s)]
    found_s = found_s[(found_s > since_s) & (found_s < until_s)]
    counts = compare(truth_s, found_s, min(0.15, 0.45 * rr_s))
    return max(counts.fn - 1, 0) / truth_s.size, max(counts.fp - 1, 0) / truth_s.size


@settings(max_examples=60, deadline=None, derandomize=True)
@given(REGULAR_CASES)
def test_finds_the_beats_of_any_regular_rhythm(case):
    rhythm = case.rhythm(seconds=40.0)
    missed, extra = missed_and_extra(rhythm, detect(rhythm), SETTLED_S, 60.0 / case.per_minute)
    assert missed <= 0.02
    assert extra <= 0.02


@pytest.mark.parametrize("classifier", [None, CLASSIFIER], ids=["alone", "classifier"])
@pytest.mark.parametrize("rate_hz", [130.0, 250.0])
@pytest.mark.parametrize(
    ("shape", "per_minute"),
    [("ventricular", 160), ("triangle", 180), ("ventricular_qs", 200), ("notched", 130), ("narrow", 220), ("narrow", 280)],
)
def test_finds_a_fast_rhythm_within_4_s_of_the_start_of_the_stream(shape, per_minute, rate_hz, classifier):
    rhythm = regular(shape, per_minute, seconds=20.0, rate_hz=rate_hz)
    assert missed_and_extra(rhythm, detect(rhythm, classifier), 4.0, 60.0 / per_minute) == (0, 0)


@pytest.mark.parametrize("classifier", [None, CLASSIFIER], ids=["alone", "classifier"])
@pytest.mark.parametrize("shape", ["narrow", "inverted", "qs", "notched", "triangle", "ventricular"])
@pytest.mark.parametrize("p_mv", [0.1, 0.15, 0.2])
def test_finds_no_beat_in_a_standstill_with_p_waves(shape, p_mv, classifier):
    rhythm = join(regular(shape, 70, seconds=40.0, noise_mv=0.01), standstill(p_mv, seconds=120.0, noise_mv=0.01))
    found_s = detect(rhythm, classifier)
    assert found_s[found_s > rhythm.beats_s[-1] + 0.4].size == 0


@pytest.mark.parametrize("factor", [0.3, 0.1])
def test_finds_escape_beats_and_beats_of_the_same_shape_after_a_standstill(factor):
    rhythm = join(
        regular("narrow", 70, seconds=40.0, noise_mv=0.005),
        standstill(0.15, seconds=30.0, noise_mv=0.005),
        regular("narrow", 40, seconds=60.0, amplitude_mv=factor, noise_mv=0.005, p_mv=0.0),
    )
    assert missed_and_extra(rhythm, detect(rhythm), 85.0, 1.5) == (0, 0)


def test_finds_wide_escape_beats_between_p_waves():
    p_waves = standstill(0.15, seconds=60.0, noise_mv=0.01)
    escape = draw("ventricular", np.arange(12.0, 59.0, 2.2), rr_s=2.2, seconds=60.0, amplitude_mv=0.8, noise_mv=0.0)
    rhythm = join(regular("narrow", 70, seconds=40.0, noise_mv=0.01), escape)
    rhythm.mv[-p_waves.mv.size :] += p_waves.mv
    assert missed_and_extra(rhythm, detect(rhythm), 41.0, 2.2) == (0, 0)


@pytest.mark.parametrize("shape", ["narrow", "inverted", "biphasic"])
@pytest.mark.parametrize("per_minute", [50, 75, 100, 120])
@pytest.mark.parametrize("t_share", [1.0, 2.0])
def test_a_t_wave_of_twice_the_r_wave_is_no_beat(shape, per_minute, t_share):
    rhythm = regular(shape, per_minute, seconds=40.0, t_share=t_share)
    assert missed_and_extra(rhythm, detect(rhythm), SETTLED_S, 60.0 / per_minute) == (0, 0)


@pytest.mark.parametrize("t_at_s", [0.2, 0.22, 0.24])
def test_the_deep_t_wave_of_an_early_wide_beat_is_no_beat(t_at_s):
    """Ventricular beats as in svdb 851: 4 mV high, with a T wave as deep at once after them."""
    sinus = regular("narrow", 80, rate_hz=250.0)
    on_time_s, early_s = np.delete(sinus.beats_s, np.s_[5::5]), sinus.beats_s[5::5] - 0.25
    mv = draw("narrow", on_time_s, rr_s=0.75, seconds=60.0, rate_hz=250.0, amplitude_mv=2.0).mv
    t = np.arange(mv.size) / 250.0
    for height_mv, delay_s, width_s in ((4.0, 0.0, 0.03), (-4.2, t_at_s, 0.05)):
        mv += sum(height_mv * np.exp(-(((t - beat_s - delay_s) / width_s) ** 2) / 2) for beat_s in early_s)
    rhythm = Rhythm(mv, 250.0, np.sort(np.concatenate((on_time_s, early_s))))
    assert missed_and_extra(rhythm, detect(rhythm), SETTLED_S, 0.75) == (0, 0)


@pytest.mark.parametrize("noise_mv", [0.01, 0.02])
@pytest.mark.parametrize("rate_hz", [130.0, 250.0])
def test_finds_hardly_a_beat_in_asystole_from_the_start_or_after_sinus_rhythm(rate_hz, noise_mv):
    silence = asystole(seconds=60.0, rate_hz=rate_hz, noise_mv=noise_mv)
    sinus = regular("narrow", 70, seconds=30.0, rate_hz=rate_hz, noise_mv=noise_mv)
    assert detect(silence).size <= 1
    after_s = detect(join(sinus, silence))
    assert after_s[after_s > sinus.beats_s[-1] + 0.4].size == 0


@pytest.mark.parametrize("shape", ["ventricular", "narrow"])
def test_finds_a_fast_rhythm_after_noise_has_raised_the_threshold(shape):
    """The noise is as high as the beats, so that it is learnt as noise of their height."""
    rhythm = join(asystole(seconds=20.0, noise_mv=0.3), regular(shape, 200, seconds=60.0))
    assert missed_and_extra(rhythm, detect(rhythm), 45.0, 0.3) == (0, 0)


def test_candidates_of_a_noise_long_ago_are_not_compared():
    """Their samples are no longer kept."""
    watch = FastRhythmWatch(lambda index: pytest.fail(f"asked for the samples around {index}"))
    for sample in [*range(0, 240, 40), 100_000]:
        assert watch.on_candidate(PeakCandidate(sample, 0.2, 0.2)) is None
