"""Beat labels of a stream: complete, in order, identical for any chunk sizes, and unknown where the signal is missing."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.atrial_rhythms import AtrialRhythms
from models.beat_context import BeatContext, BeatContextBuilder
from models.beat_labels import FIRST_BEATS, UNKNOWN, BeatLabeller, LabelledBeat
from models.inference.ecg_beat import (
    CLASSES,
    HISTORY_INTERVALS,
    MAX_NEXT_RR_S,
    QRS,
    RUN_WEIGHT,
    SAMPLES_BEFORE_R,
    WAVE_SAMPLES,
    EcgBeat,
    N,
    S,
    features,
    find_early_beats,
)
from models.inference.release import RELEASE_DIR
from models.signal.chain import Beat, EcgChain
from models.signal.offline import condition

RATE_HZ = 250.0
Samples = NDArray[np.float64]


@pytest.fixture(scope="module")
def model() -> EcgBeat:
    return EcgBeat((RELEASE_DIR / "ecg_beat.onnx").read_bytes())


def ecg(beats_s: Sequence[float], wide: Sequence[int] = (), seconds: float | None = None) -> Samples:
    """Return beats of P wave, QRS complex and T wave in mV; beats in `wide` have no P wave and a broad, deep QRS complex."""
    time_s = np.arange(round((seconds or beats_s[-1] + 2.0) * RATE_HZ)) / RATE_HZ
    mv = 0.005 * np.random.default_rng(7).standard_normal(time_s.size)
    for number, beat_s in enumerate(beats_s):
        waves = [(-0.16, 0.025, 0.12), (0.0, 0.011, 1.0), (0.03, 0.012, -0.25), (0.26, 0.05, 0.25)]
        if number in wide:
            waves = [(0.0, 0.035, -1.4), (0.09, 0.035, 0.6), (0.3, 0.06, 0.5)]
        for offset_s, width_s, height_mv in waves:
            mv += height_mv * np.exp(-0.5 * ((time_s - beat_s - offset_s) / width_s) ** 2)
    return mv


def regular_beats(count: int, rr_s: float = 0.8) -> list[float]:
    return [1.0 + rr_s * number for number in range(count)]


def build_contexts(mv: Samples, hop: int = 50) -> list[BeatContext]:
    chain, builder, found = EcgChain(RATE_HZ), BeatContextBuilder(), []
    for start in range(0, mv.size, hop):
        found += builder.push(chain.push(mv[start : start + hop]), chain)
    found += builder.push(chain.finish(), chain)
    return [*found, *builder.flush(chain)]


def model_inputs(context: BeatContext) -> NDArray[np.float32]:
    """Return the model's inputs for one beat."""
    return features(context.wave_mv[None], context.template_mv[None], context.rr_s[None], np.array([context.shape]))


def label_beats(mv: Samples, model: EcgBeat | None, hop: int) -> list[LabelledBeat]:
    chain, labeller, found = EcgChain(RATE_HZ), BeatLabeller(model), []
    for start in range(0, mv.size, hop):
        found += labeller.push(chain.push(mv[start : start + hop]), chain)
    found += labeller.push(chain.finish(), chain)
    return [*found, *labeller.flush(chain)]


class TestBeatContext:
    def test_wave_equals_the_conditioned_signal(self) -> None:
        mv = ecg(regular_beats(40))
        conditioned = condition(mv, RATE_HZ)
        found = build_contexts(mv)
        assert tuple(context.beat for context in found) == conditioned.beats
        for context in found[1:-2]:
            first = round(context.beat.t_s * 125) - SAMPLES_BEFORE_R
            whole = conditioned.mv[first : first + WAVE_SAMPLES]
            np.testing.assert_allclose(context.wave_mv, whole, atol=0.003)  # of its baseline, the next second is missing
            np.testing.assert_allclose(context.wave_mv[: QRS.start], whole[: QRS.start], atol=1e-9)

    def test_rr_intervals_match_a_worked_example(self) -> None:
        beats_s = [*regular_beats(20), 16.5, 17.9, 18.7, 19.5]  # the last regular_beats one is at 16.2, the pause is 1.4 s
        found = build_contexts(ecg(beats_s, seconds=20.6))
        assert len(found) == len(beats_s)
        early = found[20]
        np.testing.assert_allclose(
            early.rr_s[[HISTORY_INTERVALS - 2, HISTORY_INTERVALS - 1, HISTORY_INTERVALS]], [0.8, 0.3, 1.4], atol=0.01
        )
        assert np.isnan(early.rr_s[: HISTORY_INTERVALS - 20]).all()
        assert np.isnan(found[0].rr_s[HISTORY_INTERVALS - 1])
        assert np.isnan(found[-1].rr_s[HISTORY_INTERVALS])

    def test_does_not_wait_for_the_end_of_a_long_pause(self) -> None:
        beats_s = [*regular_beats(10), 12.0, 12.8, 13.6]
        assert build_contexts(ecg(beats_s))[9].rr_s[HISTORY_INTERVALS] == MAX_NEXT_RR_S

    def test_narrow_beat_stays_the_template_in_bigeminy(self) -> None:
        beats_s = [1.0 + 1.6 * (number // 2) + 0.55 * (number % 2) for number in range(80)]
        found = build_contexts(ecg(beats_s, wide=range(1, 80, 2)))
        assert len(found) == 80
        for context in found[10:]:
            assert context.template_mv[SAMPLES_BEFORE_R] > 0.6  # the wide ones go to -1.4 mV
        narrow, wide = (np.array([context.shape for context in found[start::2]]) for start in (20, 21))
        assert (narrow[:, 1] > wide[:, 1]).all()
        assert (narrow[:, 2] < 0.9).all()

    def test_first_beat_has_no_template(self) -> None:
        first = build_contexts(ecg(regular_beats(10)))[0]
        assert np.isnan(first.template_mv).all()
        assert first.shape[:6] == (0.0,) * 6

    def test_features_describe_the_timing_of_a_shape_and_the_neighbouring_beats(self) -> None:
        beats_s = np.cumsum([1.0] + [0.8, 0.8, 0.5, 1.1] * 12).tolist()
        wide = [number for number in range(len(beats_s)) if number % 4 == 3]
        found = build_contexts(ecg(beats_s, wide=wide))[-9:-1]
        by_phase = {(len(beats_s) - 9 + number) % 4: context.shape for number, context in enumerate(found)}
        for narrow in (0, 1, 2):
            assert abs(by_phase[narrow][3]) < 0.15
        np.testing.assert_allclose(by_phase[3][3:5], np.log([0.5 / 0.8, 1.1 / 0.8]), atol=0.05)
        assert by_phase[3][5] > 0.9
        assert by_phase[3][6] > 0.9
        assert by_phase[2][6] < 0.9
        assert by_phase[0][5] < 0.9

    def test_compares_the_received_part_of_a_qrs_complex_without_learning_it(self) -> None:
        beats_s, number = regular_beats(20), 15
        mv = ecg(beats_s, wide=[10, 11, number])
        whole = build_contexts(mv)
        mv[round((beats_s[number] + 0.11) * RATE_HZ) :][:20] = np.nan
        cut = build_contexts(mv)
        assert np.isnan(cut[number].wave_mv[QRS]).any()
        np.testing.assert_allclose(cut[number].shape[:6], whole[number].shape[:6], atol=0.02)
        assert cut[number].shape[1] > 0.1  # like the two wide ones before it
        assert cut[number - 1].shape[6] == pytest.approx(whole[number - 1].shape[6], abs=0.02) != 0
        assert cut[number + 1].shape[5] == pytest.approx(whole[number + 1].shape[5], abs=0.02) != 0
        assert cut[number + 1].shape[0] == cut[number].shape[0] > whole[number + 1].shape[0]

    def test_a_beat_after_a_gap_hardly_changes_the_template(self) -> None:
        beats_s = [1.0 + 0.9 * number for number in range(40)]
        mv = ecg(beats_s, wide=range(10, 40, 2))
        for number in range(10, 40, 2):
            mv[round((beats_s[number] - 0.6) * RATE_HZ) :][:60] = np.nan
        assert build_contexts(mv)[-2].shape[0] > 0.7  # of 38 beats 14 are wide

    def test_first_beats_of_a_stream_have_full_weight(self) -> None:
        found = build_contexts(ecg(regular_beats(8), wide=[1]))
        assert [context.shape[0] for context in found[2:5]] == pytest.approx([1 / 2, 2 / 3, 3 / 4], abs=0.01)


class TestLabeller:
    def test_labels_every_beat_normal_without_a_model(self) -> None:
        found = label_beats(ecg(regular_beats(20), wide=[7]), None, 25)
        assert len(found) == 20
        assert {(beat.label, beat.probability) for beat in found} == {("N", 1.0)}

    @settings(max_examples=10, deadline=None)
    @given(hop=st.sampled_from([25, 50, 73, 250, 1000]), seed=st.integers(0, 1000))
    @example(hop=25, seed=8)  # a gap within a second after the next beat
    def test_streaming_equals_batch(self, model: EcgBeat, hop: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        beats_s = np.cumsum(np.concatenate(([1.0], random.uniform(0.45, 1.3, 30)))).tolist()
        mv = ecg(beats_s, wide=np.flatnonzero(random.random(31) < 0.2).tolist())
        start = int(random.integers(mv.size))
        mv[start : start + int(random.integers(500))] = np.nan
        assert label_beats(mv, model, hop) == label_beats(mv, model, mv.size)

    @pytest.mark.parametrize(("rr_s", "within_s"), [(0.4, 1.1), (0.8, 1.5), (2.2, 2.5)])
    def test_labels_every_beat_when_the_next_one_is_known(self, model: EcgBeat, rr_s: float, within_s: float) -> None:
        mv = ecg(regular_beats(30, rr_s))
        chain, labeller = EcgChain(RATE_HZ), BeatLabeller(model)
        reported: list[Beat] = []
        labelled: list[LabelledBeat] = []
        for start in range(0, mv.size, 25):
            new = chain.push(mv[start : start + 25])
            reported += new
            for beat in labeller.push(new, chain):
                labelled.append(beat)
                is_settled = 4.0 < chain.end_s < 1.0 + 29 * rr_s  # after the detector has learnt, before the last beat
                assert chain.end_s - beat.t_s <= (within_s if is_settled else 3.0)
        labelled += [*labeller.push(chain.finish(), chain), *labeller.flush(chain)]
        assert [beat.t_s for beat in labelled][: len(reported)] == [beat.t_s for beat in reported]
        assert len(labelled) == 30

    def test_labels_wide_premature_beats_ventricular(self, model: EcgBeat) -> None:
        beats_s, wide = [1.0], []
        for number in range(1, 60):
            early = number % 7 == 5
            beats_s.append(beats_s[-1] + (0.5 if early else 1.1 if number % 7 == 6 else 0.8))
            wide += [number] if early else []
        found = label_beats(ecg(beats_s, wide), model, 50)
        assert [number for number, beat in enumerate(found) if beat.label == "V"] == [at for at in wide if at >= FIRST_BEATS]
        assert {beat.label for beat in found[:-1]} == {"N", "V"}  # the last one is followed by silence

    def test_the_first_beats_are_not_ventricular_as_there_is_no_usual_one(
        self, model: EcgBeat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model, "probabilities", lambda _: np.array([[0.01, 0.0, 0.99, 0.0]], np.float32))
        chain, labeller = EcgChain(RATE_HZ), BeatLabeller(model)
        labels = "".join(beat.label for beat in labeller.push(chain.push(ecg(regular_beats(20))), chain))
        assert labels[:FIRST_BEATS] == "N" * FIRST_BEATS
        assert set(labels[FIRST_BEATS:]) == {"V"}

    def test_labels_narrow_premature_beats_supraventricular(self, model: EcgBeat) -> None:
        beats_s, early = [1.0], []
        for number in range(1, 80):
            is_early = number % 10 == 8
            beats_s.append(beats_s[-1] + (0.5 if is_early else 0.85))
            early += [number] if is_early else []
        found = label_beats(ecg(beats_s), model, 50)[:-1]  # nothing is known of what follows the last one
        assert [number for number, beat in enumerate(found) if beat.label == "S"] == early

    def test_a_supraventricular_run_continues(self, model: EcgBeat, monkeypatch: pytest.MonkeyPatch) -> None:
        mv = ecg(np.cumsum([1.0] + [0.85] * 30 + [0.55] * 12 + [0.85] * 10).tolist())
        seen = build_contexts(mv)
        shares = np.concatenate([model.probabilities(model_inputs(context)) for context in seen])
        rr_s = np.array([context.rr_s for context in seen])
        is_early, rr_before_s = find_early_beats(rr_s), rr_s[:, HISTORY_INTERVALS - 1]
        needed = (shares[:, N] / shares[:, S])[is_early]
        rises = (needed[1:] > needed[:-1]) & (needed[1:] < RUN_WEIGHT * needed[:-1])
        before = needed[:-1][rises][0]  # the weight that makes a beat S, but not by itself the next one
        monkeypatch.setattr(model, "weights", np.array([1.0, before * 1.001, 1.0, 1.0]))
        monkeypatch.setattr(AtrialRhythms, "push", lambda _, rr_s: False)
        found = "".join(beat.label for beat in label_beats(mv, model, 50))
        assert found == "".join(CLASSES[index] for index in model.choose_classes(shares, is_early, rr_before_s))
        each_alone = model.choose_classes(shares, is_early, np.full(rr_before_s.size, np.nan))
        assert found.count("S") > np.count_nonzero(each_alone == S) > 0

    def test_an_abrupt_run_is_supraventricular_whatever_the_model_says_unless_it_is_in_af(
        self, model: EcgBeat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model, "probabilities", lambda _: np.array([[0.98, 0.01, 0.005, 0.005]], np.float32))
        beats_s = [*regular_beats(20), *(16.2 + 0.5 * number for number in range(1, 30))]
        chain, labeller = EcgChain(RATE_HZ), BeatLabeller(model)
        labels = [beat.label for beat in labeller.push(chain.push(ecg(beats_s)), chain)]
        assert set(labels[:25]) == {"N"}
        assert set(labels[25:]) == {"S"}
        chain, labeller = EcgChain(RATE_HZ), BeatLabeller(model)
        assert {beat.label for beat in labeller.push(chain.push(ecg(beats_s)), chain, in_af=True)} == {"N"}

    def test_in_af_a_beat_after_a_ventricular_one_is_no_less_probably_ventricular(
        self, model: EcgBeat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubtful, certain = [0.45, 0.0, 0.55, 0.0], [0.1, 0.0, 0.9, 0.0]
        normal = [1.0, 0.0, 0.0, 0.0]
        given = iter([*[normal] * FIRST_BEATS, doubtful, certain, doubtful, doubtful, *[normal] * 15])
        monkeypatch.setattr(model, "probabilities", lambda inputs: np.array([next(given)] * len(inputs), np.float32))
        monkeypatch.setattr(model, "weights", np.ones(4))
        chain, labeller = EcgChain(RATE_HZ), BeatLabeller(model)
        found = labeller.push(chain.push(ecg(regular_beats(20))), chain, in_af=True)
        assert "".join(beat.label for beat in found[FIRST_BEATS - 1 :][:6]) == "NNVVVN"

    def test_a_mostly_missing_beat_is_unknown(self, model: EcgBeat) -> None:
        mv = ecg(regular_beats(20))
        peak = round((1.0 + 0.8 * 12) * RATE_HZ)
        mv[peak + 4 : peak + 100] = np.nan
        found = label_beats(mv, model, 50)
        near = [beat for beat in found if abs(beat.t_s - 10.6) < 0.1]
        assert [beat.label for beat in near] in ([], [UNKNOWN])
        assert all(beat.label != UNKNOWN for beat in found if abs(beat.t_s - 10.6) > 0.5)

    @pytest.mark.parametrize(("usual_mv", "tall_mv", "label"), [(1.0, 8.0, UNKNOWN), (0.7, 4.0, "V"), (2.5, 8.0, "V")])
    def test_a_beat_too_high_for_a_heart_and_this_patient_is_unknown(
        self, model: EcgBeat, usual_mv: float, tall_mv: float, label: str
    ) -> None:
        beats_s = np.cumsum([1.0] + [0.8] * 20 + [0.5, 1.1] + [0.8] * 5).tolist()
        mv = usual_mv / 1.25 * ecg(beats_s, wide=[21])
        wide = slice(*(round((beats_s[21] + offset_s) * RATE_HZ) for offset_s in (-0.15, 0.5)))
        mv[wide] *= tall_mv / np.ptp(mv[wide])
        found = label_beats(mv, model, 50)
        assert [beat.label for beat in found if abs(beat.t_s - beats_s[21]) < 0.15] == [label]
        assert {beat.label for beat in found if abs(beat.t_s - beats_s[21]) > 0.5} <= {"N", "S"}

    def test_a_gap_labels_the_pending_beats(self, model: EcgBeat) -> None:
        chain, labeller = EcgChain(RATE_HZ), BeatLabeller(model)
        found = labeller.push(chain.push(ecg(regular_beats(10), seconds=8.6)), chain)
        found += labeller.push(chain.gap(30.0), chain)
        found += labeller.flush(chain)
        assert len(found) == 10
        later = labeller.push(chain.push(ecg(regular_beats(10))), chain)
        assert later[0].after_gap
        assert later[0].t_s == pytest.approx(39.6, abs=0.02)
