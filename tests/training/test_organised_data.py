"""Training data of `ecg_organised`: what is known of the rhythm at each moment, folds, and synthetic rhythms."""

from pathlib import Path

import numpy as np
import pytest

from captures.annotations import Annotations, read_annotations
from models.signal.repetition import measure_repetition
from models.signal.resample import RATE_HZ
from models.signal.rhythm_window import ASYSTOLE, NOISE, ORGANISED, VF, VT
from training.organised_data import ANY, GRID_S, assign_folds, mark_sets, possible, steady_sets, unpack
from training.organised_synth import draw_asystole, draw_fibrillation, draw_merged, draw_motion, draw_noise, draw_rhythm

SAMPLES = round(5 * RATE_HZ)


def notes(*entries: tuple[float, str, str]) -> Annotations:
    """Return annotations at these seconds of a recording at 250 Hz."""
    ticks = np.array([round(second * 250) for second, _, _ in entries])
    return Annotations(ticks, tuple(symbol for _, symbol, _ in entries), tuple(aux for _, _, aux in entries))


def at(sets: np.ndarray, second: float) -> int:
    return int(sets[int(second / GRID_S)])


class TestSets:
    def test_rhythms_of_vfdb(self) -> None:
        rhythms = notes((0, "+", "(N"), (20, "+", "(VT"), (40, "+", "(VFIB"), (60, "+", "(ASYS"), (80, "+", "(NOISE"))
        sets = mark_sets("vfdb", rhythms, 250, round(100 * RATE_HZ))
        found = [at(sets, second) for second in (10, 30, 50, 70, 90)]
        assert found == [possible(ORGANISED), possible(VT), possible(VF), possible(ASYSTOLE), ANY]
        assert [at(sets, second) for second in (19.5, 20.5)] == [ANY, ANY]

    def test_cudb_leaves_fast_rhythms_open(self) -> None:
        slow = [(second, "N", "") for second in np.arange(1.0, 20, 0.8).tolist()]
        fast = [(second, "N", "") for second in np.arange(20.0, 40, 0.3).tolist()]
        marks = notes(*slow, *fast, (50, "[", ""), (60, "]", ""), (70, "[", ""))
        sets = mark_sets("cudb", marks, 250, round(90 * RATE_HZ))
        assert at(sets, 10) == possible(ORGANISED)
        assert at(sets, 30) == possible(ORGANISED, VT)
        assert at(sets, 45) == ANY
        assert [at(sets, second) for second in (55, 65, 80)] == [possible(VF), ANY, possible(VF)]

    def test_runs_of_ventricular_beats_are_left_out(self) -> None:
        beats = [(second, "V" if 10 < second < 13 else "N", "") for second in np.arange(1.0, 20, 0.7).tolist()]
        sets = mark_sets("svdb", notes(*beats), 250, round(20 * RATE_HZ))
        assert at(sets, 5) == possible(ORGANISED)
        assert at(sets, 11.5) == ANY

    def test_a_window_is_labelled_only_where_three_seconds_agree(self) -> None:
        sets = np.array([possible(ORGANISED)] * 20 + [possible(VF)] * 20, np.uint8)
        steady = steady_sets(sets)
        assert steady[14] == ANY
        assert steady[20] == possible(ORGANISED)
        assert (steady[21:35] == ANY).all()
        assert (steady[35:] == possible(VF)).all()

    def test_sets_as_rows(self) -> None:
        rows = unpack(np.array([possible(ORGANISED, NOISE), possible(VF)], np.uint8))
        assert rows.tolist() == [[1, 0, 0, 0, 1], [0, 0, 1, 0, 0]]

    def test_marked_time_of_the_recordings(self, data: Path) -> None:
        """cudb cu01 fibrillates from 214 s to its end; the margin is left out."""
        marks = read_annotations(data / "cudb" / "cu01.atr")
        sets = mark_sets("cudb", marks, 250, round(508.5 * RATE_HZ))
        assert np.sum(sets == possible(VF)) * GRID_S == pytest.approx(292, abs=4)


class TestFolds:
    def test_one_person_is_in_one_fold_and_fibrillation_in_all(self) -> None:
        names = [f"cudb/cu{index:02}" for index in range(10)] + ["svdb/828", "svdb/829", "svdb/876", "svdb/877"]
        states = [np.full(100 - index, possible(VF), np.uint8) for index in range(10)] + [np.zeros(9, np.uint8)] * 4
        folds = assign_folds(names, states)
        assert sorted(folds[name] for name in names[:5]) == [0, 1, 2, 3, 4]
        assert len({folds[name] for name in names[10:]}) == 1

    def test_neighbouring_alarms_stay_together(self) -> None:
        names = [f"cinc2015/a{number}s" for number in range(100, 200)]
        folds = assign_folds(names, [np.zeros(1, np.uint8)] * 100)
        assert [folds[name] for name in names] == [index // 20 for index in range(100)]


class TestSynthesis:
    def test_each_kind_has_its_classes(self) -> None:
        random = np.random.default_rng(1)
        for draw, allowed in (
            (draw_rhythm, {possible(ORGANISED), possible(VT), possible(ORGANISED, VT), possible(VT, VF)}),
            (draw_merged, {possible(ORGANISED), possible(VT, VF)}),
            (draw_fibrillation, {possible(VF)}),
            (draw_asystole, {possible(ASYSTOLE)}),
            (draw_noise, {possible(NOISE)}),
        ):
            drawn = [draw(random, SAMPLES) for _ in range(60)]
            assert {known for _, known in drawn} == allowed
            assert all(mv.shape == (SAMPLES,) and np.isfinite(mv).all() and np.abs(mv).max() < 30 for mv, _ in drawn)

    def test_merged_rhythms_called_dangerous_are_fast(self) -> None:
        random = np.random.default_rng(2)
        drawn = [draw_merged(random, SAMPLES) for _ in range(200)]
        fast = [measure_repetition(mv - mv.mean()) for mv, known in drawn if known == possible(VT, VF)]
        assert np.median([each.rate_bpm for each in fast if each.similarity > 0.9]) > 150

    def test_motion_has_power_one_and_mostly_low_frequencies(self) -> None:
        mv = draw_motion(np.random.default_rng(3), 8 * SAMPLES)
        power = np.abs(np.fft.rfft(mv)) ** 2
        assert np.std(mv) == pytest.approx(1, abs=1e-6)
        assert power[1 : 5 * 8 * 5].sum() > 0.7 * power[1:].sum()
