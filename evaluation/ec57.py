"""Beat-by-beat comparison as ANSI/AAMI EC57:2012 and its reference implementation, WFDB's `bxb`, define it.

Every beat has one of the labels N, S, V, F and Q (paced and unknown). Beats within 150 ms are paired, from 5:00 on. Detections
during ventricular flutter and fibrillation do not count.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.annotations import Annotations, read_annotations
from evaluation.matching import WINDOW_S, BeatCounts

Times = NDArray[np.float64]

LEARNING_S: Final = 300.0
"""The first five minutes are the learning period and do not count: EC57, 4.2."""

LABELS: Final = {
    **dict.fromkeys("NLRBej", "N"),
    **dict.fromkeys("AaJSn", "S"),
    **dict.fromkeys("VEr", "V"),
    "F": "F",
    **dict.fromkeys("/fQ?", "Q"),
}
"""Beat symbol to class. Escape beats (e, j) are N as in de Chazal 2004, whose split of mitdb is the usual benchmark; `bxb`
counts them as S. (There are 16 e and 16 j in the records of DS1.)"""

PACED: Final = frozenset("/f")
"""Records with such beats are left out of reports on beat classes: EC57, 4.2."""

FLUTTER_WAVE: Final = "!"


@dataclass(frozen=True, slots=True)
class Reference:
    """The experts' annotations of one record: beat times in seconds and their classes, both (beats,), ascending in time.

    `excluded` are (start, end) of ventricular flutter or fibrillation in seconds; `times_s` has no beats in them.
    """

    times_s: Times
    labels: tuple[str, ...]
    excluded: tuple[tuple[float, float], ...] = ()
    paced: bool = False

    def until(self, end_s: float) -> "Reference":
        """Returns the reference without the beats after the end of the signal, which no detector can find."""
        kept = int(np.searchsorted(self.times_s, end_s))
        return replace(self, times_s=self.times_s[:kept], labels=self.labels[:kept])

    def only(self, counted: NDArray[np.bool_]) -> "Reference":
        """Returns the reference with these beats only, (beats,) true; detections within 150 ms of the others do not count."""
        others = tuple((time_s, time_s) for time_s in self.times_s[~counted].tolist())
        labels = tuple(label for label, kept in zip(self.labels, counted.tolist(), strict=True) if kept)
        return replace(self, times_s=self.times_s[counted], labels=labels, excluded=(*self.excluded, *others))


@dataclass(frozen=True, slots=True)
class Pairing:
    """Reference beats and detections from 5:00 on: `pairs` (n, 2) of their indices, and the indices of unpaired beats."""

    pairs: NDArray[np.int64]
    missed: NDArray[np.int64]
    extra: NDArray[np.int64]

    @property
    def counts(self) -> BeatCounts:
        """Counts that ignore the labels."""
        return BeatCounts(len(self.pairs), len(self.extra), len(self.missed))


def load_reference(path: Path, rate_hz: float) -> Reference:
    """Reads the annotation file of a record with this sampling rate.

    Raises:
        AnnotationError: the file is damaged.
        OSError: it cannot be read.
    """
    return reference(read_annotations(path), rate_hz)


def reference(notes: Annotations, rate_hz: float) -> Reference:
    """Returns the reference in the annotations of a record with this sampling rate."""
    tick_s = 1 / (notes.rate_hz or rate_hz)
    excluded = _excluded(notes, tick_s)
    beats = [
        (sample * tick_s, LABELS[symbol])
        for sample, symbol in zip(notes.sample.tolist(), notes.symbol, strict=True)
        if symbol in LABELS and not any(start <= sample * tick_s <= end for start, end in excluded)
    ]
    times_s = np.array([time_s for time_s, _ in beats], np.float64)
    return Reference(times_s, tuple(label for _, label in beats), excluded, not PACED.isdisjoint(notes.symbol))


def _excluded(notes: Annotations, tick_s: float) -> tuple[tuple[float, float], ...]:
    """Returns the spans from each `[` to its `]`, or to the end, and the flutter waves outside of them."""
    spans: list[tuple[float, float]] = []
    start_s: float | None = None
    for sample, symbol in zip(notes.sample.tolist(), notes.symbol, strict=True):
        time_s = sample * tick_s
        if symbol == "[" and start_s is None:
            start_s = time_s
        elif symbol == "]" and start_s is not None:
            spans.append((start_s, time_s))
            start_s = None
        elif symbol == FLUTTER_WAVE and start_s is None:
            spans.append((time_s, time_s))
    if start_s is not None:
        spans.append((start_s, float("inf")))
    return tuple(spans)


def pair(truth: Reference, detected_s: Times, window_s: float = WINDOW_S, from_s: float = LEARNING_S) -> Pairing:
    """Pairs the reference beats of a record with detections, both ascending in time.

    Pairs are sought in the whole record, so a pair may span 5:00; it counts if its reference beat is after 5:00.
    """
    both = nearest_pairs(truth.times_s, detected_s, window_s)
    missed = np.setdiff1d(np.arange(truth.times_s.size), both[:, 0])
    extra = np.setdiff1d(np.arange(detected_s.size), both[:, 1])
    counted = np.ones(extra.size, np.bool_)
    for start_s, end_s in truth.excluded:
        margin_s = window_s if start_s == end_s else 0.0
        counted &= (detected_s[extra] < start_s - margin_s) | (detected_s[extra] > end_s + margin_s)
    return Pairing(
        both[truth.times_s[both[:, 0]] >= from_s],
        missed[truth.times_s[missed] >= from_s],
        extra[counted & (detected_s[extra] >= from_s)],
    )


def nearest_pairs(truth_s: Times, detected_s: Times, window_s: float) -> NDArray[np.int64]:
    """Returns pairs (n, 2) of indices as `bxb` does: two beats within the window, unless the next beat is nearer."""
    truth, detected = [*truth_s.tolist(), float("inf")], [*detected_s.tolist(), float("inf")]
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < truth_s.size and j < detected_s.size:
        distance = detected[j] - truth[i]
        next_distance = abs(detected[j + 1] - truth[i]) if distance < 0 else abs(detected[j] - truth[i + 1])
        if abs(distance) <= window_s and abs(distance) < next_distance:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif distance < 0:
            j += 1
        else:
            i += 1
    return np.array(pairs, np.int64).reshape(-1, 2)
