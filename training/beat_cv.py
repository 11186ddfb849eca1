"""Cross-validation of `ecg_beat` by patient: logits out of fold, calibration, class weights, figures by EC57."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from evaluation.beats import CLASSES, EXTRA, MISSED, NOT_FALSE, Confusion, figures, total
from evaluation.ec57 import Reference, pair
from evaluation.qrs import WINDOW_S
from evaluation.statistics import bootstrap, softmax, top_label_error
from models.beat_labels import MIN_KNOWN_SHARE, adjust_for_af
from models.inference.ecg_beat import HISTORY, QRS, N, S, V, choose_classes, find_early_beats
from training.beat_data import Beats

FOLDS: Final = tuple(
    group.split()
    for group in (
        "209 106",
        "201 119",
        "207 115",
        "208 220",
        "223 122",
        "203 118",
        "215 124",
        "205 114",
        "116 230",
        "109 108",
        "112 101",
    )
)
"""Records held out together, so that each fold keeps most patients with S and most with V for training."""

WEIGHTS_S: Final = tuple(np.exp(np.linspace(0.0, 6.0, 25)).tolist())
"""What S may weigh against N in a beat that came early."""

WEIGHTS_V: Final = tuple(np.exp(np.linspace(-1.0, 0.5, 16)).tolist())
"""What V may weigh against the others."""

GOALS: Final = {S: (0.75, 0.50), V: (0.93, 0.93)}
"""Se and P+ that are aimed at: of S rather one too many than one too few."""

REFERENCE: Final = (*CLASSES, "Q", EXTRA)
UNCOUNTED: Final = -1
"""Before 5:00, and where the reference has ventricular flutter."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a network that never saw the patient said of all beats found in a record, in order.

    `logits` (n, 4); `truth` (n,) places in `REFERENCE`, or `UNCOUNTED`; `missed` (5,) reference beats not found;
    `unknown` (n,) the beats that are not labelled; `in_af` (n,) those that cannot be S by the rhythm; `is_early` (n,) those
    that may be S by their interval, `now_s` (n,).
    """

    name: str
    logits: NDArray[np.float64]
    truth: NDArray[np.int64]
    missed: NDArray[np.int64]
    unknown: NDArray[np.bool_]
    in_af: NDArray[np.bool_]
    is_early: NDArray[np.bool_]
    now_s: NDArray[np.floating[Any]]

    @property
    def classed(self) -> NDArray[np.bool_]:
        """The counted beats whose class is known (n,)."""
        known: NDArray[np.bool_] = (self.truth >= 0) & (self.truth < len(CLASSES))
        return known

    def called(self, probabilities: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Places in `CLASSES` (n,) of what the beats are called; one that is not labelled is part of no run."""
        labelled = np.where(self.unknown[:, None], np.eye(len(CLASSES))[N], probabilities)
        return choose_classes(labelled, weights, self.is_early & ~self.unknown, self.now_s)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probabilities are softmax((logits + bias) / temperature); the class is chosen by them times `weights`."""

    temperature: float
    bias: NDArray[np.float64]
    weights: NDArray[np.float64]

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 4) to (n, 4)."""
        return softmax(logits + self.bias, self.temperature)

    def of(self, record: Scored) -> NDArray[np.float64]:
        """Probabilities (n, 4) of a record's beats, as the agent has them: S only where the rhythm allows it."""
        shares = self.probabilities(record.logits)
        shares[record.in_af] = adjust_for_af(shares[record.in_af])
        return shares

    def called(self, record: Scored) -> NDArray[np.int64]:
        """Places in `CLASSES` (n,) of what a record's beats are called."""
        return record.called(self.of(record), self.weights)


def scored(
    name: str,
    truth: Reference,
    beats: Beats,
    logits: NDArray[np.float64],
    in_af: NDArray[np.bool_] | None = None,
) -> Scored:
    """Pair a record's beats, all that were found, with its reference."""
    af = np.zeros(len(logits), np.bool_) if in_af is None else in_af
    unknown = np.isfinite(beats.wave_mv[:, QRS]).mean(-1) <= MIN_KNOWN_SHARE
    pairing = pair(truth, beats.times_s, WINDOW_S)
    labels = np.array([REFERENCE.index(label) for label in truth.labels], np.int64)
    of_them = np.full(len(beats), UNCOUNTED, np.int64)
    of_them[pairing.pairs[:, 1]] = labels[pairing.pairs[:, 0]]
    of_them[pairing.extra] = REFERENCE.index(EXTRA)
    missed = np.bincount(labels[pairing.missed], minlength=len(REFERENCE) - 1)
    return Scored(name, logits, of_them, missed, unknown, af, find_early_beats(beats.rr_s), beats.rr_s[:, HISTORY - 1])


def calibrated(records: Iterable[Scored]) -> Calibration:
    """From records that the networks were not trained on: first the probabilities, then the weights."""
    kept = list(records)
    logits = np.concatenate([record.logits[record.classed] for record in kept])
    classes = np.concatenate([record.truth[record.classed] for record in kept])

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        shares = softmax(logits * values[0] + values[1:])
        chosen = shares[np.arange(len(classes)), classes]
        slope = shares.copy()
        slope[np.arange(len(classes)), classes] -= 1
        gradient = np.array([np.mean((slope * logits).sum(-1)), *slope.mean(0)])
        return float(-np.log(np.maximum(chosen, 1e-12)).mean()), gradient

    best = minimize(loss, np.array([1.0, 0, 0, 0, 0]), jac=True, method="L-BFGS-B", bounds=[(0.05, 20.0), *[(-20.0, 20.0)] * 4])
    temperature, bias = 1 / float(best.x[0]), np.asarray(best.x[1:]) / float(best.x[0])
    even = Calibration(temperature, bias, np.ones(len(CLASSES)))
    return Calibration(temperature, bias, _weights(kept, even))


def _weights(records: list[Scored], calibration: Calibration) -> NDArray[np.float64]:
    """The weights of V, then of S, that come nearest to `GOALS`: the lesser of Se and P+ over their goals. N and F weigh 1."""
    weights = calibration.weights
    probabilities = [calibration.of(record) for record in records]
    for place, choices in ((V, WEIGHTS_V), (S, WEIGHTS_S)):
        tried = [np.where(np.arange(len(CLASSES)) == place, weight, weights) for weight in choices]
        weights = max(tried, key=lambda given: _reached(records, probabilities, given, place))
    return weights


def _reached(
    records: list[Scored], probabilities: list[NDArray[np.float64]], weights: NDArray[np.float64], place: int
) -> float:
    """The lesser of a class's Se and P+ over their goals."""
    each = [_counts(one, one.called(p, weights), place) for one, p in zip(records, probabilities, strict=True)]
    found, there, said = np.sum(each, axis=0).tolist()
    goals = GOALS[place]
    return float(min(found / max(there, 1) / goals[0], found / max(said, 1) / goals[1]))


def _counts(record: Scored, called_as: NDArray[np.int64], place: int) -> tuple[int, int, int]:
    """Of one class: found, there, called but for what is no false positive."""
    exempt = [UNCOUNTED, *(REFERENCE.index(other) for other in NOT_FALSE[CLASSES[place]])]
    said, is_it = (called_as == place) & ~record.unknown, record.truth == place
    there = int(is_it.sum()) + int(record.missed[place])
    return int((said & is_it).sum()), there, int((said & ~np.isin(record.truth, exempt)).sum())


def confusion(record: Scored, calibration: Calibration) -> Confusion:
    """Reference and called class of every beat of a record."""
    places = calibration.called(record)
    counted: Confusion = Confusion()
    for truth, place, unknown in zip(record.truth.tolist(), places.tolist(), record.unknown.tolist(), strict=True):
        if truth != UNCOUNTED:
            counted[REFERENCE[truth], "Q" if unknown else CLASSES[place]] += 1
    for truth, count in enumerate(record.missed.tolist()):
        if count:
            counted[REFERENCE[truth], MISSED] += count
    return counted


def nested(folds: list[list[Scored]]) -> dict[str, Calibration]:
    """For each record the calibration and weights chosen on the records of the other folds."""
    found: dict[str, Calibration] = {}
    for place, fold in enumerate(folds):
        others = [record for other, group in enumerate(folds) if other != place for record in group]
        found |= dict.fromkeys([record.name for record in fold], calibrated(others))
    return found


def report(records: list[Scored], calibrations: Mapping[str, Calibration], seed: int) -> dict[str, Any]:
    """Gross figures with 95 % intervals by patient, and calibration."""
    counted = [confusion(record, calibrations[record.name]) for record in records]
    shares = np.concatenate([calibrations[record.name].of(record)[record.classed] for record in records])
    classes = np.concatenate([record.truth[record.classed] for record in records])
    out = figures(total(counted)) | {"ece": top_label_error(shares, classes)}
    out["interval_95"] = {
        f"{name}_{key}": bootstrap(counted, partial(_rate, name, key), seed, 500)
        for name in ("S", "V", "F")
        for key in ("se", "ppv")
    }
    return out


def _rate(name: str, key: str, drawn: Sequence[Confusion]) -> float:
    value = figures(total(drawn))[name][key]
    return float("nan") if value is None else float(value)
