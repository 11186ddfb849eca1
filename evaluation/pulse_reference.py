"""Aligns detected pulses with the heart beats of a reference and compares them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evaluation.matching import WINDOW_S, match
from models.signal.ppg import Pulse

Seconds = NDArray[np.float64]

LARGEST_PP_ERROR_S: Final = 0.07
"""A larger error of an interval counts as a fault: a tenth of a heart beat, half of the variation that AF adds. In a clean
camera PPG the error is 6 ms at the median and 30 ms at the 95th percentile; most of it is physiological (the pre-ejection
period varies)."""

NEAR_GAP_S: Final = 0.3
"""Near a gap and at either end the rise of a pulse may be incomplete, so pulses there do not count."""

_LONGEST_DELAY_S: Final = 1.0
"""From the R peak to the finger a pulse takes 0.2 to 0.4 s; the PLETH filters of monitors add some tenths of a second."""

_WIDEST_S: Final = 30.0
"""Largest time between the starts of the two devices."""

_STEP_S: Final = 0.02
_CLOSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """Pulses matched with the reference within 150 ms; all times are in seconds on the pulses' clock.

    `matched_s` are the detected pulses that were expected, `missed_s` the expected pulses that were not detected, `false_s` the
    detected pulses that were not expected. `pp` (m, 2) has a row for each interval between successive matched pulses: the time
    of its end, and its error.
    """

    matched_s: Seconds
    missed_s: Seconds
    false_s: Seconds
    pp: NDArray[np.float64]

    @property
    def faults_s(self) -> Seconds:
        """Times of all faults: missed and false pulses, and intervals with a large error."""
        return np.sort(np.concatenate((self.missed_s, self.false_s, self.pp[self.pp[:, 1] > LARGEST_PP_ERROR_S, 0])))


def align_beats(beats_s: Seconds, pulses_s: Seconds, same_clock: bool) -> Seconds:
    """Returns when the pulses of the reference beats are expected: the beats, shifted by one number for the whole recording.

    The shift is the one with the most pulses close to a beat (a Gaussian of 50 ms, in steps of 20 ms; up to 30 s where the
    clocks differ, else 1 s), refined by the median distance of pairs within 150 ms. It covers transit time and clock offset.
    """
    if beats_s.size < 2 or pulses_s.size < 2:
        return beats_s
    low, high = (0.0, _LONGEST_DELAY_S) if same_clock else _offsets(beats_s, pulses_s)
    shifts = np.arange(low, high, _STEP_S)
    scores = [_closeness(beats_s + shift, pulses_s) for shift in shifts.tolist()]
    shifted = beats_s + shifts[int(np.argmax(scores))]
    pairs = match(shifted, pulses_s)
    rest = float(np.median([pulses_s[j] - shifted[i] for i, j in pairs])) if pairs else 0.0
    return np.asarray(shifted + rest)


def compare_pulses(expected_s: Seconds, pulses: Sequence[Pulse], ppg: Seconds, rate_hz: float, faint_s: Seconds) -> Comparison:
    """Matches pulses with expected pulses, where there is signal and a reference.

    Args:
        expected_s: times of expected pulses, ascending.
        pulses: detected pulses, ascending.
        ppg: (n,) the signal, NaN where samples are missing.
        rate_hz: sampling rate of the signal.
        faint_s: expected times of faint pulses, which count neither as missed nor as false.
    """
    counted = expected_s[_is_whole(expected_s, ppg, rate_hz)]
    if counted.size == 0:
        return Comparison(np.empty(0), np.empty(0), np.empty(0), np.empty((0, 2)))
    within = [p for p in pulses if counted[0] - WINDOW_S <= p.t_s <= counted[-1] + WINDOW_S]
    times = np.array([p.t_s for p in within])
    pairs = match(counted, times)
    unmatched = np.setdiff1d(np.arange(times.size), [j for _, j in pairs])
    doubtful = np.concatenate((faint_s, expected_s[~_is_whole(expected_s, ppg, rate_hz)]))
    false = [j for j in unmatched.tolist() if not doubtful.size or np.abs(doubtful - times[j]).min() > WINDOW_S]
    errors = [
        (times[j], abs((times[j] - times[j_before]) - (counted[i] - counted[i_before])))
        for (i_before, j_before), (i, j) in pairwise(pairs)
        if i == i_before + 1 and j == j_before + 1 and not within[j].after_gap
    ]
    return Comparison(
        times[[j for _, j in pairs]],
        np.delete(counted, [i for i, _ in pairs]),
        times[false],
        np.array(errors).reshape(-1, 2),
    )


def find_faultless(faults_s: Seconds, starts_s: Seconds, length_s: float) -> NDArray[np.bool_]:
    """Returns which windows hold no fault, (windows,)."""
    first = np.searchsorted(faults_s, starts_s)
    return np.asarray(np.searchsorted(faults_s, starts_s + length_s) == first)


def _offsets(beats_s: Seconds, pulses_s: Seconds) -> tuple[float, float]:
    middle = float(pulses_s[0] - beats_s[0])
    return middle - _WIDEST_S, middle + _WIDEST_S


def _closeness(beats_s: Seconds, pulses_s: Seconds) -> float:
    after = np.clip(np.searchsorted(pulses_s, beats_s), 1, pulses_s.size - 1)
    distance = np.minimum(np.abs(pulses_s[after] - beats_s), np.abs(pulses_s[after - 1] - beats_s))
    return float(np.exp(-((distance / _CLOSE_S) ** 2)).sum())


def _is_whole(times_s: Seconds, ppg: Seconds, rate_hz: float) -> NDArray[np.bool_]:
    """Returns at which times no sample is missing within `NEAR_GAP_S`."""
    missing = np.concatenate(([0], np.cumsum(~np.isfinite(ppg))))
    first, last = (np.round((times_s + d) * rate_hz).astype(np.int64) for d in (-NEAR_GAP_S, NEAR_GAP_S))
    inside = (first >= 0) & (last < ppg.size)
    whole: NDArray[np.bool_] = inside & (missing[np.clip(last + 1, 0, ppg.size)] == missing[np.clip(first, 0, ppg.size)])
    return whole
