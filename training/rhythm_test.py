"""`ecg_rhythm` cross-validated: every recording judged by the int8 network that has not seen it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from models.inference.ecg_rhythm import CLASSES
from models.signal.chain import remove_baseline
from training.cinc import Recorded
from training.disturb import PACKET, noise_bank, signal_power
from training.quantize import parity, run
from training.rhythm_data import Sampler
from training.rhythm_score import Calibration, Cut, Labels, Values, averaged, calibrate, cut, mean_f1, summary

SNR_DB: Final = (24, 18, 12, 6, 0, -6)
LOST_PERCENT: Final = (1, 2, 5, 10, 20)
LADDER_SHARE: Final = 3
"""Of the recordings, every third one climbs the noise ladder."""

HELD_OUT_CHANNEL: Final = 1
"""Of the noise records: training used the other."""

Change = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Exported:
    """One network's files."""

    float_model: Path
    int8_model: Path


@dataclass(frozen=True, slots=True)
class Fold:
    """The recordings of one fold, the network that has not seen them, and a calibration that has not either."""

    records: list[Recorded]
    models: Exported
    calibration: Calibration

    def judged(self, cuts: Cut, *, int8: bool = True) -> NDArray[np.float64]:
        """(recordings, 4)."""
        logits = _logits(self.models.int8_model if int8 else self.models.float_model, cuts)
        return averaged(self.calibration.probabilities(logits), cuts.owner)


@dataclass(frozen=True, slots=True)
class Tested:
    """Cross-validated probabilities of every recording, int8 and float, (recordings, 4), with its class.

    `calibration` comes from all folds, for the released network; each fold's own comes from the others.
    """

    folds: list[Fold]
    calibration: Calibration
    probability: NDArray[np.float64]
    float_probability: NDArray[np.float64]
    inverted: NDArray[np.float64]

    @classmethod
    def of(cls, exported: Sequence[Exported], groups: Sequence[list[Recorded]], progress: Progress) -> Self:
        """Judge all."""
        cuts = [cut([record.mv for record in group]) for group in progress.track(groups, description="cuts")]
        logits = [_logits(pair.int8_model, part) for pair, part in zip(exported, cuts, strict=True)]
        folds = [
            Fold(list(group), pair, _calibrated(logits, cuts, groups, place))
            for place, (group, pair) in enumerate(zip(groups, exported, strict=True))
        ]
        upside_down = [cut([-record.mv for record in group]) for group in groups]
        return cls(
            folds,
            _calibrated(logits, cuts, groups, None),
            np.concatenate([fold.judged(part) for fold, part in zip(folds, cuts, strict=True)]),
            np.concatenate([fold.judged(part, int8=False) for fold, part in zip(folds, cuts, strict=True)]),
            np.concatenate([fold.judged(part) for fold, part in zip(folds, upside_down, strict=True)]),
        )

    @property
    def records(self) -> list[Recorded]:
        return [record for fold in self.folds for record in fold.records]

    @property
    def labels(self) -> Labels:
        return np.array([record.label for record in self.records])

    def confidence(self, share: float) -> float:
        """What the likeliest class of so many recordings reaches."""
        return float(np.quantile(self.probability.max(-1), 1 - share))

    def disturbed(self, change: Change, seed: int, every: int = 1) -> dict[str, float]:
        """The figures after `change` of the signal (n,) in mV, of every so many recordings."""
        random = np.random.default_rng(seed)
        parts, labels = [], []
        for fold in self.folds:
            signals = []
            for record in fold.records[::every]:
                signals.append(remove_baseline(change(record.mv.astype(np.float64), random)))
                labels.append(record.label)
            parts.append(fold.judged(cut(signals)))
        return self._with_answers(np.concatenate(parts), np.array(labels))

    def _with_answers(self, probability: NDArray[np.float64], labels: Labels) -> dict[str, float]:
        """The figures, and of those that get an answer: neither noise nor below what nine recordings in ten reach."""
        answered = (probability.argmax(-1) != len(CLASSES) - 1) & (probability.max(-1) >= self.confidence(0.9))
        right = probability[answered].argmax(-1) == labels[answered]
        return summary(probability, labels) | {
            "answered_percent": 100 * float(np.mean(answered)),
            "right_of_answered_percent": 100 * float(np.mean(right)) if right.size else float("nan"),
        }


def ladders(tested: Tested, data: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """Figures in noise and with packets lost."""
    bank = list(noise_bank(data, HELD_OUT_CHANNEL).values())
    steps: dict[str, tuple[Change, int]] = {"as recorded, every third": (_same, LADDER_SHARE)}
    steps |= {f"{snr} dB": (_noisy(bank, snr), LADDER_SHARE) for snr in SNR_DB}
    steps |= {"as recorded": (_same, 1)}
    steps |= {f"{lost} % lost": (_lossy(lost / 100), 1 if lost == 5 else LADDER_SHARE) for lost in LOST_PERCENT}
    return {
        name: tested.disturbed(change, seed, every)
        for name, (change, every) in progress.track(steps.items(), description="ladders")
    }


def parity_figures(released: Exported, tested: Tested, sampler: Sampler) -> dict[str, Any]:
    """int8 against float: the released network on training windows, and the folds' on recordings they have not seen."""
    windows = sampler.batch(4000)[0]
    same = parity(released.float_model, released.int8_model, windows)
    recorded = cut([record.mv for record in tested.records[::LADDER_SHARE]])
    plain = parity(released.float_model, released.int8_model, recorded.features)
    one, other = tested.probability, tested.float_probability
    return {
        "released, as recorded": asdict(plain),
        "released, augmented": asdict(same),
        "folds, unseen recordings": {
            "agreement": float(np.mean(one.argmax(-1) == other.argmax(-1))),
            "largest_change": float(np.abs(one - other).max()),
            "windows": len(one),
            "change_of_f1_mean": mean_f1(one.argmax(-1), tested.labels) - mean_f1(other.argmax(-1), tested.labels),
        },
    }


def _calibrated(
    logits: Sequence[Values], cuts: Sequence[Cut], groups: Sequence[list[Recorded]], but: int | None
) -> Calibration:
    """From every fold but one."""
    kept = [place for place in range(len(groups)) if place != but]
    starts = np.cumsum([0, *[len(groups[place]) for place in kept]])
    return calibrate(
        np.concatenate([logits[place] for place in kept]),
        np.concatenate([cuts[place].owner + start for place, start in zip(kept, starts[:-1], strict=True)]),
        np.array([record.label for place in kept for record in groups[place]]),
    )


def _logits(model: Path, cuts: Cut) -> NDArray[np.float64]:
    """Of a network written without calibration: the logarithm of what it says, (windows, 4)."""
    said: NDArray[np.float64] = np.log(np.maximum(run(model, cuts.features).astype(np.float64), 1e-9))
    return said.reshape(-1, len(CLASSES))


def _same(mv: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    del random
    return mv


def _noisy(bank: Sequence[NDArray[np.float64]], snr_db: float) -> Change:
    """One kind of recorded noise, from anywhere in it."""

    def change(mv: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        kind = bank[int(random.integers(len(bank)))]
        noise = kind[(random.integers(kind.size) + np.arange(mv.size)) % kind.size]
        louder: NDArray[np.float64] = mv + np.sqrt(signal_power(mv[None])[0] / 10 ** (snr_db / 10)) * noise
        return louder

    return change


def _lossy(share: float) -> Change:
    """So many notifications of a strap lost, each by itself."""

    def change(mv: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        lost = np.repeat(random.random(mv.size // PACKET + 2) < share, PACKET)[random.integers(PACKET) :][: mv.size]
        return np.where(lost, np.nan, mv)

    return change
