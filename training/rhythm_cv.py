"""Cross-validation of `ecg_rhythm`: every recording is predicted by the int8 network that was not trained on it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from models.inference.ecg_rhythm import CLASSES
from models.signal.chain import remove_baseline
from training.cinc import CincRecording
from training.ecg_augmentation import PACKET_SAMPLES, load_noise, qrs_equivalent_power
from training.quantize import measure_parity, run_model
from training.rhythm_data import Sampler
from training.rhythm_score import (
    Calibration,
    Labels,
    RecordingWindows,
    Values,
    average_windows,
    cut_windows,
    fit_calibration,
    mean_f1,
    summary,
)

SNR_DB: Final = (24, 18, 12, 6, 0, -6)
LOST_PERCENT: Final = (1, 2, 5, 10, 20)
RECORDING_STEP: Final = 3
"""Every third recording is used for noise and most losses of packets."""

NOISE_CHANNEL: Final = 1
"""Channel of the noise records; training uses the other one."""

Change = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The float and the int8 file of one network."""

    float_model: Path
    int8_model: Path


@dataclass(frozen=True, slots=True)
class Fold:
    """The recordings of one fold, with a network and a calibration that were fitted on the other folds."""

    records: list[CincRecording]
    models: ModelFiles
    calibration: Calibration

    def predict(self, windows: RecordingWindows, *, int8: bool = True) -> NDArray[np.float64]:
        """Return probabilities (recordings, 4)."""
        logits = _logits(self.models.int8_model if int8 else self.models.float_model, windows)
        return average_windows(self.calibration.probabilities(logits), windows.recording_index)


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Cross-validated probabilities of all recordings.

    Attributes:
        folds: recordings, networks and calibrations.
        calibration: fitted on all folds, for the released network; that of each fold is fitted on the others.
        probability: by int8 networks, (recordings, 4).
        float_probability: by float networks, (recordings, 4).
        inverted: by int8 networks, of the inverted recordings, (recordings, 4).
    """

    folds: list[Fold]
    calibration: Calibration
    probability: NDArray[np.float64]
    float_probability: NDArray[np.float64]
    inverted: NDArray[np.float64]

    @classmethod
    def run(cls, model_files: Sequence[ModelFiles], groups: Sequence[list[CincRecording]], progress: Progress) -> Self:
        """Predict all recordings."""
        windows = [cut_windows([record.mv for record in group]) for group in progress.track(groups, description="windows")]
        logits = [_logits(files.int8_model, part) for files, part in zip(model_files, windows, strict=True)]
        folds = [
            Fold(list(group), files, _calibrate_except(logits, windows, groups, fold_index))
            for fold_index, (group, files) in enumerate(zip(groups, model_files, strict=True))
        ]
        inverted_windows = [cut_windows([-record.mv for record in group]) for group in groups]
        return cls(
            folds,
            _calibrate_except(logits, windows, groups, None),
            np.concatenate([fold.predict(part) for fold, part in zip(folds, windows, strict=True)]),
            np.concatenate([fold.predict(part, int8=False) for fold, part in zip(folds, windows, strict=True)]),
            np.concatenate([fold.predict(part) for fold, part in zip(folds, inverted_windows, strict=True)]),
        )

    @property
    def records(self) -> list[CincRecording]:
        return [record for fold in self.folds for record in fold.records]

    @property
    def labels(self) -> Labels:
        return np.array([record.label for record in self.records])

    def confidence_quantile(self, share: float) -> float:
        """Return the probability of the most probable class that this share of the recordings reaches."""
        return float(np.quantile(self.probability.max(-1), 1 - share))

    def evaluate_changed(self, change: Change, seed: int, every: int = 1) -> dict[str, float]:
        """Return the figures after `change` of the signal (n,) in mV, of every n-th recording."""
        random = np.random.default_rng(seed)
        parts, labels = [], []
        for fold in self.folds:
            signals = []
            for record in fold.records[::every]:
                signals.append(remove_baseline(change(record.mv.astype(np.float64), random)))
                labels.append(record.label)
            parts.append(fold.predict(cut_windows(signals)))
        return self._figures_with_answers(np.concatenate(parts), np.array(labels))

    def _figures_with_answers(self, probability: NDArray[np.float64], labels: Labels) -> dict[str, float]:
        """Return the figures, and those of recordings with an answer: not noise, and as confident as nine recordings in ten."""
        answered = (probability.argmax(-1) != len(CLASSES) - 1) & (probability.max(-1) >= self.confidence_quantile(0.9))
        correct = probability[answered].argmax(-1) == labels[answered]
        return summary(probability, labels) | {
            "answered_percent": 100 * float(np.mean(answered)),
            "correct_of_answered_percent": 100 * float(np.mean(correct)) if correct.size else float("nan"),
        }


def measure_robustness(cross_validation: CrossValidation, data: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """Return the figures with noise and with packets lost."""
    bank = list(load_noise(data, NOISE_CHANNEL).values())
    steps: dict[str, tuple[Change, int]] = {"as recorded, every third recording": (_unchanged, RECORDING_STEP)}
    steps |= {f"noise at {snr} dB": (_add_noise(bank, snr), RECORDING_STEP) for snr in SNR_DB}
    steps |= {"as recorded": (_unchanged, 1)}
    steps |= {
        f"{lost} % of packets lost": (_lose_packets(lost / 100), 1 if lost == 5 else RECORDING_STEP) for lost in LOST_PERCENT
    }
    return {
        name: cross_validation.evaluate_changed(change, seed, every)
        for name, (change, every) in progress.track(steps.items(), description="robustness")
    }


def parity_figures(released: ModelFiles, cross_validation: CrossValidation, sampler: Sampler) -> dict[str, Any]:
    """Compare int8 with float: the released network on training windows, the others on their held-out recordings."""
    windows = sampler.batch(4000)[0]
    augmented = measure_parity(released.float_model, released.int8_model, windows)
    recorded = cut_windows([record.mv for record in cross_validation.records[::RECORDING_STEP]])
    as_recorded = measure_parity(released.float_model, released.int8_model, recorded.features)
    by_int8, by_float = cross_validation.probability, cross_validation.float_probability
    return {
        "released, as recorded": asdict(as_recorded),
        "released, augmented": asdict(augmented),
        "folds, unseen recordings": {
            "agreement": float(np.mean(by_int8.argmax(-1) == by_float.argmax(-1))),
            "largest_change": float(np.abs(by_int8 - by_float).max()),
            "windows": len(by_int8),
            "change_of_f1_mean": mean_f1(by_int8.argmax(-1), cross_validation.labels)
            - mean_f1(by_float.argmax(-1), cross_validation.labels),
        },
    }


def _calibrate_except(
    logits: Sequence[Values], windows: Sequence[RecordingWindows], groups: Sequence[list[CincRecording]], excluded: int | None
) -> Calibration:
    """Fit a calibration on all folds except one."""
    included = [fold_index for fold_index in range(len(groups)) if fold_index != excluded]
    starts = np.cumsum([0, *[len(groups[fold_index]) for fold_index in included]])
    return fit_calibration(
        np.concatenate([logits[fold_index] for fold_index in included]),
        np.concatenate(
            [windows[fold_index].recording_index + start for fold_index, start in zip(included, starts[:-1], strict=True)]
        ),
        np.array([record.label for fold_index in included for record in groups[fold_index]]),
    )


def _logits(model: Path, windows: RecordingWindows) -> NDArray[np.float64]:
    """Return the logarithm of the output of a network written without calibration, (windows, 4)."""
    logits: NDArray[np.float64] = np.log(np.maximum(run_model(model, windows.features).astype(np.float64), 1e-9))
    return logits.reshape(-1, len(CLASSES))


def _unchanged(mv: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    del random
    return mv


def _add_noise(bank: Sequence[NDArray[np.float64]], snr_db: float) -> Change:
    """Add one kind of recorded noise, from a random position."""

    def change(mv: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        kind = bank[int(random.integers(len(bank)))]
        noise = kind[(random.integers(kind.size) + np.arange(mv.size)) % kind.size]
        noisy: NDArray[np.float64] = mv + np.sqrt(qrs_equivalent_power(mv[None])[0] / 10 ** (snr_db / 10)) * noise
        return noisy

    return change


def _lose_packets(share: float) -> Change:
    """Lose this share of a strap's notifications, independently of each other."""

    def change(mv: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        lost = np.repeat(random.random(mv.size // PACKET_SAMPLES + 2) < share, PACKET_SAMPLES)[
            random.integers(PACKET_SAMPLES) :
        ][: mv.size]
        return np.where(lost, np.nan, mv)

    return change
