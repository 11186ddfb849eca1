"""A ventricular tachycardia keeps its label V until its shape or rate changes, and not longer."""

import numpy as np
import pytest

from config.limits import DEFAULT_LIMITS
from models.inference.ecg_beat import EcgBeat
from models.inference.release import RELEASE_DIR
from models.run_shapes import RunShapes
from models.signal.filters import Samples
from tests.models.known_beats import NORMAL, TRIANGLE, VENTRICULAR, TimedWaves, Waves, ecg, label, rhythm

MODEL = EcgBeat((RELEASE_DIR / "ecg_beat.onnx").read_bytes())
SINUS_S = 120.0
CLEAR = 0.95


def wave(waves: Waves, noise_mv: float = 0.0) -> Samples:
    """Return one beat as in `BeatContext`."""
    return ecg([(0.36, waves)], 104 / 125, noise_mv=noise_mv)


def tachycardia_between_sinus_rhythms(bpm: float, seconds: float) -> tuple[TimedWaves, float, float]:
    """Return the beats, and start and end of the tachycardia."""
    before = rhythm(NORMAL, 71, SINUS_S)
    tachycardia = rhythm(VENTRICULAR, bpm, seconds, start_s=before[-1][0] + 0.5)
    after = rhythm(NORMAL, 71, 60, start_s=tachycardia[-1][0] + 0.9)
    return [*before, *tachycardia, *after], tachycardia[0][0], tachycardia[-1][0]


@pytest.mark.parametrize(("bpm", "seconds"), [(105, 180), (150, 120), (200, 110)])
def test_a_sustained_tachycardia_is_one_run_to_its_end_and_sinus_beats_after_it_are_normal(bpm: float, seconds: float) -> None:
    beats, start_s, end_s = tachycardia_between_sinus_rhythms(bpm, seconds)
    heard = label(beats, MODEL)
    assert {finding.kind for _, finding in heard.findings} == {"vt"}
    assert len({finding.onset_s for _, finding in heard.findings}) == 1
    ended = heard.findings[-1][1]
    assert ended.end_s is not None
    assert ended.end_s - ended.onset_s >= 0.98 * (end_s - start_s)
    assert "V" not in {beat.label for beat in heard.beats if beat.t_s > end_s + 5.0}
    assert "V" not in {beat.label for beat in heard.beats if beat.t_s < start_s}


@pytest.mark.parametrize("bpm", [160, 200])
@pytest.mark.parametrize("waves", [VENTRICULAR, TRIANGLE], ids=["120 ms", "160 ms"])
def test_a_tachycardia_from_the_start_leaves_no_v_behind(waves: Waves, bpm: float) -> None:
    first = rhythm(waves, bpm, 60)
    heard = label([*first, *rhythm(NORMAL, 75, 60, start_s=first[-1][0] + 0.8)], MODEL)
    assert "V" not in {beat.label for beat in heard.beats if beat.t_s > first[-1][0] + 5.0}


def open_run() -> RunShapes:
    run = RunShapes(DEFAULT_LIMITS)
    for _ in range(3):
        assert run.relabel(0.4, wave(VENTRICULAR), "V", wave(NORMAL), CLEAR) == "V"
    assert run.is_open
    return run


def test_beats_that_are_only_just_called_ventricular_begin_no_run() -> None:
    run = RunShapes(DEFAULT_LIMITS)
    for probability in (0.42, 0.69, 0.83) * 20:
        assert run.relabel(0.4, wave(VENTRICULAR), "V", wave(NORMAL), probability) == "V"
    assert not run.is_open


def test_three_beats_begin_a_run_however_many_are_reported() -> None:
    run = RunShapes(DEFAULT_LIMITS.with_values({"v_run_beats": 5}))
    labels = [run.relabel(0.4, wave(VENTRICULAR), label, wave(NORMAL), CLEAR) for label in "VVVNN"]
    assert labels == list("VVVVV")


def test_beats_keep_their_label_whatever_the_classifier_says() -> None:
    run = open_run()
    assert {run.relabel(0.4, wave(VENTRICULAR), other, wave(NORMAL), CLEAR) for other in "NSF?" * 50} == {"V"}


def test_a_run_ends_with_its_shape() -> None:
    run = open_run()
    assert [run.relabel(0.4, wave(NORMAL), "N", wave(NORMAL), CLEAR) for _ in range(2)] == ["N", "N"]
    assert not run.is_open


def test_a_run_ends_with_its_rate() -> None:
    run = open_run()
    assert [run.relabel(rr_s, wave(VENTRICULAR), "N", wave(NORMAL), CLEAR) for rr_s in (0.55, 0.55)] == ["N", "N"]
    assert not run.is_open


def test_a_rate_that_changes_gradually_does_not_end_a_run() -> None:
    run = open_run()
    assert {run.relabel(rr_s, wave(VENTRICULAR), "N", wave(NORMAL), CLEAR) for rr_s in np.linspace(0.4, 0.55, 60)} == {"V"}


@pytest.mark.parametrize("slow_s", [0.65, 0.9])
def test_a_run_that_turns_slow_is_no_longer_kept(slow_s: float) -> None:
    run = open_run()
    for _ in range(9):
        run.relabel(slow_s, wave(VENTRICULAR), "V", wave(NORMAL), CLEAR)
    assert not run.is_open


def test_one_other_beat_or_a_gap_does_not_end_a_run() -> None:
    run = open_run()
    assert run.relabel(0.4, wave(NORMAL), "N", wave(NORMAL), CLEAR) == "N"
    assert run.relabel(None, wave(VENTRICULAR), "N", wave(NORMAL), CLEAR) == "V"
    assert run.relabel(0.4, wave(VENTRICULAR), "N", wave(NORMAL), CLEAR) == "V"
    assert run.relabel(3.0, wave(VENTRICULAR), "N", wave(NORMAL), CLEAR) == "N", "a pause ends it"


def test_a_run_may_alternate_between_two_shapes() -> None:
    run = open_run()
    assert run.relabel(0.4, wave(TRIANGLE) * -1, "V", wave(NORMAL), CLEAR) == "V"
    labels = [
        run.relabel(0.4, wave(TRIANGLE) * -1 if i % 2 else wave(VENTRICULAR), "N", wave(NORMAL), CLEAR) for i in range(40)
    ]
    assert set(labels) == {"V"}


def test_beats_of_the_usual_shape_that_are_labelled_v_start_nothing() -> None:
    run = RunShapes(DEFAULT_LIMITS)
    for _ in range(6):
        run.relabel(0.4, wave(NORMAL), "V", wave(NORMAL, 0.01), CLEAR)
    assert not run.is_open


def test_a_slow_streak_starts_nothing() -> None:
    run = RunShapes(DEFAULT_LIMITS)
    for _ in range(6):
        run.relabel(0.8, wave(VENTRICULAR), "V", wave(NORMAL), CLEAR)
    assert not run.is_open
