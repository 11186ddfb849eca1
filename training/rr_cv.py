"""Cross-validation of `rr_af`: performance in new patients, as recorded and with errors in the intervals."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from captures.rhythms import AF, UNUSED, Rhythm
from evaluation.rr_af import report, seconds
from evaluation.rr_tracking import ScoredRecord, TrackedRecord, WindowModel, score_windows, track_episodes
from evaluation.statistics import best_temperature
from models.inference.rr_af import is_conclusive, rr_features
from training.rr_net import RrNet, logits, write_onnx

Change = Callable[[Rhythm, np.random.Generator], Rhythm]

SEED: Final = 77
LOST_SHARES: Final = (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class CalibratedNetwork:
    """A network and its calibration, with the interface of the released model."""

    network: RrNet
    on_threshold: float
    temperature: float = 1.0

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.floating[Any]]:
        """Return probabilities (windows,) of intervals and validity, (windows, 64) each."""
        logit = logits(self.network, rr_features(rr_s, valid))
        return 1 / (1 + np.exp(-logit / self.temperature))

    def find_conclusive_windows(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which windows are conclusive, (windows,), by intervals and validity, (windows, 64) each."""
        return is_conclusive(rr_s, valid)


def write_folds(held_out: Iterable[tuple[CalibratedNetwork, Sequence[Rhythm]]], facts: Mapping[str, str], runs: Path) -> None:
    """Write each float network as `fold0/rr_af.onnx` and so on, and `folds.json`, which lists the records held out from it.

    `pulsegate evaluate rr-af --models` takes the folder `runs`. It does not score CinC 2017, which is not listed.
    """
    folds: dict[str, list[str]] = {}
    for number, (model, rhythms) in enumerate(held_out):
        folder = runs / f"fold{number}"
        folder.mkdir(parents=True, exist_ok=True)
        write_onnx(model.network, model.temperature, facts, folder / "rr_af.onnx")
        folds[folder.name] = [f"{one.database}/{one.name}" for one in rhythms if not one.database.startswith("cinc")]
    (runs / "folds.json").write_text(json.dumps(folds, indent=1) + "\n")


def fit_temperature(records: Sequence[ScoredRecord]) -> float:
    """Return the temperature: the divisor of the log-odds with the least cross-entropy on held-out windows."""
    used = [(record.windows.labels != UNUSED) & np.isfinite(record.probability) for record in records]
    probability = np.concatenate([record.probability[chosen] for record, chosen in zip(records, used, strict=True)])
    classes = np.concatenate([record.windows.labels[chosen] for record, chosen in zip(records, used, strict=True)]).astype(
        np.int64
    )
    likely = np.clip(probability, 1e-9, 1 - 1e-9)
    logit = np.log(likely / (1 - likely))
    return best_temperature(np.stack([0 * logit, logit], -1), classes)


def track_records(pairs: Sequence[tuple[Rhythm, WindowModel]], drop: float = 0.0) -> list[TrackedRecord]:
    """Run every record through the network that was not trained on the patient."""
    return [track_episodes(score_windows(rhythm, model, drop), model) for rhythm, model in pairs]


def f1(records: Sequence[TrackedRecord]) -> float:
    """Return the F1 of the seconds in AF, 0–100. Seconds without a conclusive result count as not called AF."""
    counts = [seconds(record) for record in records]
    found = sum(count["af_called"] for count in counts)
    return 100 * 2 * found / (found + sum(count["not_af_called"] for count in counts) + sum(map(_af_seconds, records)))


def _af_seconds(record: TrackedRecord) -> float:
    interval_s = np.diff(record.rhythm.times_s, prepend=record.rhythm.times_s[0])
    return float(interval_s[record.rhythm.labels == AF].sum())


def measure_robustness(pairs: Sequence[tuple[Rhythm, CalibratedNetwork]]) -> dict[str, Any]:
    """Return Se, Sp, coverage and F1 by duration, with intervals lost, and with errors of the detector in times and beats."""
    changes: dict[str, Change] = {
        **{f"jitter {round(1000 * s)} ms": _jitter(s) for s in (0.01, 0.03)},
        **{f"{round(100 * share)} % of beats missed": _miss_beats(share) for share in (0.05,)},
        **{f"{round(100 * share)} % of false beats": _add_false_beats(share) for share in (0.05,)},
    }
    rows = {"as recorded": _row(track_records(pairs))}
    rows |= {f"{round(100 * drop)} % of intervals lost": _row(track_records(pairs, drop)) for drop in LOST_SHARES}
    for name, change in changes.items():
        random = np.random.default_rng(SEED)
        rows[name] = _row(track_records([(change(rhythm, random), model) for rhythm, model in pairs]))
    return rows


def _row(records: Sequence[TrackedRecord]) -> dict[str, Any]:
    duration = report(records)["duration"]
    return {key: duration[key] for key in ("se", "sp", "coverage")} | {"f1": f1(records)}


def _jitter(sd_s: float) -> Change:
    return lambda rhythm, random: replace(rhythm, times_s=np.sort(rhythm.times_s + random.normal(0, sd_s, len(rhythm.times_s))))


def _miss_beats(share: float) -> Change:
    def change(rhythm: Rhythm, random: np.random.Generator) -> Rhythm:
        included = random.random(len(rhythm.times_s)) >= share
        return replace(rhythm, times_s=rhythm.times_s[included], labels=rhythm.labels[included])

    return change


def _add_false_beats(share: float) -> Change:
    def change(rhythm: Rhythm, random: np.random.Generator) -> Rhythm:
        before = 1 + np.flatnonzero(random.random(len(rhythm.times_s) - 1) < share)
        interval_s = rhythm.times_s[before] - rhythm.times_s[before - 1]
        extra_s = rhythm.times_s[before] - interval_s * random.uniform(0.3, 0.7, len(before))
        times_s = np.insert(rhythm.times_s, before, extra_s)
        return replace(rhythm, times_s=times_s, labels=np.insert(rhythm.labels, before, rhythm.labels[before]))

    return change
