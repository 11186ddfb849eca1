"""Matches detected beats with a reference, beat by beat (ANSI/AAMI EC57, IEC 60601-2-47: 201.12.1.101.1)."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

WINDOW_S: Final = 0.150
"""A detection at most this far from a reference beat matches it: EC57, 4.3.2."""


@dataclass(frozen=True, slots=True)
class BeatCounts:
    """True positives, false positives and false negatives; summed over records they give gross statistics."""

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
        """Harmonic mean of sensitivity and predictivity; NaN when there is nothing to compare."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else float("nan")


def match(
    reference_s: NDArray[np.float64], detected_s: NDArray[np.float64], window_s: float = WINDOW_S
) -> list[tuple[int, int]]:
    """Returns pairs (index in `reference_s`, index in `detected_s`) at most `window_s` apart; both arrays ascend.

    Each beat is in at most one pair. The number of pairs is the largest possible: for windows of equal width it is optimal to
    walk both lists in time and pair the earliest beats that fit.
    """
    reference, detected = reference_s.tolist(), detected_s.tolist()
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(reference) and j < len(detected):
        distance = detected[j] - reference[i]
        if abs(distance) <= window_s:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif distance > 0:
            i += 1
        else:
            j += 1
    return pairs


def compare(reference_s: NDArray[np.float64], detected_s: NDArray[np.float64], window_s: float = WINDOW_S) -> BeatCounts:
    """Returns the counts for one record; times in seconds, ascending."""
    matched = len(match(reference_s, detected_s, window_s))
    return BeatCounts(matched, detected_s.size - matched, reference_s.size - matched)
