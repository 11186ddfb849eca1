"""Labels by rule: what a textbook calls clear is labelled, whatever leaves doubt is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.inference.ecg_beat import BEFORE, HISTORY, INTERVALS, SHAPE_FEATURES, WAVE_SAMPLES, N, S, V
from training.beat_data import UNUSED, Beats
from training.beat_strips import AF, OTHER, SINUS, by_rule

Wave = NDArray[np.float64]


def qrs(width: float = 2.5, height_mv: float = 1.0) -> Wave:
    return height_mv * np.exp(-0.5 * ((np.arange(WAVE_SAMPLES) - BEFORE) / width) ** 2)


NARROW, WIDE = qrs(), -qrs(7.0)


def beat(wave: Wave, early: float = 1.0, late: float = 1.0, history: Wave | None = None) -> Beats:
    """After a history of 0.8 s intervals, or as given; `early` and `late` are the intervals around it over 0.8 s."""
    rr_s = np.full(INTERVALS, 0.8) if history is None else np.concatenate((history, [0.8] * (INTERVALS - history.size)))
    rr_s[HISTORY - 1 : HISTORY + 1] = 0.8 * early, 0.8 * late
    return Beats(
        np.zeros(1),
        wave[None].astype(np.float32),
        NARROW[None].astype(np.float32),
        rr_s[None].astype(np.float32),
        np.zeros((1, SHAPE_FEATURES), np.float32),
        np.full(1, UNUSED, np.int8),
    )


@pytest.mark.parametrize(
    ("beats", "rhythm", "label"),
    [
        (beat(NARROW), SINUS, N),
        (beat(NARROW), OTHER, N),
        (beat(NARROW, 0.6, 1.3), AF, N),
        (beat(NARROW, 0.7, 1.1), OTHER, S),
        (beat(WIDE, 0.6, 1.4), OTHER, V),
        (beat(WIDE), SINUS, UNUSED),
        (beat(WIDE, 0.6, 1.4), AF, UNUSED),
        (beat(WIDE, 0.6, 1.0), OTHER, UNUSED),
        (beat(WIDE, 1.0, 1.0), OTHER, UNUSED),
        (beat(NARROW, 0.87, 1.0), OTHER, UNUSED),
        (beat(qrs(2.5, 2.0), 0.7, 1.1), OTHER, UNUSED),
    ],
)
def test_clear_beats_are_labelled_and_doubtful_ones_are_not(beats: Beats, rhythm: int, label: int) -> None:
    assert by_rule(beats, rhythm).tolist() == [label]


def test_nothing_comes_early_where_every_interval_differs() -> None:
    irregular = np.random.default_rng(1).uniform(0.4, 1.2, HISTORY - 1)
    for wave in (NARROW, WIDE):
        assert by_rule(beat(wave, 0.6, 1.4, irregular), OTHER).tolist() == [UNUSED]


@given(missing=st.sampled_from(["wave", "usual", "rr"]), rhythm=st.sampled_from([SINUS, AF, OTHER]))
def test_nothing_is_said_of_what_is_not_known(missing: str, rhythm: int) -> None:
    beats = beat(NARROW)
    for name in {"wave": ["wave_mv"], "usual": ["template_mv"], "rr": ["rr_s"]}[missing]:
        getattr(beats, name)[:] = np.nan
    labels = by_rule(beats, rhythm)
    assert labels.tolist() == [UNUSED if missing != "rr" or rhythm != AF else N]
