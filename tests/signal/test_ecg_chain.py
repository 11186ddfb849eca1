"""The ECG chain on synthetic ECGs with known beats and on recordings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_recording
from captures.annotations import BEATS, read_annotations
from evaluation.matching import compare, match
from models.signal.chain import EcgChain

RATES_HZ = (125.0, 128.0, 130.0, 250.0, 256.0, 300.0, 360.0, 500.0)


def ecg(beats_s, duration_s, rate_hz, *, height=lambda t: 1.0, p_only_s=(), t_wave_s=0.25, noise_mv=0.01):
    """Return P, Q, R, S and T waves as Gaussians around the R peak of each beat, and isolated P waves."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz
    mv = np.random.default_rng(5).normal(0, noise_mv, t.size)
    waves = ((-0.17, 0.022, 0.12), (-0.028, 0.010, -0.1), (0.0, 0.012, 1.0), (0.03, 0.012, -0.25), (t_wave_s, 0.045, 0.3))
    for beat in beats_s:
        for at, width, height_mv in waves:
            mv += height(beat) * height_mv * np.exp(-(((t - beat - at) / width) ** 2) / 2)
    for at in p_only_s:
        mv += 0.12 * np.exp(-(((t - at) / 0.022) ** 2) / 2)
    return mv


def run(mv, rate_hz, size=73):
    """Return the beats, and the delay with which each was reported before the end."""
    chain = EcgChain(rate_hz)
    found = [(beat, chain.end_s - beat.t_s) for i in range(0, mv.size, size) for beat in chain.push(mv[i : i + size])]
    beats = [beat for beat, _ in found] + chain.finish()
    return beats, [delay for _, delay in found]


def times(beats):
    return np.array([beat.t_s for beat in beats])


def count_missed_and_false(truth, beats):
    counts = compare(np.asarray(truth), times(beats), 0.05)
    return counts.fn, counts.fp


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_locates_r_peaks_within_2_ms_at_every_rate(rate_hz):
    truth = np.arange(0.5, 30, 0.813)
    beats, _ = run(ecg(truth, 30, rate_hz), rate_hz)
    np.testing.assert_allclose(times(beats), truth, atol=0.002)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_beats_and_strip_are_bit_identical_for_any_chunk_size(rate_hz, data):
    record = open_recording(data / "mitdb" / "208.hea")
    mv = record.mv[: round(12 * rate_hz)].copy()
    mv[1000:1010] = np.nan

    def outcome(size):
        chain = EcgChain(rate_hz)
        beats = [beat for i in range(0, mv.size, size) for beat in chain.push(mv[i : i + size])]
        beats += chain.gap(1.7)
        for i in range(0, mv.size, size):
            beats += chain.push(mv[i : i + size])
        return beats + chain.finish(), chain.strip(0.0, chain.end_s)[1].tobytes(), chain.horizon_s

    whole = outcome(mv.size)
    assert all(outcome(size) == whole for size in (1, 17, 73, round(rate_hz)))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=10))
def test_beats_are_identical_for_irregular_chunks(sizes):
    mv = ecg(np.arange(0.5, 12, 0.7), 12, 130, height=lambda t: 1 if t < 6 else 0.25)
    chain, beats, start, turn = EcgChain(130), [], 0, 0
    while start < mv.size:
        size = sizes[turn % len(sizes)]
        beats += chain.push(mv[start : start + size])
        start, turn = start + size, turn + 1
    assert beats + chain.finish() == run(mv, 130, mv.size)[0]


@pytest.mark.parametrize(("noise_mv", "pause_s"), [(0.02, 16), (0.15, 20)])
def test_beats_after_a_long_pause_are_identical_for_any_chunk_size(noise_mv, pause_s):
    truth = [t for t in np.arange(0.5, 120, 0.8) if not 60 < t < 60 + pause_s]
    mv = ecg(truth, 120, 125, noise_mv=noise_mv)
    whole = run(mv, 125, mv.size)[0]
    assert all(run(mv, 125, size)[0] == whole for size in (17, 73, 125))


@pytest.mark.parametrize(("per_minute", "t_wave_s"), [(30, 0.3), (75, 0.25), (150, 0.2), (220, 0.14)])
def test_detects_every_beat_from_30_to_220_per_minute(per_minute, t_wave_s):
    truth = np.arange(0.7, 60, 60 / per_minute)
    beats, _ = run(ecg(truth, 60, 130, t_wave_s=t_wave_s), 130)
    assert count_missed_and_false(truth, beats) == (0, 0)


def test_reports_a_beat_within_360_ms():
    _, delays = run(ecg(np.arange(0.5, 60, 0.8), 60, 130), 130, size=2)
    assert max(delays[4:]) < 0.36


def test_inverted_signal_only_inverts_the_amplitude():
    mv = ecg(np.arange(0.5, 20, 0.8), 20, 130)
    upright, inverted = run(mv, 130)[0], run(-mv, 130)[0]
    np.testing.assert_allclose(times(upright), times(inverted), atol=1e-9)
    assert all(0.8 < beat.amplitude_mv < 1.2 for beat in upright)
    assert [-beat.amplitude_mv for beat in inverted] == pytest.approx([beat.amplitude_mv for beat in upright])


def test_detects_beats_at_once_after_the_amplitude_drops_to_a_quarter():
    truth = np.arange(0.5, 60, 0.8)
    beats, _ = run(ecg(truth, 60, 130, height=lambda t: 1 if t < 30 else 0.25), 130)
    assert count_missed_and_false(truth, beats) == (0, 0)


def test_detects_beats_ten_seconds_after_the_amplitude_drops_to_a_twentieth():
    truth = np.arange(0.5, 60, 0.8)
    beats, _ = run(ecg(truth, 60, 130, height=lambda t: 1 if t < 30 else 0.05, noise_mv=0.002), 130)
    after = times(beats)[times(beats) > 40]
    assert count_missed_and_false(truth[truth > 40], [beat for beat in beats if beat.t_s > 40]) == (0, 0), after


def test_detects_beats_two_seconds_after_a_large_artefact():
    truth = np.arange(0.5, 60, 0.8)
    mv = ecg(truth, 60, 130)
    mv[30 * 130 : 33 * 130] += np.random.default_rng(6).normal(0, 20, 3 * 130)
    beats, _ = run(mv, 130)
    assert count_missed_and_false(truth[truth > 35], [beat for beat in beats if beat.t_s > 35]) == (0, 0)


@pytest.mark.parametrize("p_only_s", [(), (30.2, 31.0, 31.8, 32.6, 33.4)], ids=["noise", "p-waves"])
def test_detects_no_beat_in_asystole(p_only_s):
    truth = [t for t in np.arange(0.5, 60, 0.8) if not 30 < t < 34]
    beats, _ = run(ecg(truth, 60, 130, p_only_s=p_only_s), 130)
    assert count_missed_and_false(truth, beats) == (0, 0)


def test_horizon_advances_in_a_pause_and_no_beat_precedes_it():
    truth = [t for t in np.arange(0.5, 40, 0.8) if not 20 < t < 26]
    mv = ecg(truth, 40, 130)
    chain, horizon, in_pause = EcgChain(130), 0.0, 0.0
    for i in range(0, mv.size, 13):
        beats = chain.push(mv[i : i + 13])
        assert all(beat.t_s >= horizon for beat in beats)
        assert chain.horizon_s >= horizon
        horizon = chain.horizon_s
        if chain.end_s < 24:
            in_pause = horizon
    assert in_pause > 23.4


def test_a_gap_reports_pending_beats_and_starts_a_new_stretch():
    truth = np.arange(0.5, 10, 0.8)
    mv = ecg(truth, 10, 130)
    chain = EcgChain(130)
    before = chain.push(mv)
    before += chain.gap(5.0)
    assert chain.end_s == 15.0
    after = chain.push(mv) + chain.finish()
    np.testing.assert_allclose(times(before), truth, atol=0.003)
    np.testing.assert_allclose(times(after), truth + 15, atol=0.003)
    assert [beat.after_gap for beat in before + after] == [True] + [False] * (len(before) - 1) + [True] + [False] * (
        len(after) - 1
    )


def test_missing_samples_count_as_a_gap():
    truth = np.arange(0.5, 20, 0.8)
    mv = ecg(truth, 20, 130)
    mv[1170:1300] = np.nan
    beats, _ = run(mv, 130)
    assert [beat.t_s for beat in beats if beat.after_gap] == pytest.approx([0.5, 10.1], abs=0.003)
    chain = EcgChain(130)
    chain.push(mv)
    start_s, strip = chain.strip(8.0, 12.0)
    assert start_s == 8.0
    assert np.isnan(strip[130:245]).all()
    assert not np.isnan(strip[:120]).any()
    assert chain.is_usable(3.0, 8.0)
    assert not chain.is_usable(8.0, 12.0)


def test_strip_covers_45_s_without_baseline_wander():
    truth = np.arange(0.5, 100, 0.8)
    t = np.arange(13000) / 130
    chain = EcgChain(130)
    chain.push(ecg(truth, 100, 130) + 2 + np.sin(2 * np.pi * 0.05 * t))
    start_s, strip = chain.strip(56.0, 95.0)
    assert start_s == 56.0
    assert strip.size == 39 * 125 + 1
    assert abs(np.median(strip)) < 0.1
    peaks = [strip[round((beat - 56) * 125)] for beat in truth if 57 < beat < 94]
    assert min(peaks) > 0.75


def test_a_flat_line_is_not_usable_and_later_beats_are_detected():
    truth = np.arange(0.5, 10, 0.8)
    mv = ecg(truth, 10, 130)
    chain = EcgChain(130)
    chain.push(mv)
    assert chain.is_usable(4.0, 9.0)
    chain.push(np.full(120 * 130, mv[-1]))
    assert not chain.is_usable(100.0, 104.0)
    beats = chain.push(mv) + chain.finish()
    assert count_missed_and_false(truth + 130, [beat for beat in beats if beat.t_s > 130]) == (0, 0)


@pytest.mark.parametrize(
    "mv", [np.zeros(0), np.zeros(1), np.zeros(5000), np.full(300, np.nan), np.full(300, np.inf), np.ones(3)]
)
def test_detects_no_beats_in_signals_without_a_heart_beat(mv):
    chain = EcgChain(130)
    assert chain.push(mv) + chain.gap(1.0) + chain.push(mv) + chain.finish() == []
    assert 0 <= chain.horizon_s <= chain.end_s + 0.01


def test_processes_short_recordings_of_every_quality(data):
    for header in sorted((data / "cinc2017-sample").glob("*.hea"))[::4]:
        record = open_recording(header)
        found = times(run(record.mv, record.rate_hz, 300)[0])
        assert (np.diff(found) > 0.1).all()
        assert 20 < 60 * found.size / record.duration_s < 250


MIN_SENSITIVITY_AND_PREDICTIVITY = {
    "101": (0.999, 0.998),
    "108": (0.99, 0.99),
    "201": (0.97, 0.998),
    "203": (0.99, 0.98),
    "208": (0.99, 0.99),
    "217": (0.99, 0.99),
}


@pytest.mark.parametrize("name", MIN_SENSITIVITY_AND_PREDICTIVITY)
def test_detects_beats_in_difficult_arrhythmia_records(name, data):
    """The records show sinus rhythm, tall P waves, aberrant beats, AF with multiform PVCs, fusion beats and a pacemaker."""
    record = open_recording(data / "mitdb" / f"{name}.hea")
    notes = read_annotations(data / "mitdb" / f"{name}.atr")
    reference = np.array([sample / 360 for sample, symbol in zip(notes.sample, notes.symbol, strict=True) if symbol in BEATS])
    found = times(run(record.mv, record.rate_hz, 360)[0])
    counts = compare(reference[reference >= 300], found[found >= 300])
    sensitivity, predictivity = MIN_SENSITIVITY_AND_PREDICTIVITY[name]
    assert counts.sensitivity >= sensitivity
    assert counts.predictivity >= predictivity


def test_rr_intervals_agree_with_the_strap(data):
    record = open_recording(data / "polar-h10" / "polar_h10.csv")
    found = times(run(record.mv, record.rate_hz)[0])
    strap = np.cumsum(record.rr_s)
    shifts = np.arange(-3, 3, 0.01) + np.median(record.rr_t_s - strap)
    shift = max(shifts, key=lambda shift: len(match(strap + shift, found, 0.03)))
    pairs = [(i, j) for i, j in match(strap + shift, found) if j]
    differences = [abs(found[j] - found[j - 1] - record.rr_s[i]) for i, j in pairs]
    assert len(pairs) > 0.99 * record.rr_s.size
    assert np.median(differences) < 0.003


def wide_complexes(beats_s, duration_s, rate_hz, second_mv):
    """Return complexes of two opposite deflections 64 ms apart; the first is 1 mV high, at the time of the beat."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz
    mv = np.random.default_rng(5).normal(0, 0.01, t.size)
    for beat in beats_s:
        mv += np.exp(-(((t - beat) / 0.016) ** 2) / 2) - second_mv * np.exp(-(((t - beat - 0.064) / 0.016) ** 2) / 2)
    return mv


@pytest.mark.parametrize(("second_mv", "offset_s"), [(0.9, 0.0), (1.08, 0.0), (1.4, 0.064)])
@pytest.mark.parametrize("sign", [1, -1])
def test_r_peak_is_the_first_of_two_deflections_of_nearly_equal_height(second_mv, offset_s, sign):
    truth = np.arange(0.5, 30, 0.813)
    beats, _ = run(sign * wide_complexes(truth, 30, 250.0, second_mv), 250.0)
    np.testing.assert_allclose(times(beats), truth + offset_s, atol=0.008)
    assert all(np.sign(beat.amplitude_mv) == (sign if offset_s == 0 else -sign) for beat in beats)
