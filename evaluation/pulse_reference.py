"""Detected pulses beside the heart beats of a reference: where they belong, and where they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evaluation.qrs import WINDOW_S, match
from models.signal.ppg import Pulse

Seconds = NDArray[np.float64]

LARGEST_PP_ERROR_S: Final = 0.07
"""An interval further from the reference's is a fault: a tenth of a heart beat, half of what AF adds. In a clean camera PPG the
error is 6 ms at the median and 30 ms at the 95th percentile, of which most is the heart's own (pre-ejection varies)."""

NEAR_GAP_S: Final = 0.3
"""Beside a gap and at either end the rise of a pulse is not whole: nothing is asked for there."""

_LONGEST_DELAY_S: Final = 1.0
"""From the R peak to the finger it takes 0.2 to 0.4 s, and monitors filter a PLETH for some tenths of a second more."""

_WIDEST_S: Final = 30.0
"""How far apart two devices are started."""

_STEP_S: Final = 0.02
_CLOSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """Pulses matched with the reference within 150 ms; all times are those of the pulses' clock, in seconds.

    `matched_s` pulses that were expected; `missed_s` expected pulses without one; `false_s` pulses without one
    expected; `pp` (m, 2) rows of the time at which an interval between successive matched pulses ends, and its error.
    """

    matched_s: Seconds
    missed_s: Seconds
    false_s: Seconds
    pp: NDArray[np.float64]

    @property
    def faults_s(self) -> Seconds:
        """When something was wrong."""
        return np.sort(np.concatenate((self.missed_s, self.false_s, self.pp[self.pp[:, 1] > LARGEST_PP_ERROR_S, 0])))


def aligned(beats_s: Seconds, pulses_s: Seconds, same_clock: bool) -> Seconds:
    """When the reference's beats should reach the finger: shifted by one number for the whole recording.

    The shift is that with the most pulses close to a beat (a Gaussian of 50 ms, in steps of 20 ms; up to 30 s where the clocks
    differ, else 1 s), then the median distance of the pairs within 150 ms. Transit time and the clocks' offset are one then.
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


def compared(expected_s: Seconds, pulses: Sequence[Pulse], ppg: Seconds, rate_hz: float, faint_s: Seconds) -> Comparison:
    """Match pulses with those expected, where there is signal and a reference.

    Args:
        expected_s: ascending.
        pulses: ascending.
        ppg: (n,) the signal, NaN where samples are missing.
        rate_hz: of the signal.
        faint_s: beats whose pulse may be found or missed.
    """
    asked = expected_s[_is_whole(expected_s, ppg, rate_hz)]
    if asked.size == 0:
        return Comparison(np.empty(0), np.empty(0), np.empty(0), np.empty((0, 2)))
    within = [p for p in pulses if asked[0] - WINDOW_S <= p.t_s <= asked[-1] + WINDOW_S]
    times = np.array([p.t_s for p in within])
    pairs = match(asked, times)
    left = np.setdiff1d(np.arange(times.size), [j for _, j in pairs])
    doubtful = np.concatenate((faint_s, expected_s[~_is_whole(expected_s, ppg, rate_hz)]))
    false = [j for j in left.tolist() if not doubtful.size or np.abs(doubtful - times[j]).min() > WINDOW_S]
    errors = [
        (times[j], abs((times[j] - times[j_before]) - (asked[i] - asked[i_before])))
        for (i_before, j_before), (i, j) in pairwise(pairs)
        if i == i_before + 1 and j == j_before + 1 and not within[j].after_gap
    ]
    return Comparison(
        times[[j for _, j in pairs]],
        np.delete(asked, [i for i, _ in pairs]),
        times[false],
        np.array(errors).reshape(-1, 2),
    )


def faultless(faults_s: Seconds, starts_s: Seconds, length_s: float) -> NDArray[np.bool_]:
    """Which windows hold no fault, (windows,)."""
    first = np.searchsorted(faults_s, starts_s)
    return np.asarray(np.searchsorted(faults_s, starts_s + length_s) == first)


def _offsets(beats_s: Seconds, pulses_s: Seconds) -> tuple[float, float]:
    middle = float(pulses_s[0] - beats_s[0])
    return middle - _WIDEST_S, middle + _WIDEST_S


def _closeness(beats_s: Seconds, pulses_s: Seconds) -> float:
    after = np.clip(np.searchsorted(pulses_s, beats_s), 1, pulses_s.size - 1)
    apart = np.minimum(np.abs(pulses_s[after] - beats_s), np.abs(pulses_s[after - 1] - beats_s))
    return float(np.exp(-((apart / _CLOSE_S) ** 2)).sum())


def _is_whole(times_s: Seconds, ppg: Seconds, rate_hz: float) -> NDArray[np.bool_]:
    """Where the signal is there for `NEAR_GAP_S` on either side."""
    missing = np.concatenate(([0], np.cumsum(~np.isfinite(ppg))))
    first, last = (np.round((times_s + d) * rate_hz).astype(np.int64) for d in (-NEAR_GAP_S, NEAR_GAP_S))
    inside = (first >= 0) & (last < ppg.size)
    whole: NDArray[np.bool_] = inside & (missing[np.clip(last + 1, 0, ppg.size)] == missing[np.clip(first, 0, ppg.size)])
    return whole
