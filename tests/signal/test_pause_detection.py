"""Which stretches without a beat are pauses, and which are a drop of the amplitude or an electrode artefact."""

import numpy as np
import pytest

from captures import open_recording
from config.limits import DEFAULT_LIMITS
from models.analysis import EcgAnalysis
from models.inference.models import Models

RATE_HZ = 130.0
WAVES = ((-0.17, 0.022, 0.12), (-0.028, 0.010, -0.1), (0.0, 0.012, 1.0), (0.03, 0.012, -0.25), (0.25, 0.045, 0.3))
"""P, Q, R, S and T waves: seconds from the R peak, standard deviation in seconds, height in mV."""


def ecg(beats, duration_s=50.0, *, noise_mv=0.01, p_mv=0.0, p_s=()):
    """Return times and mV of an ECG. `beats` are times and heights in mV; `p_s` are the times of isolated P waves."""
    t = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    mv = np.random.default_rng(7).normal(0, noise_mv, t.size) + 0.1 * np.sin(2 * np.pi * 0.2 * t)
    for beat, height in beats:
        for at, width, wave_mv in WAVES:
            mv += height * wave_mv * np.exp(-(((t - beat - at) / width) ** 2) / 2)
    for at in p_s:
        mv += p_mv * np.exp(-(((t - at) / 0.022) ** 2) / 2)
    return t, mv


def find_pauses(mv, rate_hz=RATE_HZ, size=73):
    """Return onset and end of each pause or asystole."""
    analysis = EcgAnalysis(rate_hz, DEFAULT_LIMITS, Models())
    steps = [analysis.push(mv[i : i + size]) for i in range(0, mv.size, size)] + [analysis.finish()]
    found = [finding for step in steps for finding in step.findings if finding.episode[0] == "pause"]
    raised = {finding.onset_s for finding in found if finding.end_s is None}
    ended = {finding.onset_s: finding.end_s for finding in found if finding.end_s is not None}
    assert raised == ended.keys()
    return sorted(ended.items())


def beats_except(start_s, end_s):
    """Return beats of 1 mV every 0.8 s, except between the two times."""
    return [(t, 1.0) for t in np.arange(0.5, 50, 0.8) if not start_s < t < end_s]


@pytest.mark.parametrize("factor", [5, 10])
@pytest.mark.parametrize("before_mv", [2.0, 4.0])
def test_a_sudden_drop_of_the_amplitude_is_not_a_pause(factor, before_mv):
    beats = [(t, before_mv if t < 20 else before_mv / factor) for t in np.arange(0.5, 50, 0.8)]
    assert find_pauses(ecg(beats)[1]) == []


def test_low_beats_after_a_large_artefact_are_not_a_pause():
    _, mv = ecg([(t, 0.4) for t in np.arange(0.5, 50, 0.8)])
    mv[20 * 130 : 25 * 130] += np.random.default_rng(8).normal(0, 4, 5 * 130)
    assert find_pauses(mv) == []


def test_amplifier_recovery_after_an_electrode_jump_is_not_a_pause():
    t, mv = ecg(beats_except(20, 26))
    mv += np.where(t > 20.6, 4 * np.exp(-(t - 20.6) / 2), 0)
    assert find_pauses(mv) == []


@pytest.mark.parametrize("chunk", range(37, 110, 9))
@pytest.mark.parametrize(
    ("noise_mv", "p_mv"), [(0.005, 0.0), (0.01, 0.2), (0.04, 0.0)], ids=["baseline", "p-waves", "noise of 40 uV"]
)
def test_a_standstill_is_a_pause_for_any_chunk_size(noise_mv, p_mv, chunk):
    _, mv = ecg(beats_except(20, 24.4), noise_mv=noise_mv, p_mv=p_mv, p_s=np.arange(20.6, 24.1, 0.7))
    (pause,) = find_pauses(mv, size=chunk)
    assert pause == pytest.approx((19.7, 24.5), abs=0.02)


def test_a_standstill_with_one_low_artefact_is_a_pause():
    beats = [(t, 4.0) for t, _ in beats_except(20, 24.4)]
    (pause,) = find_pauses(ecg([*beats, (21.6, 0.3)])[1])
    assert pause == pytest.approx((19.7, 24.5), abs=0.02)


def test_reports_a_standstill_after_3_s_and_keeps_it_open_beyond_the_buffer():
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, Models())
    _, mv = ecg([(t, 1.0) for t in np.arange(0.5, 20, 0.8)], 140.0, noise_mv=0.002)
    seen = [
        (finding, analysis.chain.end_s) for i in range(0, mv.size, 13) for finding in analysis.push(mv[i : i + 13]).findings
    ]
    (pause, pause_seen_s), (asystole, asystole_seen_s) = seen
    assert (pause.kind, asystole.kind) == ("pause", "asystole")
    assert pause.episode == asystole.episode
    assert pause.end_s is asystole.end_s is None
    assert pause_seen_s - pause.onset_s < 3.6
    assert asystole_seen_s - pause.onset_s < 8.6


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("mitdb/116", []),
        ("mitdb/208", []),
        ("mitdb/201", [(378.03, 381.75), (1786.77, 1790.54)]),
        ("cinc2017-sample/A02607", []),
        ("cinc2017-sample/A08402", []),
    ],
)
def test_pauses_in_recordings(record, expected, data):
    """The recordings have electrode jumps (116, 208), two annotated sinus pauses (201), and low beats after artefacts."""
    recording = open_recording(data / f"{record}.hea")
    found = find_pauses(recording.mv, recording.rate_hz)
    assert len(found) == len(expected)
    for pause, reference in zip(found, expected, strict=True):
        assert pause == pytest.approx(reference, abs=0.05)
