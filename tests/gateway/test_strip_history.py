"""The history of strips: the same signal as the analysis has, for longer, in any chunks and across gaps."""

import random
from itertools import compress
from operator import not_

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from gateway.alert_tracker import AlertTracker
from gateway.models import load_models
from gateway.strip_history import BLOCK_SAMPLES, KEPT_S, MAX_UNITS, SCALE_MV, SETTLED_SAMPLES, StripHistory
from gateway.strips import BEFORE_S, LONGEST_S, PART_S
from gateway.waveform_analysis import EcgWaveformAnalysis
from models.analysis import EcgAnalysis
from models.inference.models import Models
from models.signal.chain import BUFFER_S, remove_baseline
from models.signal.resample import RATE_HZ, Resampler
from sync.records import AlertRecord
from tests.cloud.synthetic import ecg_mv

SETTLED_S = SETTLED_SAMPLES / RATE_HZ
BEATS_S = np.arange(0.5, 300.0, 0.8).tolist()


def play(parts: list[NDArray[np.float64] | float], chunk: int = 97) -> StripHistory:
    """Play an ECG at 125 Hz; numbers are gaps in seconds."""
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, Models())
    history = StripHistory(analysis)
    for part in parts:
        if isinstance(part, float):
            history.add_step(analysis.gap(part).beats)
            continue
        for at in range(0, part.size, chunk):
            for step in analysis.push_hops(part[at : at + chunk]):
                history.add_step(step.beats)
    return history


def ecg_125(seconds: float = 300.0) -> NDArray[np.float64]:
    return np.interp(np.arange(0, seconds, 1 / RATE_HZ), np.arange(0, seconds, 1 / 130), ecg_mv(BEATS_S, seconds))


def test_the_signal_is_that_of_the_whole_recording_without_its_baseline_to_half_a_microvolt() -> None:
    mv = ecg_125()
    resampler = Resampler(RATE_HZ, 0.0)
    history, whole = play([mv]), remove_baseline(np.concatenate((resampler.push(mv), resampler.finish())))
    assert history.end_s == pytest.approx(300.0)
    assert 0 <= 300.0 - KEPT_S - history.start_s < BLOCK_SAMPLES / RATE_HZ + SETTLED_S
    for from_s in np.arange(history.start_s, 290.0, 7.3).tolist():
        start_s, units = history.signal(from_s, from_s + LONGEST_S)
        first = round(start_s * RATE_HZ)
        assert 0 <= start_s - from_s < 1 / RATE_HZ + 1e-9
        assert units.size == pytest.approx(min(LONGEST_S * RATE_HZ, mv.size - first), abs=10)
        settled = max(min(units.size, mv.size - round(RATE_HZ) - first), 0)
        np.testing.assert_allclose(units[:settled] * SCALE_MV, whole[first:][:settled], atol=SCALE_MV / 2 + 1e-9)


@pytest.mark.parametrize("absurd_mv", [1e13, -1e13])
def test_samples_that_do_not_fit_are_cut_off_and_the_others_kept(absurd_mv: float) -> None:
    mv = ecg_125(120.0)
    mv[2000] = absurd_mv
    _, units = play([mv]).signal(0.0, 119.0)
    assert np.abs(units).max() == MAX_UNITS
    assert 500 < np.ptp(units[6000:]) < 5000


def test_of_what_is_no_longer_kept_there_is_nothing() -> None:
    history = play([ecg_125()])
    start_s, units = history.signal(0.0, history.start_s + 1.0)
    assert (start_s, units.size) == (history.start_s, round(RATE_HZ) + 1)
    assert history.signal(0.0, history.start_s - 1.0)[1].size == 0
    assert history.beats(0.0, history.start_s - BLOCK_SAMPLES / RATE_HZ) == []


def test_the_beats_of_all_that_is_kept_have_their_labels_and_the_newest_are_not_judged() -> None:
    history = play([ecg_125()])
    beats = history.beats(history.start_s, history.end_s)
    real_s = [beat_s for beat_s in BEATS_S if beat_s >= history.start_s]
    assert [t_s for t_s, _ in beats] == pytest.approx(real_s[: len(beats)], abs=0.02)
    assert len(real_s) - len(beats) <= 1
    assert {label for t_s, label in beats if t_s < history.end_s - 3} == {"N"}
    assert beats[-1][1] == "?"


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 900), st.sampled_from([0.5, 20.0, 44.0, 60.0, 130.0, 10_000.0]), st.floats(5.0, 40.0))
def test_neither_chunks_nor_gaps_change_what_is_kept(chunk: int, gap_s: float, before_s: float) -> None:
    mv = ecg_125(60.0)
    cut = round(before_s * RATE_HZ)
    parts: list[NDArray[np.float64] | float] = [mv[:cut], gap_s, mv[cut:]]
    history, other = play(parts, chunk), play(parts, 250)
    start_s, units = history.signal(-1.0, history.end_s)
    assert start_s == other.signal(-1.0, other.end_s)[0] == history.start_s
    np.testing.assert_array_equal(units, other.signal(-1.0, other.end_s)[1])
    assert history.beats(0.0, history.end_s) == other.beats(0.0, other.end_s)
    resumed = round((cut / RATE_HZ + gap_s - start_s) * RATE_HZ)
    assert not units[max(resumed - round(gap_s * RATE_HZ) + 1, 0) : resumed - 1].any()
    assert np.ptp(units[resumed:]) > 500
    if gap_s < 100:
        assert start_s == 0.0
        assert np.ptp(units[: cut - 1]) > 500


def test_a_fibrillation_shows_its_onset_with_ten_seconds_before_it_and_its_end() -> None:
    rng = random.Random(5)
    beats_s, onset_s, end_s = [0.5], 75.0, 195.0
    while beats_s[-1] < 360.0:
        rr_s = 0.38 + rng.gammavariate(3, 0.09) if onset_s < beats_s[-1] <= end_s else 0.85 + rng.gauss(0, 0.015)
        beats_s.append(beats_s[-1] + rr_s)
    in_af = [onset_s < beat_s <= end_s for beat_s in beats_s]
    mv = ecg_mv(list(compress(beats_s, map(not_, in_af))), 360.0) + ecg_mv(list(compress(beats_s, in_af)), 360.0, p_wave=False)
    waveform = EcgWaveformAnalysis(AlertTracker("strap-1"), 130.0, DEFAULT_LIMITS, load_models())
    alerts = []
    for at in range(0, mv.size, 130):
        output = waveform.process_samples(mv[at : at + 130], round(at / 130 * 1e6), 130.0, round(at / 130 * 1e6))
        alerts += [record for record in output.records if isinstance(record, AlertRecord) and record.kind == "af"]
    first, last = alerts[0], alerts[-1]
    assert first.strip is not None
    assert last.strip is not None
    assert first.decided_us - first.onset_us > (BUFFER_S - BEFORE_S) * 1e6  # the analysis alone has lost what is shown
    assert first.onset_us / 1e6 == pytest.approx(onset_s, abs=20)
    assert first.strip.start_us == pytest.approx(first.onset_us - BEFORE_S * 1e6, abs=10_000)
    assert first.strip.samples.size == pytest.approx(LONGEST_S * RATE_HZ, abs=2)
    assert (first.strip.part, first.strip.mark_from_us) == ("first", first.onset_us)
    assert set(first.strip.labels) <= set("NS")
    assert last.end_us is not None
    assert last.decided_us - last.end_us > BUFFER_S * 1e6
    assert last.strip.start_us == pytest.approx(last.end_us - PART_S * 1e6, abs=10_000)
    assert (last.strip.part, last.strip.mark_to_us) == ("last", last.end_us)
    assert last.end_us / 1e6 == pytest.approx(end_s, abs=20)
