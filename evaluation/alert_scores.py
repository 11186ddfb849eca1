"""Scores the alerts of one recording against its reference, and pools recordings into a report."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from evaluation.alert_lines import RANKS, RaisedAlert
from evaluation.alert_truth import ALSO_TRUE, DANGEROUS, FITTING, Episode, Truth
from evaluation.proportions import poisson_interval, poisson_upper, wilson_interval
from evaluation.records import percent
from evaluation.spans import Span, complement_spans, intersect_spans, merge_spans, total_s, touches

LONG_S: Final = 10.0
"""Episodes of a dangerous rhythm from this length on are a group of their own: an alert has this long to be raised."""

WELL_COVERED: Final = 0.9
"""Share of the time of a long episode that should be covered."""

WINDOW_S: Final = 0.15
"""An alert and an episode that are this close overlap: the match window of EC57 for beats."""

HOUR_S: Final = 3600.0
DAY_S: Final = 86400.0


class Cover(NamedTuple):
    """When a high alert was first open in an episode, in seconds from its onset, None if it never was; and for how long.

    `covered_s` counts from 10 s after the onset.
    """

    latency_s: float | None
    covered_s: float


class EpisodeScore(NamedTuple):
    """What became of one annotated episode.

    Attributes:
        seconds: its length.
        latency_s: from its onset to the moment at which a fitting alert was first open, 0 if one was already; None if missed.
        named: whether an alert of its own kind found it.
        counted_s: time from 10 s after its onset to its end.
        covered_s: how much of this a fitting alert was open.
        high: the same for a high alert of any kind that was open at some moment of the episode.
        lasting: the same while its own episode lasted, or its signal was lost: not while it waited for the next one.
    """

    kind: str
    start_s: float
    seconds: float
    latency_s: float | None
    named: bool
    counted_s: float
    covered_s: float
    high: Cover
    lasting: Cover


class OutsideAlert(NamedTuple):
    """A high alert that was raised away from every dangerous or unjudged stretch: at first at `raised_s`, and how often."""

    kind: str
    onset_s: float
    raised_s: float
    raised: int
    open_s: float


class AlertScore(NamedTuple):
    """What an alert was: `true`, `false`, or `unjudged` because nothing marks its kind there."""

    kind: str
    priority: str
    verdict: str


@dataclass(frozen=True, slots=True)
class RecordScore:
    """Everything that is pooled over recordings.

    Attributes:
        hours: duration of the recording.
        outside_hours: without the stretches in or near a dangerous rhythm, or not judged.
        judged_hours: by kind of alert, the time in which an alert of this kind can be false.
    """

    episodes: tuple[EpisodeScore, ...]
    alerts: tuple[AlertScore, ...]
    outside: tuple[OutsideAlert, ...]
    hours: float
    outside_hours: float
    high_outside_hours: float
    judged_hours: Mapping[str, float]


def score_record(alerts: Sequence[RaisedAlert], truth: Truth, duration_s: float) -> RecordScore:
    """Returns the scores of the alerts of one recording."""
    near_danger = [(max(start_s, 0.0), min(end_s, duration_s)) for start_s, end_s in truth.near_danger]
    outside = complement_spans(near_danger, duration_s)
    high = _open_spans(alerts, high_only=True)
    return RecordScore(
        tuple(_score_episode(episode, alerts) for episode in truth.episodes if episode.kind in FITTING),
        tuple(AlertScore(alert.kind, alert.priority, _judge(alert, truth)) for alert in alerts),
        tuple(_outside_alerts(alerts, near_danger)),
        duration_s / HOUR_S,
        total_s(outside) / HOUR_S,
        total_s(intersect_spans(high, outside)) / HOUR_S,
        dict.fromkeys(truth.judged, total_s(complement_spans(truth.not_judged, duration_s)) / HOUR_S),
    )


def _open_spans(
    alerts: Iterable[RaisedAlert],
    kinds: frozenset[str] | None = None,
    *,
    high_only: bool = False,
    lasting_only: bool = False,
) -> list[Span]:
    return merge_spans(
        (span.start_s, span.end_s)
        for alert in alerts
        for span in alert.opened
        if (kinds is None or span.kind in kinds)
        and not (high_only and span.priority != "high")
        and (span.lasts or not lasting_only)
    )


def _score_episode(episode: Episode, alerts: Sequence[RaisedAlert]) -> EpisodeScore:
    kind, start_s, end_s = episode
    fitting = [alert for alert in alerts if _finds(alert, episode, FITTING[kind])]
    counted = [(start_s + LONG_S, end_s)] if end_s > start_s + LONG_S else []
    reported = _open_spans(fitting, FITTING[kind], lasting_only=True)
    return EpisodeScore(
        kind,
        start_s,
        end_s - start_s,
        min((max(0.0, opened_s - start_s) for opened_s, until_s in reported if until_s >= start_s), default=None),
        any(_finds(alert, episode, frozenset({kind})) for alert in fitting),
        total_s(counted),
        total_s(intersect_spans(_open_spans(fitting, FITTING[kind]), counted)),
        _cover(episode, counted, _open_spans(alerts, high_only=True)),
        _cover(episode, counted, _open_spans(alerts, high_only=True, lasting_only=True)),
    )


def _cover(episode: Episode, counted: Sequence[Span], opened: Sequence[Span]) -> Cover:
    _, start_s, end_s = episode
    within = (max(0.0, opened_s - start_s) for opened_s, until_s in opened if opened_s < end_s and until_s > start_s)
    return Cover(min(within, default=None), total_s(intersect_spans(opened, counted)))


def _finds(alert: RaisedAlert, episode: Episode, kinds: frozenset[str]) -> bool:
    """Whether an alert has had one of these kinds, and states an episode that overlaps the annotated one."""
    had_kind = any(span.kind in kinds for span in alert.opened)
    return had_kind and touches((episode.start_s - WINDOW_S, episode.end_s + WINDOW_S), alert.extents)


def _judge(alert: RaisedAlert, truth: Truth) -> str:
    """Returns whether an alert is true, false or unjudged."""
    finds = {kind for kind, kinds in FITTING.items() if alert.kind in kinds} | ALSO_TRUE.get(alert.kind, frozenset())
    marked = truth.spans(finds)
    if any(touches((start_s - WINDOW_S, end_s + WINDOW_S), marked) for start_s, end_s in alert.extents):
        return "true"
    if alert.kind not in truth.judged or any(touches(extent, truth.not_judged) for extent in alert.extents):
        return "unjudged"
    return "false"


def _outside_alerts(alerts: Iterable[RaisedAlert], near_danger: Sequence[Span]) -> Iterable[OutsideAlert]:
    for alert in alerts:
        raised_s = [at_s for at_s in alert.high_raised_s if not touches((at_s, at_s), near_danger)]
        if raised_s:
            open_s = total_s(_open_spans([alert], high_only=True))
            yield OutsideAlert(alert.kind, alert.onset_s, raised_s[0], len(raised_s), open_s)


def pool_scores(scores: Mapping[str, RecordScore]) -> dict[str, Any]:
    """Returns the report over recordings, by name."""
    records = list(scores.values())
    outside = [(name, alert) for name, score in scores.items() for alert in score.outside]
    hours, outside_hours = sum(score.hours for score in records), sum(score.outside_hours for score in records)
    kinds = sorted(
        {episode.kind for score in records for episode in score.episodes} | {a.kind for s in records for a in s.alerts}
    )
    return {
        "hours": round(hours, 3),
        "kinds": {kind: _kind_figures(kind, records) for kind in kinds},
        "long": _long_figures(records),
        "poor": [
            _poor_episode(name, episode) for name, score in scores.items() for episode in score.episodes if _is_poor(episode)
        ],
        "high_per_day": _rate(len(outside), outside_hours / 24),
        "alerts_per_day": _per_day([alert.priority for score in records for alert in score.alerts], hours),
        "outside": {
            "hours": round(outside_hours, 3),
            "high": len(outside),
            "raised": sum(alert.raised for _, alert in outside),
            "high_per_hour": _rate(len(outside), outside_hours),
            "high_per_hour_95": _rate_interval(len(outside), outside_hours),
            "high_per_hour_upper_95": _rate(poisson_upper(len(outside)), outside_hours),
            "high_open_percent": percent(sum(score.high_outside_hours for score in records), outside_hours),
            "alerts": [
                {
                    "record": name,
                    "kind": alert.kind,
                    "priority": "high",
                    "onset_s": round(alert.onset_s, 2),
                    "raised_s": round(alert.raised_s, 2),
                    "raised": alert.raised,
                    "open_s": round(alert.open_s, 2),
                }
                for name, alert in outside
            ],
        },
    }


def _kind_figures(kind: str, records: Sequence[RecordScore]) -> dict[str, Any]:
    episodes = [episode for score in records for episode in score.episodes if episode.kind == kind]
    found = [episode.latency_s for episode in episodes if episode.latency_s is not None]
    alerts = [alert for score in records for alert in score.alerts if alert.kind == kind]
    verdicts = Counter(alert.verdict for alert in alerts)
    judged = verdicts["true"] + verdicts["false"]
    judged_hours = sum(score.judged_hours.get(kind, 0.0) for score in records)
    return {
        "episodes": len(episodes),
        "found": len(found),
        "named": sum(episode.named for episode in episodes),
        "se": percent(len(found), len(episodes)),
        "se_95": _wilson(len(found), len(episodes)),
        "latency_s": _latency(found),
        "covered": percent(sum(episode.covered_s for episode in episodes), sum(episode.counted_s for episode in episodes)),
        "alerts": len(alerts),
        "true": verdicts["true"],
        "false": verdicts["false"],
        "unjudged": verdicts["unjudged"],
        "ppv": percent(verdicts["true"], judged),
        "ppv_95": _wilson(verdicts["true"], judged),
        "judged_hours": round(judged_hours, 3),
        "false_per_patient_day": _per_day([alert.priority for alert in alerts if alert.verdict == "false"], judged_hours),
    }


def _long_figures(records: Sequence[RecordScore]) -> dict[str, Any]:
    """Returns the figures of dangerous rhythms that last 10 s or longer, by kind and over `all`."""
    figures = {}
    for name, kinds in ({kind: {kind} for kind in DANGEROUS} | {"all": set(DANGEROUS)}).items():
        episodes = [
            episode for score in records for episode in score.episodes if episode.kind in kinds and episode.seconds >= LONG_S
        ]
        counted_s = sum(episode.counted_s for episode in episodes)
        figures[name] = {
            "seconds": round(sum(episode.seconds for episode in episodes), 1),
            **_cover_figures([episode.high for episode in episodes], counted_s),
            "lasting": _cover_figures([episode.lasting for episode in episodes], counted_s),
        }
    return figures


def _is_poor(episode: EpisodeScore) -> bool:
    """Whether a long dangerous episode was missed, found late, or left uncovered for more than a tenth of its time."""
    is_long = episode.kind in DANGEROUS and episode.seconds >= LONG_S
    latency_s, covered_s = episode.lasting
    return is_long and (latency_s is None or latency_s > LONG_S or covered_s < WELL_COVERED * episode.counted_s)


def _poor_episode(name: str, episode: EpisodeScore) -> dict[str, Any]:
    return {
        "record": name,
        "kind": episode.kind,
        "start_s": round(episode.start_s, 2),
        "seconds": round(episode.seconds, 2),
        "latency_s": None if episode.lasting.latency_s is None else round(episode.lasting.latency_s, 2),
        "covered": percent(episode.lasting.covered_s, episode.counted_s),
        "open": percent(episode.high.covered_s, episode.counted_s),
    }


def _cover_figures(covers: Sequence[Cover], counted_s: float) -> dict[str, Any]:
    found = [cover.latency_s for cover in covers if cover.latency_s is not None]
    return {
        "episodes": len(covers),
        "found": len(found),
        "missed": len(covers) - len(found),
        "se": percent(len(found), len(covers)),
        "se_95": _wilson(len(found), len(covers)),
        "covered": percent(sum(cover.covered_s for cover in covers), counted_s),
        "latency_s": _latency(found),
    }


def _latency(found: Sequence[float]) -> dict[str, float | None]:
    """Returns median and 95th percentile, linearly interpolated, of the episodes that were found."""
    if not found:
        return {"median": None, "p95": None}
    median, p95 = np.percentile(found, (50, 95))
    return {"median": round(float(median), 2), "p95": round(float(p95), 2)}


def _per_day(priorities: Sequence[str], hours: float) -> dict[str, float | None]:
    counts = Counter(priorities)
    return {priority: _rate(counts[priority], hours / 24) for priority in reversed(RANKS)} | {
        "all": _rate(len(priorities), hours / 24)
    }


def _rate(count: float, time: float) -> float | None:
    return round(count / time, 3) if time else None


def _rate_interval(count: int, hours: float) -> list[float] | None:
    return [round(bound / hours, 3) for bound in poisson_interval(count)] if hours else None


def _wilson(count: int, total: int) -> list[float] | None:
    interval = wilson_interval(count, total)
    return interval and [round(100 * bound, 2) for bound in interval]
