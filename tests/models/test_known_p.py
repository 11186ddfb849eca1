"""P waves of a patient, known from those before the QRS complexes."""

import numpy as np
import pytest

from models.rules.known_p import LEARNT_COMPLEXES, MIN_COMPLEXES, KnownPWave
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ
from tests.models.known_beats import Waves, ecg

P: Waves = ((0.5, 0.0, 0.022),)
NARROW: Waves = ((1.2, 0.0, 0.0105),)
WIDE: Waves = ((1.2, 0.0, 0.035),)


class Recorded:
    """A recorded signal at 125 Hz."""

    def __init__(self, mv: Samples) -> None:
        self._mv = mv

    def strip(self, start_s: float, end_s: float) -> tuple[float, Samples]:
        first = max(round(start_s * RATE_HZ), 0)
        return first / RATE_HZ, self._mv[first : round(end_s * RATE_HZ) + 1]


def learnt(qrs: Waves, complexes: int = LEARNT_COMPLEXES, p: Waves = P, escape: float = 0.5) -> tuple[KnownPWave, Recorded]:
    """Sinus rhythm of 75/min, then P waves alone from 20 s, and a complex at 25.0 s of `escape` times the height."""
    beats = [(0.8 * n, qrs) for n in range(1, 24)] + [(0.8 * n - 0.16, p) for n in range(1, 30)]
    signal = Recorded(ecg([*beats, (25.0, tuple((height * escape, at_s, width_s) for height, at_s, width_s in qrs))], 30.0))
    known = KnownPWave()
    for n in range(1, complexes + 1):
        known.learn(0.8 * n, signal)
    return known, signal


@pytest.mark.parametrize("qrs", [NARROW, WIDE])
def test_a_p_wave_of_half_the_complex_is_known_by_those_before(qrs: Waves) -> None:
    known, signal = learnt(qrs)
    assert all(known.is_p_wave(0.8 * n - 0.16, signal) for n in range(25, 29))
    assert known.count(20.0, 23.0, signal) == 3
    assert np.abs(known.blank(signal.strip(20.0, 23.0)[1])).max() < 0.1


@pytest.mark.parametrize(("qrs", "escape"), [(NARROW, 0.5), (WIDE, 0.8)])
def test_complexes_are_no_p_waves(qrs: Waves, escape: float) -> None:
    known, signal = learnt(qrs, escape=escape)
    assert not any(known.is_p_wave(t_s, signal) for t_s in (8.0, 8.8, 9.6, 25.0))


def test_nothing_is_known_from_few_complexes_or_without_p_waves() -> None:
    known, signal = learnt(NARROW, MIN_COMPLEXES - 1)
    assert not known.is_p_wave(20.64, signal)
    known, signal = learnt(NARROW, p=((0.0, 0.0, 0.022),))
    assert known.count(20.0, 24.0, signal) == 0
    assert not known.is_p_wave(25.0, signal)


def test_a_short_signal_holds_no_p_wave() -> None:
    known, _ = learnt(NARROW)
    assert known.find(np.zeros(3)).size == 0
