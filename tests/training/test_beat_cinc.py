"""Labels by rule: beats that a textbook rule identifies get a label, doubtful ones get none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.inference.ecg_beat import HISTORY_INTERVALS, RR_INPUTS, SAMPLES_BEFORE_R, SHAPE_FEATURES, WAVE_SAMPLES, N, S, V
from training.beat_cinc import AF, OTHER, SINUS, label_by_rule
from training.beat_data import UNLABELLED, Beats

Wave = NDArray[np.float64]


def qrs(width: float = 2.5, height_mv: float = 1.0) -> Wave:
    return height_mv * np.exp(-0.5 * ((np.arange(WAVE_SAMPLES) - SAMPLES_BEFORE_R) / width) ** 2)


NARROW, WIDE = qrs(), -qrs(7.0)


def beat(wave: Wave, early: float = 1.0, late: float = 1.0, history: Wave | None = None) -> Beats:
    """Return one beat. The intervals around it are `early` and `late` times 0.8 s, those before are `history` or 0.8 s each."""
    rr_s = np.full(RR_INPUTS, 0.8) if history is None else np.concatenate((history, [0.8] * (RR_INPUTS - history.size)))
    rr_s[HISTORY_INTERVALS - 1 : HISTORY_INTERVALS + 1] = 0.8 * early, 0.8 * late
    return Beats(
        np.zeros(1),
        wave[None].astype(np.float32),
        NARROW[None].astype(np.float32),
        rr_s[None].astype(np.float32),
        np.zeros((1, SHAPE_FEATURES), np.float32),
        np.full(1, UNLABELLED, np.int8),
    )


@pytest.mark.parametrize(
    ("beats", "rhythm", "label"),
    [
        (beat(NARROW), SINUS, N),
        (beat(NARROW), OTHER, N),
        (beat(NARROW, 0.6, 1.3), AF, N),
        (beat(NARROW, 0.7, 1.1), OTHER, S),
        (beat(WIDE, 0.6, 1.4), OTHER, V),
        (beat(WIDE), SINUS, UNLABELLED),
        (beat(WIDE, 0.6, 1.4), AF, UNLABELLED),
        (beat(WIDE, 0.6, 1.0), OTHER, UNLABELLED),
        (beat(WIDE, 1.0, 1.0), OTHER, UNLABELLED),
        (beat(NARROW, 0.87, 1.0), OTHER, UNLABELLED),
        (beat(qrs(2.5, 2.0), 0.7, 1.1), OTHER, UNLABELLED),
    ],
)
def test_labels_clear_beats_and_not_doubtful_ones(beats: Beats, rhythm: int, label: int) -> None:
    assert label_by_rule(beats, rhythm).tolist() == [label]


def test_labels_no_early_beat_in_an_irregular_rhythm() -> None:
    irregular = np.random.default_rng(1).uniform(0.4, 1.2, HISTORY_INTERVALS - 1)
    for wave in (NARROW, WIDE):
        assert label_by_rule(beat(wave, 0.6, 1.4, irregular), OTHER).tolist() == [UNLABELLED]


@given(missing=st.sampled_from(["wave", "template", "rr"]), rhythm=st.sampled_from([SINUS, AF, OTHER]))
def test_labels_no_beat_whose_inputs_are_missing(missing: str, rhythm: int) -> None:
    beats = beat(NARROW)
    for name in {"wave": ["wave_mv"], "template": ["template_mv"], "rr": ["rr_s"]}[missing]:
        getattr(beats, name)[:] = np.nan
    labels = label_by_rule(beats, rhythm)
    assert labels.tolist() == [UNLABELLED if missing != "rr" or rhythm != AF else N]
