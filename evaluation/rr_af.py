"""How well AF is found from RR intervals: windows, beats, episodes, and alerts in people who have no AF.

Terms as in ANSI/AAMI EC57 and IEC 60601-2-47: AF by episode and by duration. Percentages are 0–100. Labels and alerts are those
of `models.rules.af_tracker.AfTracker`, which the agent runs too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isnan, nan
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from captures.rhythms import AF, LONGEST_SILENCE_S, NOT_AF, RATES_HZ, UNUSED, Rhythm, Windows, load_rhythm, windows
from config.limits import DEFAULT_LIMITS
from evaluation.records import ODD, EvaluationError
from evaluation.statistics import bootstrap, calibration_error
from models.rules.af_tracker import STEP_BEATS, AfTracker, Episode, Stretch

Flags = NDArray[np.bool_]
Probabilities = NDArray[np.floating[Any]]

LONG_EPISODE_S: Final = 600.0
"""True episodes of at least 10 min are those that must be found and that latency is measured on."""

DAY_S: Final = 86_400.0

LONG_RECORD_S: Final = 6 * 3600.0
"""From shorter records no rate per day is derived: one false alert in half an hour would count as 48 a day."""

LONGEST_INTERVAL_S: Final = 3.0
"""Between beats further apart, beats are missing in the annotation: such time counts as not covered."""

DATABASES: Final = ("afdb", "ltafdb", "nsr2db")
SEED: Final = 3


class WindowModel(Protocol):
    """`models.inference.rr_af.RrAf`, as far as it is needed here."""

    @property
    def on_threshold(self) -> float:
        """The probability at which an alert may be raised."""
        ...

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: Flags) -> Probabilities:
        """(windows, 64) intervals and validity to (windows,)."""
        ...

    def find_conclusive_windows(self, rr_s: NDArray[np.floating[Any]], valid: Flags) -> Flags:
        """(windows, 64) intervals and validity to (windows,)."""
        ...


@dataclass(frozen=True, slots=True)
class Scored:
    """One record, its windows, and the model's probability for each, NaN where it says nothing."""

    rhythm: Rhythm
    windows: Windows
    probability: Probabilities


@dataclass(frozen=True, slots=True)
class Followed:
    """What the agent tells of one record: every beat's label (-1 where nothing is said), and the episodes it alerts to.

    `labels` (beats,) are 1 in AF and 0 elsewhere; `end_s` of every episode is known.
    """

    scored: Scored
    labels: NDArray[np.int8]
    episodes: list[Episode]

    @property
    def rhythm(self) -> Rhythm:
        """The truth."""
        return self.scored.rhythm


def evaluate_rr_af(data: Path, model: WindowModel, drop: float = 0.0) -> dict[str, Any]:
    """Every figure over the databases found in a folder, over each, and of each record.

    The overall figures are gross, over the records of the databases that hold AF (over all, if none does); false alerts are
    those of the records without AF in any of them.

    Args:
        data: holds `afdb`, `ltafdb`, `nsr2db`, some of them, or is one of them.
        model: what is judged.
        drop: share of the intervals lost on the way, at random.

    Raises:
        EvaluationError: there is no record.
    """
    followed: dict[str, list[Followed]] = {}
    skipped: dict[str, str] = {}
    for folder in _folders(data):
        for path in sorted(folder.glob("*.qrs")):
            try:
                judged = follow(scored(load_rhythm(path, folder.name), model, drop), model.on_threshold)
            except ODD as error:
                skipped[f"{folder.name}/{path.stem}"] = " ".join(f"{error}".split()) or type(error).__name__
            else:
                followed.setdefault(folder.name, []).append(judged)
    if not followed:
        raise EvaluationError(f"no record (.qrs and .atr) in {data}: give the folder that holds {', '.join(DATABASES)}")
    everyone = [record for of_it in followed.values() for record in of_it]
    with_af = [record for of_it in followed.values() if any((r.rhythm.labels == AF).any() for r in of_it) for record in of_it]
    return {
        **report(with_af or everyone),
        "false_alerts_per_patient_day": false_alerts(everyone),
        "databases": {name: report(of_it) for name, of_it in followed.items()},
        "records": {f"{r.rhythm.database}/{r.rhythm.name}": record_report(r) for r in everyone},
        "skipped": skipped,
    }


def _folders(data: Path) -> list[Path]:
    inside = [data / name for name in DATABASES if any((data / name).glob("*.qrs"))]
    return inside or ([data] if data.name in RATES_HZ and any(data.glob("*.qrs")) else [])


def scored(rhythm: Rhythm, model: WindowModel, drop: float = 0.0) -> Scored:
    """The model's probability for every window that the agent would ask about."""
    cut = windows(rhythm, STEP_BEATS)
    valid = cut.valid
    if drop:
        lost = np.random.default_rng(SEED).random(len(rhythm.times_s)) < drop
        valid = valid & ~lost[np.searchsorted(rhythm.times_s, cut.end_s)[:, None] + np.arange(1 - valid.shape[1], 1)]
    probability = np.full(len(valid), nan)
    spoken = model.find_conclusive_windows(cut.rr_s, valid)
    probability[spoken] = model.probabilities(cut.rr_s[spoken], valid[spoken])
    return Scored(rhythm, cut, probability)


def follow(record: Scored, on_threshold: float) -> Followed:
    """The agent's labels and episodes, from the windows' probabilities."""
    tracker = AfTracker(on_threshold, DEFAULT_LIMITS.af_duration.value)
    cut, times_s = record.windows, record.rhythm.times_s
    last_s = [*times_s[:-1][np.diff(times_s) > LONGEST_SILENCE_S].tolist(), float(times_s[-1])]
    told: list[Episode] = []
    stretches: list[Stretch] = []
    part = 0
    columns = (cut.end_s, cut.first_s, cut.middle_s, record.probability, cut.part)
    for now_s, first_s, middle_s, probability, of_part in zip(*(column.tolist() for column in columns), strict=True):
        if of_part != part:
            told += tracker.end(last_s[part])
            part = of_part
        told += tracker.add_window(now_s, first_s, middle_s, None if isnan(probability) else probability)
        stretches += tracker.take_labelled()
    told += tracker.end(last_s[part])
    stretches += tracker.take_labelled()
    ended = {episode.onset_s: episode.end_s for episode in told}
    raised = [episode._replace(end_s=ended[episode.onset_s]) for episode in told if episode.end_s is None]
    return Followed(record, beat_labels(times_s, stretches), raised)


def beat_labels(times_s: NDArray[np.float64], stretches: Sequence[Stretch]) -> NDArray[np.int8]:
    """The label of the stretch that each beat's interval ends in: 1, 0, or -1 where nothing is said."""
    if not stretches:
        return np.full(len(times_s), -1, np.int8)
    ends = np.array([stretch.end_s for stretch in stretches])
    said = np.array([-1 if stretch.af is None else stretch.af for stretch in stretches], np.int8)
    place = np.minimum(np.searchsorted(ends, times_s), len(ends) - 1)
    starts = np.array([stretch.start_s for stretch in stretches])
    within = (times_s > starts[place]) & (times_s <= ends[place])
    return np.where(within, said[place], np.int8(-1))


def true_episodes(rhythm: Rhythm, label: int = AF) -> list[tuple[float, float]]:
    """Onset and end in seconds of every stretch of beats with this label."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rhythm.labels == label, [False]]).astype(np.int8)))
    last = len(rhythm.times_s) - 1
    return [(float(rhythm.times_s[a]), float(rhythm.times_s[min(b, last)])) for a, b in edges.reshape(-1, 2)]


def window_counts(record: Scored, threshold: float = 0.5) -> dict[str, float]:
    """Windows called AF, of those that are AF, not AF, and flutter; those of which nothing is said are left out."""
    called, labels = record.probability >= threshold, record.windows.labels
    spoken = np.isfinite(record.probability)
    names = {AF: "af", NOT_AF: "not_af", UNUSED: "flutter"}
    return {name: float(np.sum(spoken & (labels == label))) for label, name in names.items()} | {
        f"{name}_called": float(np.sum(called & (labels == label))) for label, name in names.items()
    }


def beat_counts(record: Followed, weight: NDArray[np.float64]) -> dict[str, float]:
    """Beats, or the seconds that they stand for, that are AF or not, by what is said of them. Flutter is left out."""
    truth, said = record.rhythm.labels, record.labels
    known = (said >= 0) & (weight > 0)
    groups = {
        "af": (truth == AF) & known,
        "af_called": (truth == AF) & known & (said == 1),
        "not_af": (truth == NOT_AF) & known,
        "not_af_called": (truth == NOT_AF) & known & (said == 1),
        "flutter": (truth == UNUSED) & known,
        "flutter_called": (truth == UNUSED) & known & (said == 1),
    }
    return {name: float(weight[which].sum()) for name, which in groups.items()}


def seconds(record: Followed) -> dict[str, float]:
    """By duration: a beat stands for the interval that it ends, unless beats are missing there. `all`: judged or not."""
    interval_s = np.diff(record.rhythm.times_s, prepend=record.rhythm.times_s[0])
    counts = beat_counts(record, np.where(interval_s <= LONGEST_INTERVAL_S, interval_s, 0.0))
    return counts | {"all": float(interval_s[record.rhythm.labels != UNUSED].sum())}


def beats(record: Followed) -> dict[str, float]:
    """By number of beats."""
    return beat_counts(record, np.ones(len(record.labels)))


def se_sp(counts: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """Gross sensitivity and specificity, and the share of flutter called AF."""
    total = {key: sum(record[key] for record in counts) for key in counts[0]}
    return {
        "se": _percent(total["af_called"], total["af"]),
        "sp": _percent(total["not_af"] - total["not_af_called"], total["not_af"]),
        "flutter_called": _percent(total["flutter_called"], total["flutter"]),
    }


def report(records: Sequence[Followed]) -> dict[str, Any]:
    """Every figure over some records."""
    by_second = [seconds(record) for record in records]
    judged, everything = (sum(count(c) for c in by_second) for count in (_judged, lambda c: c["all"]))
    latencies = [latency for record in records for latency in _latencies(record)]
    detected = [latency for latency in latencies if latency < inf]
    probability, is_af = _known(records)
    return {
        "duration": se_sp(by_second) | {"coverage": _percent(judged, everything)},
        "duration_95": _intervals(by_second),
        "beats": se_sp([beats(record) for record in records]),
        "windows": se_sp([window_counts(record.scored) for record in records]),
        "ece": calibration_error(probability, is_af) if len(probability) else None,
        "episodes_10min": {"se": _percent(len(detected), len(latencies)), "count": len(latencies)},
        "latency_s": _quantiles(detected, ("median", 50), ("p95", 95)),
        "false_alerts_per_patient_day": false_alerts(records),
    }


def record_report(record: Followed) -> dict[str, Any]:
    """The figures of one record."""
    by_second = seconds(record)
    burden = by_second["af"] + by_second["not_af"]
    return {
        "duration": se_sp([by_second]) | {"coverage": _percent(_judged(by_second), by_second["all"])},
        "burden_percent": {
            "true": _percent(by_second["af"], burden),
            "found": _percent(by_second["af_called"] + by_second["not_af_called"], burden),
        },
        "windows": se_sp([window_counts(record.scored)]),
        "alerts": alert_count(record),
    }


def false_alerts(records: Sequence[Followed]) -> dict[str, float] | None:
    """Alerts a day in each patient without AF or flutter who was recorded for 6 h or more."""
    rates = [
        len(record.episodes) * DAY_S / _length_s(record.rhythm)
        for record in records
        if (record.rhythm.labels == NOT_AF).all() and _length_s(record.rhythm) >= LONG_RECORD_S
    ]
    if not rates:
        return None
    known = _quantiles(rates, ("median", 50), ("p95", 95)) or {}
    return {"mean": float(np.mean(rates))} | known | {"share_zero": 100 * float(np.mean(np.array(rates) == 0))}


def alert_count(record: Followed) -> dict[str, int]:
    """Alerts in one record: those that meet AF, those that meet only flutter, and false ones."""
    af, flutter = true_episodes(record.rhythm), true_episodes(record.rhythm, UNUSED)
    in_af = [_meets(episode, af) for episode in record.episodes]
    in_flutter = [_meets(episode, flutter) for episode in record.episodes]
    flutter_only = sum(second and not first for first, second in zip(in_af, in_flutter, strict=True))
    return {"af": sum(in_af), "flutter": flutter_only, "false": len(in_af) - sum(in_af) - flutter_only}


def _meets(episode: Episode, stretches: Sequence[tuple[float, float]]) -> bool:
    return any(onset_s < (episode.end_s or inf) and end_s > episode.onset_s for onset_s, end_s in stretches)


def _latencies(record: Followed) -> list[float]:
    """Seconds from each long true episode's onset to the decision: 0 when an alert was on already, infinite without one."""
    latencies = []
    for onset_s, end_s in true_episodes(record.rhythm):
        if end_s - onset_s >= LONG_EPISODE_S:
            met = [episode for episode in record.episodes if _meets(episode, [(onset_s, end_s)])]
            decided = [episode.decided_s for episode in met if episode.decided_s < end_s]
            latencies.append(max(0.0, min(decided) - onset_s) if decided else inf)
    return latencies


def _known(records: Sequence[Followed]) -> tuple[Probabilities, Flags]:
    """Probability and truth of the windows that count."""
    used = [(r.scored.windows.labels != UNUSED) & np.isfinite(r.scored.probability) for r in records]
    probability = [record.scored.probability[of_it] for record, of_it in zip(records, used, strict=True)]
    is_af = [record.scored.windows.labels[of_it] == AF for record, of_it in zip(records, used, strict=True)]
    return np.concatenate(probability), np.concatenate(is_af)


def _intervals(counts: Sequence[dict[str, float]]) -> dict[str, list[float] | None]:
    """95 % intervals by drawing patients."""
    known: dict[str, list[float] | None] = {}
    for name in ("se", "sp"):
        low, high = bootstrap(counts, partial(_gross, name), SEED)
        known[name] = None if isnan(low) else [low, high]
    return known


def _gross(name: str, counts: Sequence[dict[str, float]]) -> float:
    value = se_sp(counts)[name]
    return nan if value is None else value


def _judged(counts: dict[str, float]) -> float:
    return counts["af"] + counts["not_af"]


def _length_s(rhythm: Rhythm) -> float:
    return float(rhythm.times_s[-1] - rhythm.times_s[0])


def _quantiles(values: Sequence[float], *named: tuple[str, float]) -> dict[str, float] | None:
    return {name: float(np.percentile(values, at)) for name, at in named} if values else None


def _percent(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None
