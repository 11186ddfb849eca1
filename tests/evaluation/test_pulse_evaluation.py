"""Pulse scoring on recordings with a known answer, against wfdb's comparison, and over folders with damaged files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from captures.ppg import PpgRecording
from evaluation.pulse import add_movement, drop_packets, evaluate_pulse, resample_to
from evaluation.pulse_reference import align_beats, compare_pulses, find_faultless
from models.signal.ppg import Pulse

Samples = NDArray[np.float64]
Synthesise = Callable[..., tuple[Samples, Samples]]
NO_TIMES: Samples = np.empty(0)
SIGNAL = np.zeros(50 * 60)


def pulses(times: Any) -> list[Pulse]:
    return [Pulse(float(t), after_gap=False) for t in times]


class ConstantQuality:
    """A quality model that accepts every window, or none."""

    name, version = "constant", "1"

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def probability(self, ppg: Samples) -> float:
        return 0.5


@given(shift=st.floats(-25, 25), seed=st.integers(0, 20), lost=st.integers(0, 8))
@settings(max_examples=20, deadline=None)
def test_finds_the_clock_offset_from_the_rhythm(shift: float, seed: int, lost: int) -> None:
    rng = np.random.default_rng(seed)
    beats = np.concatenate(([0.0], np.cumsum(rng.normal(0.85, 0.06, 100))))
    seen = (
        np.delete(beats, rng.choice(beats.size - 1, lost, replace=False) + 1)[1:]
        + shift
        + rng.normal(0, 0.01, beats.size - lost - 1)
    )
    assert np.abs(align_beats(beats, seen, same_clock=False) - beats - shift).max() < 0.02


def test_finds_the_transit_time_on_one_clock() -> None:
    beats = np.arange(0, 60, 0.8)
    assert np.allclose(align_beats(beats, beats + 0.31, same_clock=True), beats + 0.31, atol=0.01)


def test_counts_missed_false_and_late_pulses() -> None:
    expected = np.arange(1.0, 59.0, 1.0)
    found = expected.copy()
    found[20] += 0.1
    seen = np.sort(np.append(np.delete(found, [5, 40]), [30.5]))
    comparison = compare_pulses(expected, pulses(seen), SIGNAL, 50.0, NO_TIMES)
    assert comparison.matched_s.size == 56
    assert comparison.missed_s.tolist() == [6.0, 41.0]
    assert comparison.false_s.tolist() == [30.5]
    late = comparison.pp[comparison.pp[:, 1] > 1e-6]
    assert late[:, 0].tolist() == pytest.approx([21.1, 22.0])
    assert late[:, 1].tolist() == pytest.approx([0.1, 0.1])
    assert comparison.faults_s.tolist() == pytest.approx([6.0, 21.1, 22.0, 30.5, 41.0])
    # 58 pulses give 57 intervals; each missed pulse removes two, and the false pulse splits one.
    assert comparison.pp.shape == (57 - 4 - 1, 2)


def test_pulses_beside_gaps_and_ends_and_faint_pulses_do_not_count() -> None:
    signal = SIGNAL.copy()
    signal[1000:1100] = np.nan
    expected = np.concatenate(([0.1], np.arange(1.0, 59.0, 1.0), [59.9]))
    seen = [t for t in expected if not 19.5 < t < 23.5 and 0.2 < t < 59.5]
    clean = compare_pulses(expected, pulses(seen), signal, 50.0, NO_TIMES)
    assert clean.missed_s.tolist() == [23.0]  # the gap ends at 22 s; the pulse at this time does not count
    faint = compare_pulses(expected, pulses([*seen, 59.5]), signal, 50.0, np.array([59.5]))
    assert faint.false_s.size == 0


def test_finds_windows_without_faults() -> None:
    good = find_faultless(np.array([12.0, 30.0]), np.array([0.0, 1.9, 2.1, 12.0, 12.1, 19.9, 20.1, 31.0]), 10.0)
    assert good.tolist() == [True, True, False, False, True, True, False, True]


def test_counts_agree_with_wfdb(synthesise: Synthesise) -> None:
    processing = pytest.importorskip("wfdb.processing")
    rng = np.random.default_rng(11)
    expected = np.cumsum(rng.uniform(0.5, 1.3, 60)) + 1
    kept = expected[rng.random(60) < 0.9]
    seen = np.sort(np.concatenate((kept + rng.normal(0, 0.08, kept.size), rng.uniform(2, 40, 4))))
    inside = seen[(seen >= expected[0] - 0.15) & (seen <= expected[-1] + 0.15)]
    ours = compare_pulses(expected, pulses(inside), np.zeros(50 * 90), 50.0, NO_TIMES)
    theirs = processing.compare_annotations(np.round(expected * 1000).astype(int), np.round(inside * 1000).astype(int), 150)
    assert abs(ours.matched_s.size - theirs.tp) <= 1  # wfdb pairs each beat with its nearest, EC57 pairs as many as possible
    assert abs(ours.missed_s.size - theirs.fn) <= 1
    assert abs(ours.false_s.size - theirs.fp) <= 1


def write_recordings(tmp_path: Path, synthesise: Synthesise, count: int = 2) -> Path:
    for index in range(count):
        rng = np.random.default_rng(index)
        intervals = rng.normal(0.85, 0.06, 60)
        ppg, _ = synthesise(intervals, 30.0, noise=0.01)
        here = tmp_path / f"subject_{index:02}"
        here.mkdir()
        rows = [f"{k * 100 / 3:.0f},{200 - 3 * x:.4f},0,0" for k, x in enumerate(ppg)]
        (here / "PPG.csv").write_text("\n".join(["time,R,G,B", *rows]))
        (here / "RR.txt").write_text(" ".join(f"{1000 * rr:.0f}" for rr in intervals))
    return tmp_path


def test_scores_a_folder_and_names_damaged_files(tmp_path: Path, synthesise: Synthesise) -> None:
    data = write_recordings(tmp_path, synthesise)
    (data / "subject_00" / "odd").mkdir()
    (data / "subject_00" / "odd" / "PPG.csv").write_text("no table")
    result = evaluate_pulse(data, ConstantQuality(0.5))
    assert result["pulse_f1"] == 100.0
    assert 0 < result["pp_error_ms"]["median"] < 5
    assert result["pp_error_ms"]["p95"] < 15
    assert result["coverage"] > 95
    assert sorted(result["records"]) == ["subject_00", "subject_01"]
    assert list(result["skipped"]) == ["subject_00/odd/PPG.csv"]
    assert result["matched"] == result["all_time"]["matched"]
    assert sum(record["matched"] for record in result["records"].values()) == result["matched"]


def test_rejected_seconds_lower_coverage_and_do_not_count(tmp_path: Path, synthesise: Synthesise) -> None:
    result = evaluate_pulse(write_recordings(tmp_path, synthesise, 1), ConstantQuality(0.6))
    assert (result["pulse_f1"], result["coverage"], result["pp_error_ms"]["median"]) == (None, 0.0, None)
    assert result["all_time"]["pulse_f1"] == 100.0


def test_a_missing_folder_gives_an_empty_report() -> None:
    result = evaluate_pulse(Path("nowhere"), ConstantQuality(0.5))
    assert (result["pulse_f1"], result["records"], result["skipped"]) == (None, {}, {})


def test_scores_with_lost_packets_and_at_another_rate(tmp_path: Path, synthesise: Synthesise) -> None:
    data = write_recordings(tmp_path, synthesise, 1)
    assert evaluate_pulse(data, ConstantQuality(0.5), resample_to(128.0))["pulse_f1"] == 100.0
    lossy = evaluate_pulse(data, ConstantQuality(0.5), drop_packets(0.1))
    assert lossy["coverage"] <= 100.0
    recording = PpgRecording("x", np.zeros(5000), 50.0, NO_TIMES, same_clock=True)
    assert np.isnan(drop_packets(0.1)(recording).ppg).mean() == pytest.approx(0.1, abs=0.04)
    assert np.array_equal(drop_packets(0.1)(recording).ppg, drop_packets(0.1)(recording).ppg, equal_nan=True)


def test_scores_the_welltory_recordings(data: Path) -> None:
    result = evaluate_pulse(data / "welltory-ppg", ConstantQuality(0.5))
    assert len(result["records"]) == 14
    assert result["skipped"] == {}
    assert result["all_time"]["pulse_f1"] > 95
    assert result["all_time"]["pp_error_ms"]["median"] < 10


def test_adds_movement_at_the_given_snr() -> None:
    t = np.arange(6000) / 50
    recording = PpgRecording("x", 3 + np.sin(2 * np.pi * 1.2 * t), 50.0, NO_TIMES, same_clock=True)
    added = add_movement(12.0)(recording).ppg - recording.ppg
    assert 10 * np.log10(0.5 / np.var(added)) == pytest.approx(12.0, abs=0.5)
    assert np.array_equal(add_movement(12.0)(recording).ppg, add_movement(12.0)(recording).ppg)
