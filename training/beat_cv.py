"""Cross-validation of `ecg_beat` by patient: out-of-fold logits, calibration, class weights, and figures by EC57."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from evaluation.beats import CLASSES, EXTRA, MISSED, NOT_FALSE, Confusion, figures, total
from evaluation.ec57 import Reference, pair
from evaluation.matching import WINDOW_S
from evaluation.statistics import bootstrap, softmax, top_label_error
from models.atrial_rhythms import AtrialRhythms
from models.early_beats import EarlyBeats
from models.inference.ecg_beat import HISTORY_INTERVALS, QRS, N, S, V, adjust_for_af, choose_classes, find_early_beats
from models.qrs_shapes import MIN_KNOWN_SHARE
from training.beat_data import Beats

_FOLDS: Final[tuple[Mapping[str, str], ...]] = (
    {"mitdb": "101 109 114 119", "svdb": "809 823 860 882 883 889 892", "nsrdb-2h": "16420 16795 18177"},
    {"svdb": "828 829 870 876 877"},
    {"mitdb": "205 230", "svdb": "801 812 850 851 852 853 856 857 859 865 871 886", "nsrdb-2h": "17052 17453"},
    {"mitdb": "108 115 209 215 220", "svdb": "840 841 848 872 878 879 891", "nsrdb-2h": "16773 18184"},
    {"mitdb": "122 203 207 208", "svdb": "807 810 822 842 845 849 858 866 873 888", "nsrdb-2h": "16483 19140"},
    {"mitdb": "106 112 116 118 124 201 223", "svdb": "808 843 861 874 880 890", "nsrdb-2h": "16272 19090"},
)
FOLDS: Final = tuple([f"{database}/{name}" for database, names in fold.items() for name in names.split()] for fold in _FOLDS)
"""Records held out together, with similar numbers of patients, S and V beats. They span the databases: folds of one database
promise more than new patients of another show. Records that look like one person are together."""

WEIGHTS_S: Final = tuple(np.exp(np.linspace(0.0, 6.0, 25)).tolist())
"""Weights of S against N to choose from, for a beat that came early."""

WEIGHTS_V: Final = tuple(np.exp(np.linspace(-1.0, 0.5, 16)).tolist())
"""Weights of V against the other classes to choose from."""

TARGETS: Final = {S: (0.75, 0.70), V: (0.92, 0.92)}
"""Targets for Se and P+."""

REFERENCE: Final = (*CLASSES, "Q", EXTRA)
UNCOUNTED: Final = -1
"""Class of a beat that is not counted: before 5:00, or where the reference has ventricular flutter."""


@dataclass(frozen=True, slots=True)
class RecordPrediction:
    """Logits of all beats found in a record, in order, by a network that was not trained on the patient.

    Attributes:
        name: name of the record.
        logits: (n, 4).
        truth: (n,) indices into `REFERENCE`, or `UNCOUNTED`.
        missed: (5,) number of reference beats of each class that were not found.
        unknown: (n,) beats that get no label.
        in_af: (n,) beats that cannot be S because of the rhythm.
        is_early: (n,) beats whose interval allows S.
        interval_s: (n,) that interval.
        in_atrial_rhythm: (n,) beats that are S by the intervals alone, if nothing speaks for V or AF (`models.atrial_rhythms`).
    """

    name: str
    logits: NDArray[np.float64]
    truth: NDArray[np.int64]
    missed: NDArray[np.int64]
    unknown: NDArray[np.bool_]
    in_af: NDArray[np.bool_]
    is_early: NDArray[np.bool_]
    interval_s: NDArray[np.floating[Any]]
    in_atrial_rhythm: NDArray[np.bool_]

    @property
    def has_class(self) -> NDArray[np.bool_]:
        """Whether each beat is counted and its class is known (n,)."""
        known: NDArray[np.bool_] = (self.truth >= 0) & (self.truth < len(CLASSES))
        return known

    def classify(self, probabilities: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the class of each beat (n,) as an index into `CLASSES`. A beat that gets no label is not part of a run."""
        known_probabilities = np.where(self.unknown[:, None], np.eye(len(CLASSES))[N], probabilities)
        classes = choose_classes(known_probabilities, weights, self.is_early & ~self.unknown, self.interval_s)
        classes[(classes == N) & self.in_atrial_rhythm & ~self.in_af & ~self.unknown] = S
        return classes


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probabilities are softmax((logits + bias) / temperature). The class is chosen by the probabilities times `weights`."""

    temperature: float
    bias: NDArray[np.float64]
    weights: NDArray[np.float64]

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities (n, 4) of logits (n, 4)."""
        return softmax(logits + self.bias, self.temperature)

    def probabilities_of(self, record: RecordPrediction) -> NDArray[np.float64]:
        """Return the probabilities (n, 4) of a record's beats as the agent computes them: S only where the rhythm allows it."""
        probabilities, early_beats = self.probabilities(record.logits), EarlyBeats()
        for beat in np.flatnonzero(record.is_early & ~record.in_af & ~record.unknown).tolist():
            probabilities[beat] = early_beats.adjust(probabilities[beat])
        probabilities[record.in_af] = adjust_for_af(probabilities[record.in_af])
        return probabilities

    def classify(self, record: RecordPrediction) -> NDArray[np.int64]:
        """Return the class of each beat of a record (n,) as an index into `CLASSES`."""
        return record.classify(self.probabilities_of(record), self.weights)


def pair_with_reference(
    name: str,
    truth: Reference,
    beats: Beats,
    logits: NDArray[np.float64],
    in_af: NDArray[np.bool_] | None = None,
) -> RecordPrediction:
    """Pair all beats found in a record with its reference."""
    af = np.zeros(len(logits), np.bool_) if in_af is None else in_af
    unknown = np.isfinite(beats.wave_mv[:, QRS]).mean(-1) <= MIN_KNOWN_SHARE
    pairing = pair(truth, beats.times_s, WINDOW_S)
    labels = np.array([REFERENCE.index(label) for label in truth.labels], np.int64)
    classes = np.full(len(beats), UNCOUNTED, np.int64)
    classes[pairing.pairs[:, 1]] = labels[pairing.pairs[:, 0]]
    classes[pairing.extra] = REFERENCE.index(EXTRA)
    missed = np.bincount(labels[pairing.missed], minlength=len(REFERENCE) - 1)
    is_early, interval_s = find_early_beats(beats.rr_s), beats.rr_s[:, HISTORY_INTERVALS - 1]
    atrial_rhythms = AtrialRhythms()
    in_atrial_rhythm = np.array([atrial_rhythms.push(rr_s) for rr_s in interval_s.tolist()], np.bool_)
    return RecordPrediction(name, logits, classes, missed, unknown, af, is_early, interval_s, in_atrial_rhythm)


def fit_calibration(records: Iterable[RecordPrediction]) -> Calibration:
    """Fit the calibration on records that the networks were not trained on: first the probabilities, then the weights."""
    scored = list(records)
    logits = np.concatenate([record.logits[record.has_class] for record in scored])
    classes = np.concatenate([record.truth[record.has_class] for record in scored])

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        probabilities = softmax(logits * values[0] + values[1:])
        likelihood = probabilities[np.arange(len(classes)), classes]
        error = probabilities.copy()
        error[np.arange(len(classes)), classes] -= 1
        gradient = np.array([np.mean((error * logits).sum(-1)), *error.mean(0)])
        return float(-np.log(np.maximum(likelihood, 1e-12)).mean()), gradient

    best = minimize(loss, np.array([1.0, 0, 0, 0, 0]), jac=True, method="L-BFGS-B", bounds=[(0.05, 20.0), *[(-20.0, 20.0)] * 4])
    temperature, bias = 1 / float(best.x[0]), np.asarray(best.x[1:]) / float(best.x[0])
    unweighted = Calibration(temperature, bias, np.ones(len(CLASSES)))
    return Calibration(temperature, bias, _choose_weights(scored, unweighted))


def _choose_weights(records: list[RecordPrediction], calibration: Calibration) -> NDArray[np.float64]:
    """Choose the weights of V and S that come closest to `TARGETS`; N and F weigh 1.

    The measure is the lesser of Se and P+ over their targets. The weight of V is chosen first.
    """
    weights = calibration.weights
    probabilities = [calibration.probabilities_of(record) for record in records]
    for class_index, candidates in ((V, WEIGHTS_V), (S, WEIGHTS_S)):
        options = [np.where(np.arange(len(CLASSES)) == class_index, weight, weights) for weight in candidates]
        weights = max(options, key=lambda option: _target_ratio(records, probabilities, option, class_index))
    return weights


def _target_ratio(
    records: list[RecordPrediction], probabilities: list[NDArray[np.float64]], weights: NDArray[np.float64], class_index: int
) -> float:
    """Return the lesser of a class's Se and P+ over their targets."""
    counts = [_class_counts(one, one.classify(p, weights), class_index) for one, p in zip(records, probabilities, strict=True)]
    found, actual, predicted = np.sum(counts, axis=0).tolist()
    targets = TARGETS[class_index]
    return float(min(found / max(actual, 1) / targets[0], found / max(predicted, 1) / targets[1]))


def _class_counts(record: RecordPrediction, predictions: NDArray[np.int64], class_index: int) -> tuple[int, int, int]:
    """Return, for one class, the beats found, the beats in the reference, and the beats predicted that count as positives."""
    exempt = [UNCOUNTED, *(REFERENCE.index(other) for other in NOT_FALSE[CLASSES[class_index]])]
    predicted, is_class = (predictions == class_index) & ~record.unknown, record.truth == class_index
    actual = int(is_class.sum()) + int(record.missed[class_index])
    return int((predicted & is_class).sum()), actual, int((predicted & ~np.isin(record.truth, exempt)).sum())


def confusion(record: RecordPrediction, calibration: Calibration) -> Confusion:
    """Count reference and predicted class of every beat of a record."""
    predictions = calibration.classify(record)
    counted: Confusion = Confusion()
    for truth, class_index, unknown in zip(record.truth.tolist(), predictions.tolist(), record.unknown.tolist(), strict=True):
        if truth != UNCOUNTED:
            counted[REFERENCE[truth], "Q" if unknown else CLASSES[class_index]] += 1
    for truth, count in enumerate(record.missed.tolist()):
        if count:
            counted[REFERENCE[truth], MISSED] += count
    return counted


def nested_calibrations(folds: list[list[RecordPrediction]]) -> dict[str, Calibration]:
    """Return, for each record, the calibration and weights chosen on the records of the other folds."""
    found: dict[str, Calibration] = {}
    for index, fold in enumerate(folds):
        others = [record for other, group in enumerate(folds) if other != index for record in group]
        found |= dict.fromkeys([record.name for record in fold], fit_calibration(others))
    return found


def report(records: list[RecordPrediction], calibrations: Mapping[str, Calibration], seed: int) -> dict[str, Any]:
    """Return gross figures with 95 % confidence intervals by patient, and the calibration error."""
    counted = [confusion(record, calibrations[record.name]) for record in records]
    probabilities = np.concatenate([calibrations[record.name].probabilities_of(record)[record.has_class] for record in records])
    classes = np.concatenate([record.truth[record.has_class] for record in records])
    out = figures(total(counted)) | {"ece": top_label_error(probabilities, classes)}
    out["interval_95"] = {
        f"{name}_{key}": bootstrap(counted, partial(_figure, name, key), seed, 500)
        for name in ("S", "V", "F")
        for key in ("se", "ppv")
    }
    return out


def _figure(name: str, key: str, drawn: Sequence[Confusion]) -> float:
    value = figures(total(drawn))[name][key]
    return float("nan") if value is None else float(value)
