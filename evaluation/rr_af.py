"""`pulsegate evaluate rr-af`: scores AF detection from RR intervals by windows, beats and episodes, and counts false alerts.

Terms as in ANSI/AAMI EC57 and IEC 60601-2-47: AF by episode and by duration. Percentages are 0–100.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import inf, isnan, nan
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from captures.rhythms import AF, NOT_AF, RATES_HZ, UNUSED, Rhythm, load_rhythm
from config.limits import DEFAULT_LIMITS
from evaluation.proportions import poisson_interval, poisson_upper, wilson_interval
from evaluation.records import RECORD_ERRORS, EvaluationError
from evaluation.rr_tracking import (
    SEED,
    Flags,
    Probabilities,
    RaisedEpisode,
    ScoredRecord,
    TrackedRecord,
    WindowModel,
    score_windows,
    track_episodes,
    true_episodes,
)
from evaluation.statistics import bootstrap, calibration_error

LONG_EPISODE_S: Final = 600.0
"""True episodes of at least this length, 10 min, count for episode sensitivity and for latency."""

DAY_S: Final = 86_400.0

LONG_RECORD_S: Final = 6 * 3600.0
"""Shorter records have no rate per day: one false alert in half an hour would count as 48 a day."""

END_LIMIT_S: Final = 30.0
"""The agent should say within this time that AF may have ended."""

WORST_LISTED: Final = 3
"""Number of patients with the most false alerts that a report names."""

LONGEST_INTERVAL_S: Final = 3.0
"""Where beats are further apart, the annotation misses beats; this time counts as not covered."""

DATABASES: Final = ("afdb", "ltafdb", "nsr2db")


def evaluate_rr_af(data: Path, model_for_record: Callable[[str], WindowModel], drop: float = 0.0) -> dict[str, Any]:
    """Returns the report over the databases in a folder, with the figures of each database and each record.

    The overall figures are gross over the records of the databases that hold AF (over all, if none does). False alerts are
    counted in the records without AF of every database.

    Args:
        data: a folder with some of `afdb`, `ltafdb` and `nsr2db`, or one of these folders.
        model_for_record: returns the model to score on a record, `database/record`.
        drop: share of the intervals that is dropped at random, 0 to 1.

    Raises:
        EvaluationError: there is no record.
    """
    tracked: dict[str, list[TrackedRecord]] = {}
    skipped: dict[str, str] = {}
    for folder in _folders(data):
        for path in sorted(folder.glob("*.qrs")):
            model = model_for_record(f"{folder.name}/{path.stem}")
            try:
                record = track_episodes(score_windows(load_rhythm(path, folder.name), model, drop), model)
            except RECORD_ERRORS as error:
                skipped[f"{folder.name}/{path.stem}"] = " ".join(f"{error}".split()) or type(error).__name__
            else:
                tracked.setdefault(folder.name, []).append(record)
    if not tracked:
        raise EvaluationError(f"no record (.qrs and .atr) in {data}: give the folder that holds {', '.join(DATABASES)}")
    all_records = [record for records in tracked.values() for record in records]
    with_af = [
        record
        for records in tracked.values()
        if any((other.rhythm.labels == AF).any() for other in records)
        for record in records
    ]
    return {
        **report(with_af or all_records),
        "false_alerts_per_patient_day": false_alerts(all_records),
        "databases": {name: report(records) for name, records in tracked.items()},
        "records": {f"{r.rhythm.database}/{r.rhythm.name}": record_report(r) for r in all_records},
        "skipped": skipped,
    }


def _folders(data: Path) -> list[Path]:
    inside = [data / name for name in DATABASES if any((data / name).glob("*.qrs"))]
    return inside or ([data] if data.name in RATES_HZ and any(data.glob("*.qrs")) else [])


def window_counts(record: ScoredRecord, threshold: float = 0.5) -> dict[str, float]:
    """Counts the windows of AF, other rhythms and flutter, and those of them called AF; inconclusive windows are left out."""
    called, labels = record.probability >= threshold, record.windows.labels
    conclusive = np.isfinite(record.probability)
    names = {AF: "af", NOT_AF: "not_af", UNUSED: "flutter"}
    return {name: float(np.sum(conclusive & (labels == label))) for label, name in names.items()} | {
        f"{name}_called": float(np.sum(called & (labels == label))) for label, name in names.items()
    }


def beat_counts(record: TrackedRecord, weight: NDArray[np.float64]) -> dict[str, float]:
    """Sums the weights of conclusive beats of AF, other rhythms and flutter, and of those called AF."""
    truth, called = record.rhythm.labels, record.labels
    known = (called >= 0) & (weight > 0)
    groups = {
        "af": (truth == AF) & known,
        "af_called": (truth == AF) & known & (called == 1),
        "not_af": (truth == NOT_AF) & known,
        "not_af_called": (truth == NOT_AF) & known & (called == 1),
        "flutter": (truth == UNUSED) & known,
        "flutter_called": (truth == UNUSED) & known & (called == 1),
    }
    return {name: float(weight[which].sum()) for name, which in groups.items()}


def seconds(record: TrackedRecord) -> dict[str, float]:
    """Counts by duration: a beat stands for the interval that it ends, unless beats are missing there.

    `all` includes the beats for which the agent is inconclusive.
    """
    interval_s = np.diff(record.rhythm.times_s, prepend=record.rhythm.times_s[0])
    counts = beat_counts(record, np.where(interval_s <= LONGEST_INTERVAL_S, interval_s, 0.0))
    return counts | {"all": float(interval_s[record.rhythm.labels != UNUSED].sum())}


def beats(record: TrackedRecord) -> dict[str, float]:
    """Counts by number of beats."""
    return beat_counts(record, np.ones(len(record.labels)))


def se_sp(counts: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """Returns gross sensitivity and specificity, and the share of flutter called AF."""
    total = {key: sum(record[key] for record in counts) for key in counts[0]}
    return {
        "se": _percent(total["af_called"], total["af"]),
        "sp": _percent(total["not_af"] - total["not_af_called"], total["not_af"]),
        "flutter_called": _percent(total["flutter_called"], total["flutter"]),
    }


def report(records: Sequence[TrackedRecord]) -> dict[str, Any]:
    """Returns every figure over these records."""
    by_second = [seconds(record) for record in records]
    conclusive, everything = (sum(count(c) for c in by_second) for count in (_conclusive, lambda c: c["all"]))
    latencies = [latency for record in records for latency in _latencies(record)]
    detected = [latency for latency in latencies if latency < inf]
    probability, is_af = _conclusive_windows(records)
    return {
        "duration": se_sp(by_second) | {"coverage": _percent(conclusive, everything)},
        "duration_95": _intervals(by_second),
        "beats": se_sp([beats(record) for record in records]),
        "windows": se_sp([window_counts(record.scored) for record in records]),
        "ece": calibration_error(probability, is_af) if len(probability) else None,
        "episodes_10min": {
            "se": _percent(len(detected), len(latencies)),
            "count": len(latencies),
            "se_95": _in_percent(wilson_interval(len(detected), len(latencies))),
        },
        "latency_s": _quantiles(detected, ("median", 50), ("p75", 75), ("p95", 95)),
        "end_delay_s": end_report([delay_s for record in records for delay_s in record.end_delays_s]),
        "alerts": {name: sum(alert_count(record)[name] for record in records) for name in ("af", "flutter", "false")},
        "false_alerts_per_patient_day": false_alerts(records),
    }


def end_report(delays_s: Sequence[float]) -> dict[str, Any]:
    """Returns how soon the agent said that AF may have ended, see `rr_tracking.find_end_delays`."""
    soon = sum(delay_s <= END_LIMIT_S for delay_s in delays_s)
    return {
        "ends": len(delays_s),
        "within_30_s": _percent(soon, len(delays_s)),
        "within_30_s_95": _in_percent(wilson_interval(soon, len(delays_s))),
        **(_quantiles(delays_s, ("median", 50), ("p95", 95), ("longest", 100)) or {}),
    }


def record_report(record: TrackedRecord) -> dict[str, Any]:
    """Returns the figures of one record."""
    by_second = seconds(record)
    burden = by_second["af"] + by_second["not_af"]
    return {
        "duration": se_sp([by_second]) | {"coverage": _percent(_conclusive(by_second), by_second["all"])},
        "burden_percent": {
            "true": _percent(by_second["af"], burden),
            "found": _percent(by_second["af_called"] + by_second["not_af_called"], burden),
        },
        "windows": se_sp([window_counts(record.scored)]),
        "alerts": alert_count(record),
    }


def false_alerts(records: Sequence[TrackedRecord]) -> dict[str, Any] | None:
    """Returns the alerts per day over the patients without AF or flutter who were recorded for 6 h or more.

    `mean_95` is the exact Poisson interval of all alerts over all days, `mean_upper_95` the one-sided bound. Alerts of one
    patient come together, so both are too narrow where few patients have most of them: see `worst`. Here each episode is an
    alert; `joined` counts the alerts that a sensor without an ECG sends about them.
    """
    counted = [
        record for record in records if (record.rhythm.labels == NOT_AF).all() and _length_s(record.rhythm) >= LONG_RECORD_S
    ]
    if not counted:
        return None
    rates = [DAY_S * len(record.episodes) / _length_s(record.rhythm) for record in counted]
    names = [f"{record.rhythm.database}/{record.rhythm.name}" for record in counted]
    total = sum(len(record.episodes) for record in counted)
    days = sum(_length_s(record.rhythm) for record in counted) / DAY_S
    joined = [count_joined(record.episodes) for record in counted]
    worst = sorted(((rate, name) for rate, name in zip(rates, names, strict=True) if rate), reverse=True)[:WORST_LISTED]
    return {
        "mean": float(np.mean(rates)),
        "mean_95": [bound / days for bound in poisson_interval(total)],
        "mean_upper_95": poisson_upper(total) / days,
        **(_quantiles(rates, ("median", 50), ("p95", 95)) or {}),
        "share_zero": 100 * float(np.mean(np.array(rates) == 0)),
        "patients": len(rates),
        "alerts": total,
        "days": days,
        "joined": {
            "mean": float(np.mean([DAY_S * n / _length_s(record.rhythm) for n, record in zip(joined, counted, strict=True)])),
            "mean_upper_95": poisson_upper(sum(joined)) / days,
            "alerts": sum(joined),
        },
        "worst": {name: rate for rate, name in worst},
    }


def count_joined(episodes: Sequence[RaisedEpisode]) -> int:
    """Returns how many alerts of a sensor without an ECG these episodes are.

    An episode that is raised sooner than `repeat_low` after the end of another continues its alert, as in
    `gateway.alert_tracker`.
    """
    repeat_s = DEFAULT_LIMITS.repeat_low.value
    return len(episodes) - sum(later.decided_s - earlier.end_s < repeat_s for earlier, later in pairwise(episodes))


def alert_count(record: TrackedRecord) -> dict[str, int]:
    """Counts the alerts of one record that overlap AF, that overlap only flutter, and false alerts."""
    af, flutter = true_episodes(record.rhythm), true_episodes(record.rhythm, UNUSED)
    in_af = [_overlaps(episode, af) for episode in record.episodes]
    in_flutter = [_overlaps(episode, flutter) for episode in record.episodes]
    flutter_only = sum(second and not first for first, second in zip(in_af, in_flutter, strict=True))
    return {"af": sum(in_af), "flutter": flutter_only, "false": len(in_af) - sum(in_af) - flutter_only}


def _overlaps(episode: RaisedEpisode, stretches: Sequence[tuple[float, float]]) -> bool:
    return any(onset_s < episode.end_s and end_s > episode.onset_s for onset_s, end_s in stretches)


def _latencies(record: TrackedRecord) -> list[float]:
    """Returns the seconds from each long true episode's onset to the alert: 0 if one was already on, infinite if none came."""
    latencies = []
    for onset_s, end_s in true_episodes(record.rhythm):
        if end_s - onset_s >= LONG_EPISODE_S:
            alerts = [episode for episode in record.episodes if _overlaps(episode, [(onset_s, end_s)])]
            decided = [episode.decided_s for episode in alerts if episode.decided_s < end_s]
            latencies.append(max(0.0, min(decided) - onset_s) if decided else inf)
    return latencies


def _conclusive_windows(records: Sequence[TrackedRecord]) -> tuple[Probabilities, Flags]:
    """Returns probability and truth of the conclusive windows without flutter."""
    used = [(r.scored.windows.labels != UNUSED) & np.isfinite(r.scored.probability) for r in records]
    probability = [record.scored.probability[which] for record, which in zip(records, used, strict=True)]
    is_af = [record.scored.windows.labels[which] == AF for record, which in zip(records, used, strict=True)]
    return np.concatenate(probability), np.concatenate(is_af)


def _intervals(counts: Sequence[dict[str, float]]) -> dict[str, list[float] | None]:
    """Returns 95 % bootstrap intervals over patients."""
    known: dict[str, list[float] | None] = {}
    for name in ("se", "sp"):
        low, high = bootstrap(counts, partial(_gross, name), SEED)
        known[name] = None if isnan(low) else [low, high]
    return known


def _gross(name: str, counts: Sequence[dict[str, float]]) -> float:
    value = se_sp(counts)[name]
    return nan if value is None else value


def _conclusive(counts: dict[str, float]) -> float:
    return counts["af"] + counts["not_af"]


def _length_s(rhythm: Rhythm) -> float:
    return float(rhythm.times_s[-1] - rhythm.times_s[0])


def _quantiles(values: Sequence[float], *named: tuple[str, float]) -> dict[str, float] | None:
    return {name: float(np.percentile(values, at)) for name, at in named} if values else None


def _in_percent(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [100 * bound for bound in interval]


def _percent(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None
