"""How well AF is found from RR intervals: windows, seconds, episodes, and alarms in people who have no AF.

Terms as in ANSI/AAMI EC57 and IEC 60601-2-47: AF by episode and by duration. Percentages are 0–100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.recordings.rhythms import AF, NOT_AF, UNUSED, Rhythm, Windows

Probabilities = NDArray[np.floating[Any]]

LONG_EPISODE_S: Final = 600.0
"""True episodes of at least 10 min are those that must be found and that latency is measured on."""

DAY_S: Final = 86_400.0

LONG_RECORD_S: Final = 6 * 3600.0
"""From shorter records no rate per day is derived: one false alert in half an hour would count as 48 a day."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One record, its windows and the model's probability for each."""

    rhythm: Rhythm
    windows: Windows
    probability: Probabilities


@dataclass(frozen=True, slots=True)
class Episode:
    """AF from `onset_s` to `end_s`; `decided_s` is when the agent could say so."""

    onset_s: float
    end_s: float
    decided_s: float


def episodes(windows: Windows, probability: Probabilities, on: float, off: float, shortest_s: float = 30.0) -> list[Episode]:
    """The rule of `models.rules.af.AfRule` on probabilities of full windows.

    AF begins in the middle of the window that reaches `on` and ends in the middle of the one that falls below `off`; it is an
    episode when it has lasted `shortest_s` at the end of a window that itself reaches `on`.
    """
    found: list[Episode] = []
    begin = 0
    while begin < len(probability):
        above = np.flatnonzero(probability[begin:] >= on)
        if not len(above):
            break
        first = begin + int(above[0])
        below = np.flatnonzero(probability[first:] < off)
        last = first + int(below[0]) if len(below) else len(probability) - 1
        onset_s = float(windows.middle_s[first])
        late = np.flatnonzero((windows.end_s[first:last] - onset_s >= shortest_s) & (probability[first:last] >= on))
        if len(late):
            end_s = float(windows.middle_s[last] if len(below) else windows.end_s[last])
            found.append(Episode(onset_s, end_s, float(windows.end_s[first + late[0]])))
        begin = last + 1
    return found


def true_episodes(rhythm: Rhythm, label: int = AF) -> list[tuple[float, float]]:
    """Onset and end in seconds of every stretch of beats with this label."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rhythm.labels == label, [False]]).astype(np.int8)))
    last = len(rhythm.times_s) - 1
    return [(float(rhythm.times_s[a]), float(rhythm.times_s[min(b, last)])) for a, b in edges.reshape(-1, 2)]


def window_counts(scored: Scored, threshold: float = 0.5) -> dict[str, int]:
    """Windows called AF, of those that are AF, not AF, and flutter."""
    called, labels = scored.probability >= threshold, scored.windows.labels
    names = {AF: "af", NOT_AF: "not_af", UNUSED: "flutter"}
    return {name: int(np.sum(labels == label)) for label, name in names.items()} | {
        f"{name}_called": int(np.sum(called & (labels == label))) for label, name in names.items()
    }


def se_sp(counts: Sequence[dict[str, int]]) -> dict[str, float | None]:
    """Gross sensitivity and specificity by window, and the share of flutter called AF."""
    total = {key: sum(record[key] for record in counts) for key in counts[0]}
    return {
        "se": _percent(total["af_called"], total["af"]),
        "sp": _percent(total["not_af"] - total["not_af_called"], total["not_af"]),
        "flutter_called": _percent(total["flutter_called"], total["flutter"]),
    }


def score(records: Sequence[Scored], on: float, off: float) -> dict[str, Any]:
    """Every figure that depends on episodes, over all records and for each."""
    found = [episodes(record.windows, record.probability, on, off) for record in records]
    seconds = [_seconds(record.rhythm, of_it) for record, of_it in zip(records, found, strict=True)]
    long_ones = [_long(record.rhythm, of_it) for record, of_it in zip(records, found, strict=True)]
    latencies = [latency for of_it in long_ones for latency in of_it]
    detected = [latency for latency in latencies if np.isfinite(latency)]
    healthy = [
        len(of_it) * DAY_S / _length_s(record.rhythm)
        for record, of_it in zip(records, found, strict=True)
        if not (record.rhythm.labels != NOT_AF).any() and _length_s(record.rhythm) >= LONG_RECORD_S
    ]
    return {
        "duration": {
            "se": _percent(sum(s["both"] for s in seconds), sum(s["true"] for s in seconds)),
            "sp": _percent(sum(s["neither"] for s in seconds), sum(s["not_true"] for s in seconds)),
        },
        "episodes_10min": {"se": _percent(len(detected), len(latencies)), "count": len(latencies)},
        "latency_s": _quantiles(detected, ("median", 50), ("p95", 95)),
        "false_alerts_per_patient_day": _per_day(healthy),
    }


def alert_count(scored: Scored, on: float, off: float) -> dict[str, int]:
    """Alerts in one record: those that meet AF, those that meet only flutter, and false ones."""
    found = episodes(scored.windows, scored.probability, on, off)
    af, flutter = true_episodes(scored.rhythm), true_episodes(scored.rhythm, UNUSED)
    in_af = [_meets(episode, af) for episode in found]
    in_flutter = [_meets(episode, flutter) for episode in found]
    flutter_only = sum(second and not first for first, second in zip(in_af, in_flutter, strict=True))
    return {"af": sum(in_af), "flutter": flutter_only, "false": len(found) - sum(in_af) - flutter_only}


def _meets(episode: Episode, stretches: Sequence[tuple[float, float]]) -> bool:
    return any(onset_s < episode.end_s and end_s > episode.onset_s for onset_s, end_s in stretches)


def _seconds(rhythm: Rhythm, found: Sequence[Episode]) -> dict[str, float]:
    """Beat by beat: each stands for the interval that it ends. Flutter is left out."""
    called = np.zeros(len(rhythm.times_s), np.bool_)
    for episode in found:
        called |= (rhythm.times_s > episode.onset_s) & (rhythm.times_s <= episode.end_s)
    duration = np.diff(rhythm.times_s, prepend=rhythm.times_s[0])
    is_af, is_not = rhythm.labels == AF, rhythm.labels == NOT_AF
    return {
        "both": float(duration[is_af & called].sum()),
        "true": float(duration[is_af].sum()),
        "neither": float(duration[is_not & ~called].sum()),
        "not_true": float(duration[is_not].sum()),
    }


def _long(rhythm: Rhythm, found: Sequence[Episode]) -> list[float]:
    """Seconds from each long true episode's onset to the decision: 0 when an alert was on already, infinite without one."""
    latencies = []
    for onset_s, end_s in true_episodes(rhythm):
        if end_s - onset_s >= LONG_EPISODE_S:
            met = [episode.decided_s for episode in found if episode.onset_s < end_s and episode.end_s > onset_s]
            decided = [decided_s for decided_s in met if decided_s < end_s]
            latencies.append(max(0.0, min(decided) - onset_s) if decided else float("inf"))
    return latencies


def _length_s(rhythm: Rhythm) -> float:
    return float(rhythm.times_s[-1] - rhythm.times_s[0])


def _per_day(rates: Sequence[float]) -> dict[str, float] | None:
    if not rates:
        return None
    known = _quantiles(rates, ("median", 50), ("p95", 95)) or {}
    return {"mean": float(np.mean(rates))} | known | {"share_zero": 100 * float(np.mean(np.array(rates) == 0))}


def _quantiles(values: Sequence[float], *named: tuple[str, float]) -> dict[str, float] | None:
    return {name: float(np.percentile(values, at)) for name, at in named} if values else None


def _percent(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None


def expected_calibration_error(probability: Probabilities, is_af: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean distance of probability and frequency over equal bins (Naeini 2015, Guo 2017), weighted by windows; a fraction."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gap = [abs(float(np.sum(probability[place == b]) - np.sum(is_af[place == b]))) for b in range(bins)]
    return sum(gap) / len(probability)
