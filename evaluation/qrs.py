"""Comparison of detected beats with a reference, beat by beat (ANSI/AAMI EC57, IEC 60601-2-47: 201.12.1.101.1)."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

WINDOW_S: Final = 0.150
"""A detection this close to a reference beat is that beat: EC57, 4.3.2."""


@dataclass(frozen=True, slots=True)
class BeatCounts:
    """True positives, false positives and false negatives; they add up over records to gross statistics."""

    tp: int
    fp: int
    fn: int

    def __add__(self, other: "BeatCounts") -> "BeatCounts":
        return BeatCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def sensitivity(self) -> float:
        """Share of the reference beats that were found; NaN without reference beats."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def predictivity(self) -> float:
        """Share of the detections that are beats; NaN without detections."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of both; NaN when there is nothing to compare."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else float("nan")


def match(
    reference_s: NDArray[np.float64], detected_s: NDArray[np.float64], window_s: float = WINDOW_S
) -> list[tuple[int, int]]:
    """Pairs (index in `reference_s`, index in `detected_s`) no more than `window_s` apart; both arrays ascend.

    Each beat is in one pair at most, and no matching has more pairs: walking both in time and pairing the earliest that
    fit is optimal for windows of one width.
    """
    reference, detected = reference_s.tolist(), detected_s.tolist()
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(reference) and j < len(detected):
        apart = detected[j] - reference[i]
        if abs(apart) <= window_s:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif apart > 0:
            i += 1
        else:
            j += 1
    return pairs


def compare(reference_s: NDArray[np.float64], detected_s: NDArray[np.float64], window_s: float = WINDOW_S) -> BeatCounts:
    """Counts for one record; times in seconds, ascending."""
    matched = len(match(reference_s, detected_s, window_s))
    return BeatCounts(matched, detected_s.size - matched, reference_s.size - matched)
