"""How `rr_af` fares in patients that it was not trained on: cross-validation, and what is left of it under disturbances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from captures.rhythms import AF, UNUSED, Rhythm
from evaluation.rr_af import Followed, Scored, follow, report, scored, seconds
from evaluation.statistics import best_temperature
from models.inference.rr_af import is_conclusive, rr_features
from training.rr_net import RrNet, logits

Change = Callable[[Rhythm, np.random.Generator], Rhythm]

SEED: Final = 77
DROPPED: Final = (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Judge:
    """A network and its calibration, asked as the agent asks the released model."""

    network: RrNet
    on_threshold: float
    temperature: float = 1.0

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.floating[Any]]:
        """(windows, 64) each to (windows,)."""
        logit = logits(self.network, rr_features(rr_s, valid))
        return 1 / (1 + np.exp(-logit / self.temperature))

    def find_conclusive_windows(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(windows, 64) each to (windows,)."""
        return is_conclusive(rr_s, valid)


def calibration(records: Sequence[Scored]) -> float:
    """The temperature: divisor of the log-odds with the least cross-entropy on held-out windows."""
    used = [(record.windows.labels != UNUSED) & np.isfinite(record.probability) for record in records]
    probability = np.concatenate([record.probability[of_it] for record, of_it in zip(records, used, strict=True)])
    classes = np.concatenate([record.windows.labels[of_it] for record, of_it in zip(records, used, strict=True)]).astype(
        np.int64
    )
    likely = np.clip(probability, 1e-9, 1 - 1e-9)
    logit = np.log(likely / (1 - likely))
    return best_temperature(np.stack([0 * logit, logit], -1), classes)


def judged(pairs: Sequence[tuple[Rhythm, Judge]], drop: float = 0.0) -> list[Followed]:
    """Every record with the judge that has not seen the patient."""
    return [follow(scored(rhythm, judge, drop), judge.on_threshold) for rhythm, judge in pairs]


def f1(records: Sequence[Followed]) -> float:
    """Of the seconds in AF, 0–100; what is not judged counts as missed or rightly left out."""
    counts = [seconds(record) for record in records]
    both = sum(count["af_called"] for count in counts)
    return 100 * 2 * both / (both + sum(count["not_af_called"] for count in counts) + sum(map(_in_af, records)))


def _in_af(record: Followed) -> float:
    interval_s = np.diff(record.rhythm.times_s, prepend=record.rhythm.times_s[0])
    return float(interval_s[record.rhythm.labels == AF].sum())


def robustness(pairs: Sequence[tuple[Rhythm, Judge]]) -> dict[str, Any]:
    """Se, Sp, coverage and F1 by duration with lost intervals, and with times and beats that the detector got wrong."""
    changes: dict[str, Change] = {
        **{f"jitter {round(1000 * s)} ms": _jittered(s) for s in (0.01, 0.03)},
        **{f"{round(100 * share)} % of beats missed": _missed(share) for share in (0.05,)},
        **{f"{round(100 * share)} % of false beats": _false(share) for share in (0.05,)},
    }
    rows = {"as recorded": _row(judged(pairs))}
    rows |= {f"{round(100 * drop)} % of intervals lost": _row(judged(pairs, drop)) for drop in DROPPED}
    for name, change in changes.items():
        random = np.random.default_rng(SEED)
        rows[name] = _row(judged([(change(rhythm, random), judge) for rhythm, judge in pairs]))
    return rows


def _row(records: Sequence[Followed]) -> dict[str, Any]:
    duration = report(records)["duration"]
    return {key: duration[key] for key in ("se", "sp", "coverage")} | {"f1": f1(records)}


def _jittered(sd_s: float) -> Change:
    return lambda rhythm, random: replace(rhythm, times_s=np.sort(rhythm.times_s + random.normal(0, sd_s, len(rhythm.times_s))))


def _missed(share: float) -> Change:
    def change(rhythm: Rhythm, random: np.random.Generator) -> Rhythm:
        kept = random.random(len(rhythm.times_s)) >= share
        return replace(rhythm, times_s=rhythm.times_s[kept], labels=rhythm.labels[kept])

    return change


def _false(share: float) -> Change:
    def change(rhythm: Rhythm, random: np.random.Generator) -> Rhythm:
        before = 1 + np.flatnonzero(random.random(len(rhythm.times_s) - 1) < share)
        interval_s = rhythm.times_s[before] - rhythm.times_s[before - 1]
        extra_s = rhythm.times_s[before] - interval_s * random.uniform(0.3, 0.7, len(before))
        times_s = np.insert(rhythm.times_s, before, extra_s)
        return replace(rhythm, times_s=times_s, labels=np.insert(rhythm.labels, before, rhythm.labels[before]))

    return change
