"""Beat-by-beat comparison as ANSI/AAMI EC57:2012 and its reference implementation, WFDB's `bxb`, define it.

Every beat has one of the labels N, S, V, F and Q (paced and unknown). Beats within 150 ms are paired, from 5:00 on, and what a
detector says during ventricular flutter and fibrillation does not count.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.annotations import Annotations, read_annotations
from evaluation.qrs import WINDOW_S, BeatCounts

Times = NDArray[np.float64]

LEARNING_S: Final = 300.0
"""The first five minutes are for learning and do not count: EC57, 4.2."""

LABELS: Final = {
    **dict.fromkeys("NLRBej", "N"),
    **dict.fromkeys("AaJSn", "S"),
    **dict.fromkeys("VEr", "V"),
    "F": "F",
    **dict.fromkeys("/fQ?", "Q"),
}
"""Symbol of a beat to class. Escape beats (e, j) are N as in de Chazal 2004, whose split of mitdb everyone compares on; `bxb`
counts them as S. (There are 16 e and 16 j in the records of DS1.)"""

PACED: Final = frozenset("/f")
"""Records with such beats have no place in a report of beat classes: EC57, 4.2."""

FLUTTER_WAVE: Final = "!"


@dataclass(frozen=True, slots=True)
class Reference:
    """What experts say of one record: beat times in seconds and their classes, both (beats,), ascending in time.

    `excluded` are (start, end) of ventricular flutter or fibrillation in seconds; no beat of `times_s` lies in one.
    """

    times_s: Times
    labels: tuple[str, ...]
    excluded: tuple[tuple[float, float], ...] = ()
    paced: bool = False

    def until(self, end_s: float) -> "Reference":
        """Without the beats after the end of the signal, which no detector can find."""
        kept = int(np.searchsorted(self.times_s, end_s))
        return replace(self, times_s=self.times_s[:kept], labels=self.labels[:kept])

    def only(self, counted: NDArray[np.bool_]) -> "Reference":
        """Only these beats, (beats,) true; what is found within 150 ms of the others does not count either."""
        others = tuple((time_s, time_s) for time_s in self.times_s[~counted].tolist())
        labels = tuple(label for label, kept in zip(self.labels, counted.tolist(), strict=True) if kept)
        return replace(self, times_s=self.times_s[counted], labels=labels, excluded=(*self.excluded, *others))


@dataclass(frozen=True, slots=True)
class Pairing:
    """Beats of a reference and of a detector, from 5:00 on: `pairs` (n, 2) of their indices, and the indices left over."""

    pairs: NDArray[np.int64]
    missed: NDArray[np.int64]
    extra: NDArray[np.int64]

    @property
    def counts(self) -> BeatCounts:
        """Without regard to labels."""
        return BeatCounts(len(self.pairs), len(self.extra), len(self.missed))


def load_reference(path: Path, rate_hz: float) -> Reference:
    """From an annotation file of a record with this sampling rate.

    Raises:
        AnnotationError: the file is damaged.
        OSError: it cannot be read.
    """
    return reference(read_annotations(path), rate_hz)


def reference(notes: Annotations, rate_hz: float) -> Reference:
    """From the annotations of a record with this sampling rate."""
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
    """From each `[` to its `]`, or to the end; and around flutter waves outside of them."""
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
    """Compare a record with the detections in it, both ascending in time.

    Pairs are sought in the whole record, so that a pair across 5:00 is one; it counts if its reference beat does.
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
    """Pairs (n, 2) of indices, as `bxb` finds them: two beats within the window, unless the next one is nearer."""
    truth, detected = [*truth_s.tolist(), float("inf")], [*detected_s.tolist(), float("inf")]
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < truth_s.size and j < detected_s.size:
        apart = detected[j] - truth[i]
        rival = abs(detected[j + 1] - truth[i]) if apart < 0 else abs(detected[j] - truth[i + 1])
        if abs(apart) <= window_s and abs(apart) < rival:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif apart < 0:
            j += 1
        else:
            i += 1
    return np.array(pairs, np.int64).reshape(-1, 2)
