"""The simulated ECG: R peaks at the beats, and each rhythm with its clinical signs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.simulate.physiology import Beat, Rendering, render_ecg
from gateway.simulate.script import Script, Segment, load_script

RATE_HZ = 1000.0


@pytest.fixture(scope="module")
def demo() -> Rendering:
    script = load_script("demo")
    return render_ecg(script, script.seed, RATE_HZ)


def intervals(rendering: Rendering, onset_s: float, end_s: float) -> NDArray[np.float64]:
    times = np.array([beat.time_s for beat in rendering.beats])
    return np.diff(times[(times >= onset_s) & (times <= end_s)])


def complexes(rendering: Rendering, beats: list[Beat], from_s: float, to_s: float) -> NDArray[np.float64]:
    """Return the signal around each R peak, one row per beat, minus its isoelectric level (80 to 60 ms before the peak)."""
    span = np.arange(round(from_s * RATE_HZ), round(to_s * RATE_HZ))
    peaks = np.array([round(beat.time_s * RATE_HZ) for beat in beats])[:, None]
    level = rendering.mv[(peaks + np.arange(-80, -60)) % rendering.mv.size].mean(axis=1, keepdims=True)
    return np.asarray(rendering.mv[(peaks + span) % rendering.mv.size] - level)


def beats_of(rendering: Rendering, rhythm: str, label: str) -> list[Beat]:
    """Return the beats of a rhythm. For N, leave out the first, whose P wave belongs to the rhythm before."""
    beats = [beat for beat in rendering.beats if (beat.rhythm, beat.label) == (rhythm, label)]
    return beats[1:] if label == "N" else beats


def p_wave_mv(rendering: Rendering, beats: list[Beat]) -> float:
    """Return the height of the mean complex 165 ms before the R peak, where the P wave of a sinus beat is."""
    before, at, after = (complexes(rendering, beats, s - 0.005, s + 0.005).mean() for s in (-0.225, -0.165, -0.105))
    return float(at - (before + after) / 2)


def test_r_peaks_are_at_the_times_of_the_beats(demo: Rendering) -> None:
    around = complexes(demo, list(demo.beats), -0.1, 0.1)
    offset_s = np.argmax(around, axis=1) / RATE_HZ - 0.1
    assert np.abs(offset_s).max() <= 0.004
    assert around.max(axis=1).min() > 0.7


def test_samples_depend_on_the_seed_alone() -> None:
    script = load_script("latency")
    first, again, other = (render_ecg(script, seed, 130.16) for seed in (1, 1, 2))
    assert np.array_equal(first.mv, again.mv)
    assert first.beats == again.beats
    assert not np.array_equal(first.mv, other.mv)


def test_the_sampling_rate_changes_neither_beats_nor_shape() -> None:
    script = load_script("latency")
    slow, fast = render_ecg(script, 3, 130.0), render_ecg(script, 3, 520.0)
    assert slow.beats == fast.beats
    assert np.abs(slow.mv - fast.mv[::4]).max() < 0.1  # two independent noises, σ 8 µV


def test_af_is_irregularly_irregular(demo: Rendering) -> None:
    (af,) = [episode for episode in demo.episodes if episode.kind == "af"]
    rr = intervals(demo, af.onset_s, af.end_s)
    assert af.end_s - af.onset_s >= 48
    assert rr.mean() == pytest.approx(0.6, rel=0.02)
    assert 0.2 <= rr.std() / rr.mean() <= 0.25
    assert abs(np.corrcoef(rr[1:], rr[:-1])[0, 1]) < 0.2
    assert rr.min() > 0.35
    assert rr.max() < 1.1


def test_the_mean_rate_of_af_over_ten_seconds_is_normal(demo: Rendering) -> None:
    (af,) = [episode for episode in demo.episodes if episode.kind == "af"]
    times = np.array([beat.time_s for beat in demo.beats])
    starts = np.arange(af.onset_s, af.end_s - 10, 0.25)
    rates = [6 * np.count_nonzero((times >= start) & (times < start + 10)) for start in starts]
    assert max(rates) < 130
    assert min(rates) > 60


def test_af_has_fibrillatory_waves_in_place_of_p_waves(demo: Rendering) -> None:
    sinus, fibrillating = beats_of(demo, "sinus", "N"), beats_of(demo, "af", "N")
    assert p_wave_mv(demo, sinus) > 0.07
    assert abs(p_wave_mv(demo, fibrillating)) < 0.02
    spread = {
        rhythm: complexes(demo, beats, -0.2, -0.1).std(axis=0).mean() for rhythm, beats in (("n", sinus), ("af", fibrillating))
    }
    assert spread["af"] > 3 * spread["n"]


def test_fibrillatory_waves_lie_between_4_and_9_hz() -> None:
    script = Script("af", 1, (Segment("af", 60, 100),))
    mv = render_ecg(script, 5, 125.0).mv
    beats = render_ecg(script, 5, 125.0).beats
    keep = np.ones(mv.size, bool)
    for beat in beats:  # blank QRS and T; the fibrillatory waves remain
        index = np.arange(round((beat.time_s - 0.06) * 125), round((beat.time_s + 0.36) * 125)) % mv.size
        keep[index] = False
    frequencies = np.arange(2.0, 15.0, 0.1)
    time = np.arange(mv.size)[keep] / 125
    waves = mv[keep] - np.median(mv[keep])
    power = np.abs(np.exp(-2j * np.pi * np.outer(frequencies, time)) @ waves)
    assert 4 <= frequencies[np.argmax(power)] <= 9


def test_sinus_rhythm_has_respiratory_arrhythmia(demo: Rendering) -> None:
    rr = intervals(demo, 180.0, 186.0)
    assert 0.01 < rr.std() / rr.mean() < 0.06


@pytest.mark.parametrize(("rhythm", "onset_s", "end_s", "rate_bpm"), [("svt", 60, 74, 165), ("bradycardia", 145, 175, 35)])
def test_regular_rhythms_have_their_rate(demo: Rendering, rhythm: str, onset_s: float, end_s: float, rate_bpm: float) -> None:
    rr = intervals(demo, onset_s, end_s)
    assert {beat.rhythm for beat in demo.beats if onset_s <= beat.time_s < end_s} == {rhythm}
    assert 60 / rr.mean() == pytest.approx(rate_bpm, rel=0.04)
    assert rr.std() / rr.mean() < 0.05


def test_a_pause_is_one_interval_between_two_sinus_beats(demo: Rendering) -> None:
    (pause,) = [episode for episode in demo.episodes if episode.kind == "pause"]
    assert intervals(demo, pause.onset_s - 0.01, pause.end_s + 0.01) == pytest.approx([3.6])
    assert all(rr < 2.0 for rr in intervals(demo, 0, pause.onset_s))


def test_ventricular_beats_are_wide_without_p_and_with_discordant_t(demo: Rendering) -> None:
    def half_width_s(beats: list[Beat]) -> float:
        shape = complexes(demo, beats, -0.1, 0.1).mean(axis=0)
        return float(np.count_nonzero(shape > shape.max() / 2) / RATE_HZ)

    ectopic, normal = beats_of(demo, "sinus", "V"), beats_of(demo, "sinus", "N")
    assert half_width_s(ectopic) > 2 * half_width_s(normal)
    assert complexes(demo, ectopic, 0.2, 0.45).mean(axis=0).min() < -0.3
    assert complexes(demo, normal, 0.2, 0.45).mean(axis=0).max() > 0.2
    assert p_wave_mv(demo, ectopic) < 0.02


def test_only_ventricular_beats_have_a_full_compensatory_pause(demo: Rendering) -> None:
    times = [beat.time_s for beat in demo.beats]
    for index, beat in enumerate(demo.beats):
        if beat.rhythm != "sinus" or beat.label == "N" or beat.time_s < 90:
            continue
        rr = times[index - 1] - times[index - 2]
        coupling, total = (times[index] - times[index - 1]) / rr, (times[index + 1] - times[index - 1]) / rr
        assert coupling < 0.75
        assert 1.85 < total < 2.15 if beat.label == "V" else total < 1.85


def test_qt_shortens_with_rr(demo: Rendering) -> None:
    def t_peak_s(rhythm: str, label: str, to_s: float) -> float:
        return 0.12 + float(np.argmax(complexes(demo, beats_of(demo, rhythm, label), 0.12, to_s).mean(axis=0))) / RATE_HZ

    fast, rest, slow = t_peak_s("svt", "S", 0.26), t_peak_s("sinus", "N", 0.42), t_peak_s("bradycardia", "N", 0.42)
    assert fast < 0.75 * rest < rest < 0.85 * slow
