"""Evaluates `ecg_quality`: against the labels made by augmentation, against experts' notes, and by the beats that are found."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from captures import open_recording
from evaluation.statistics import BINS, bootstrap, class_f1, coverage_curve
from models.inference.ecg_quality import BAD, CLASSES, GOOD, WINDOW_SAMPLES
from models.signal.offline import condition
from models.signal.resample import RATE_HZ
from training.cinc import LABELS, CincRecording
from training.ecg_augmentation import EcgAugmenter
from training.quality_data import Stretch, Windows, augmented_windows, stack_windows

SEED: Final = 31_001
SNR_LEVELS_DB: Final = (24.0, 18.0, 12.0, 6.0, 0.0, -6.0)
STRETCH_STEP: Final = 6
"""Noise is added to every sixth stretch of mitdb, at every ratio."""
NOISE_CHANNEL: Final = 1
"""Channel of the noise records; training uses the other one."""

REPLICATES: Final = 300
"""Replicates of a bootstrap; there are four thousand patients."""

FRACTIONS: Final = (1.0, 0.95, 0.9, 0.8, 0.7)

_QUALITY, _SKIP, _SUB, _AUX = 14, 59, 61, 63
"""Codes in an MIT annotation file: WFDB Applications Guide, `annot(5)`."""

Probabilities = NDArray[np.floating[Any]]
Figures = dict[str, Any]


def agreement_figures(windows: Windows, probability: Probabilities) -> Figures:
    """Return the agreement with the labels in percent, with confidence intervals by patient."""
    patients = _patient_counts(windows, probability)
    names = ("accuracy", *(f"f1_{name}" for name in CLASSES), "f1_mean", "bad_se", "bad_ppv", "ece")
    figures = {}
    for index, name in enumerate(names):
        value = _figures(patients.sum(0))[index]
        low, high = bootstrap(list(patients), _figure_at(index), SEED, REPLICATES)
        figures[name] = {"value": value, "low": low, "high": high}
    confusion = patients.sum(0)[:9].reshape(3, 3).astype(int).tolist()
    return {
        "windows": len(windows.labels),
        "patients": len(patients),
        "agreement": figures,
        "confusion": {
            f"labelled {name}": dict(zip(CLASSES, row, strict=True)) for name, row in zip(CLASSES, confusion, strict=True)
        },
    }


def group_figures(windows: Windows, probability: Probabilities, keys: NDArray[np.str_]) -> dict[str, Figures]:
    """Return one row per group: windows, accuracy, mean F1 and calibration error."""
    rows = {}
    for key in np.unique(keys).tolist():
        chosen = keys == key
        accuracy, *_, f1_mean, _, _, ece = _figures(_patient_counts(windows[chosen], probability[chosen]).sum(0))
        rows[key] = {"windows": int(chosen.sum()), "accuracy": accuracy, "f1_mean": f1_mean, "ece": ece}
    return rows


def coverage(windows: Windows, probability: Probabilities) -> list[Figures]:
    """Return accuracy and mean F1 of the most certain share of the windows."""
    called = probability.argmax(-1)

    def accuracy(chosen: NDArray[np.int64]) -> float:
        return float(100 * np.mean(called[chosen] == windows.labels[chosen]))

    def f1_mean(chosen: NDArray[np.int64]) -> float:
        return float(100 * np.nanmean(class_f1(called[chosen], windows.labels[chosen], len(CLASSES))))

    curves = [coverage_curve(probability.max(-1), figure, FRACTIONS) for figure in (accuracy, f1_mean)]
    return [{"fraction": one[0], "accuracy": one[1], "f1_mean": other[1]} for one, other in zip(*curves, strict=True)]


def beats_by_class(windows: Windows, probability: Probabilities) -> dict[str, Figures]:
    """Return, by predicted class, the detector's mean F1 (150 ms, percent) and the share of beats whose shape is intact."""
    called = probability.argmax(-1)
    rows = {}
    for index, name in enumerate(CLASSES):
        chosen = called == index
        rows[name] = {
            "windows": int(chosen.sum()),
            "beat_f1": _mean_percent(windows.beat_f1[chosen]),
            "windows_with_f1_under_90": _mean_percent(windows.beat_f1[chosen] < 0.9),
            "beats_with_intact_shape": _mean_percent(windows.intact_share[chosen]),
        }
    return rows


def windows_with_noise(data: Path, stretches: Sequence[Stretch]) -> dict[float, Windows]:
    """Return windows of mitdb with noise not used in training, by ratio."""
    random = np.random.default_rng(SEED)
    augmenter = EcgAugmenter(data, random, NOISE_CHANNEL)
    return {
        snr_db: stack_windows(
            window for stretch in stretches[::STRETCH_STEP] for window in augmented_windows(stretch, augmenter, random, snr_db)
        )
        for snr_db in SNR_LEVELS_DB
    }


def noise_figures(windows: Windows, probability: Probabilities) -> Figures:
    """Return predicted classes in percent, agreement with the labels, and the detector's F1.

    The F1 is given for all windows, and for those not called bad.
    """
    called = probability.argmax(-1)
    return {
        "windows": len(called),
        **{name: _mean_percent(called == index) for index, name in enumerate(CLASSES)},
        "accuracy": _mean_percent(called == windows.labels),
        "beat_f1": _mean_percent(windows.beat_f1),
        "beat_f1_where_not_bad": _mean_percent(windows.beat_f1[called != BAD]),
    }


def figures_by_label(records: Sequence[CincRecording], probability: Mapping[str, Probabilities]) -> Figures:
    """Return how CinC 2017 is classified as recorded, by its labels.

    The AUC states how well the probability of bad detects recordings labelled noise. `probability` holds (windows, 3) of every
    recording that lasts ten seconds.
    """
    rows, bad = {}, {}
    for index, label in enumerate(LABELS):
        parts = [probability[record.name] for record in records if record.label == index and record.name in probability]
        bad[label] = np.array([part[:, BAD].mean() for part in parts])
        called = np.concatenate(parts).argmax(-1)
        rows[label] = {"records": len(parts)} | {name: _mean_percent(called == at) for at, name in enumerate(CLASSES)}
    rest = np.concatenate([bad[label] for label in LABELS if label != "~"])
    return {"auc_noise_against_rest": auc(bad["~"], rest), "classified_as": rows}


def load_expert_notes(header: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the windows (n, 1250) of a mitdb record, and which ones experts marked as noisy (half or more) or clean."""
    recording = open_recording(header)
    mv = condition(recording.mv, recording.rate_hz).mv
    mv = mv[: mv.size // WINDOW_SAMPLES * WINDOW_SAMPLES]
    noisy = np.zeros(mv.size, np.bool_)
    for tick, is_noisy in read_quality_notes(header.with_suffix(".atr").read_bytes()):
        noisy[round(tick / recording.rate_hz * RATE_HZ) :] = is_noisy
    share = noisy.reshape(-1, WINDOW_SAMPLES).mean(-1)
    return mv.reshape(-1, WINDOW_SAMPLES), share >= 0.5, share == 0


def read_quality_notes(data: bytes) -> Iterator[tuple[int, bool]]:
    """Yield the `~` notes of an MIT annotation file.

    Each is a tick, and whether the first signal is noisy from there on (bit 0 of the subtype).
    """
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2").tolist()
    tick = at = 0
    note: int | None = None
    noisy = False
    while words[at]:
        code, value = words[at] >> 10, words[at] & 0x3FF
        at += 1
        if code == _SKIP:
            tick += (words[at] << 16) + words[at + 1]
            at += 2
        elif code == _AUX:
            at += (value + 1) // 2
        elif code == _SUB:
            noisy = bool(value & 1)
        elif code < _SKIP:
            if note is not None:
                yield note, noisy
            tick += value
            note, noisy = (tick if code == _QUALITY else None), False
    if note is not None:
        yield note, noisy


def auc(positive: Probabilities, negative: Probabilities) -> float:
    """Return the chance that a value of the first is higher than one of the second (Mann & Whitney); ties count half."""
    both = np.concatenate([positive, negative])
    _, index, count = np.unique(both, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[index]
    n, m = len(positive), len(negative)
    return float((rank[:n].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def probability_not_good(probability: Probabilities) -> Probabilities:
    """Return the probability of any class but good."""
    rest: Probabilities = 1 - probability[:, GOOD]
    return rest


def _patient_counts(windows: Windows, probability: Probabilities) -> NDArray[np.float64]:
    """Return one row of counts per patient.

    A row holds the 9 counts of the confusion matrix and, by bin of certainty, its sum, the hits and the windows.
    """
    _, patient = np.unique(windows.patients, return_inverse=True)
    called, certainty = probability.argmax(-1), probability.max(-1)
    bins = np.minimum((certainty * BINS).astype(int), BINS - 1)
    rows = np.zeros((patient.max() + 1, 9 + 2 * BINS))
    np.add.at(rows, (patient, 3 * windows.labels + called), 1)
    np.add.at(rows, (patient, 9 + bins), certainty)
    np.add.at(rows, (patient, 9 + BINS + bins), called == windows.labels)
    return rows


def _figures(counts: NDArray[np.float64]) -> list[float]:
    confusion, sums, hits = counts[:9].reshape(3, 3), counts[9 : 9 + BINS], counts[9 + BINS :]
    both, labelled, called = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    f1 = np.divide(200 * both, labelled + called, out=np.full(3, np.nan), where=labelled + called > 0)
    se, ppv = (100 * both[BAD] / max(total[BAD], 1) for total in (labelled, called))
    total = confusion.sum()
    return [100 * both.sum() / total, *f1.tolist(), float(np.nanmean(f1)), se, ppv, float(np.abs(sums - hits).sum() / total)]


def _figure_at(index: int) -> Callable[[Sequence[NDArray[np.float64]]], float]:
    return lambda drawn: _figures(np.sum(drawn, 0))[index]


def _mean_percent(values: NDArray[Any]) -> float:
    """Return the mean in percent, or NaN without values."""
    known = values[np.isfinite(values)]
    return float(100 * np.mean(known)) if known.size else float("nan")
