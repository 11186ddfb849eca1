"""How much of a sensor's ECG was judged, and why the rest was not: what a count of beats or episodes must be read beside.

The hub sends the beats of every stretch of ECG that it analysed, also under an upload policy that sends no waveform, and an
inconclusive finding of every stretch that it could not judge.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Engine, and_, select
from sqlalchemy.engine import Connection

from cloud import tables
from cloud.api.numbers import Json
from cloud.api.queries import is_of
from cloud.changes import SensorKey
from cloud.scope import Scope
from cloud.validate import MAX_WAVEFORM_US
from sync.packing import unpack_integers
from sync.records import BEAT_CLASSES

MAX_SPAN_US: Final = 86_400_000_000
"""The longest span of one answer: a day, for which a hub sends 8,640 stretches."""
MAX_EPISODE_US: Final = 7 * 86_400_000_000
"""A finding that began earlier is not looked for."""
JUDGING_KINDS: Final = ("ecg_quality", "rhythm")
"""Kinds of findings that, if inconclusive, say that a stretch was not judged."""
PRECEDENCE: Final = ("lead_off", "gaps", "noise")
"""A time with several reasons counts for the first of these, otherwise for the first by name."""

Span = tuple[int, int]


def read_judged(engine: Engine, scope: Scope, key: SensorKey, from_us: int, to_us: int) -> Json:
    """Return how much ECG was received and judged from `from_us` to `to_us`, at most a day, and the beats by class.

    `analysed_us` is the length of the signal in which beats were looked for. `not_judged_us` has the part of it whose rhythm
    could not be judged, by reason; each moment counts once. `beats` counts the beats by their label.
    """
    to_us = min(to_us, from_us + MAX_SPAN_US)
    with engine.connect() as connection:
        analysed, beats = _read_stretches(connection, scope, key, from_us, to_us)
        reasons = _read_reasons(connection, scope, key, from_us, to_us)
    left, not_judged = analysed, dict[str, int]()
    for reason in sorted(reasons, key=lambda name: (PRECEDENCE.index(name) if name in PRECEDENCE else len(PRECEDENCE), name)):
        common = _intersect(left, _merge(reasons[reason]))
        not_judged[reason] = _length(common)
        left = _subtract(left, common)
    told = {reason: length_us for reason, length_us in not_judged.items() if length_us}
    return {"from_us": from_us, "to_us": to_us, "analysed_us": _length(analysed), "not_judged_us": told, "beats": dict(beats)}


def _read_stretches(
    connection: Connection, scope: Scope, key: SensorKey, from_us: int, to_us: int
) -> tuple[list[Span], Counter[str]]:
    beats = tables.beats.c
    overlaps = and_(beats.from_us > from_us - MAX_WAVEFORM_US, beats.from_us < to_us, beats.to_us > from_us)
    query = select(beats.from_us, beats.to_us, beats.beats_ms, beats.classes).where(is_of(scope, tables.beats, key), overlaps)
    spans, counts = list[Span](), Counter[str]()
    # A version before this one may have stored a stretch twice.
    stretches = {(row.from_us, row.to_us): row for row in connection.execute(query)}
    for row in stretches.values():
        spans.append((max(row.from_us, from_us), min(row.to_us, to_us)))
        times_ms, classes = (unpack_integers(packed, len(packed) * 8) for packed in (row.beats_ms, row.classes))
        for time_ms, number in zip(times_ms.tolist(), classes.tolist(), strict=True):
            if from_us <= time_ms * 1000 < to_us:
                counts[BEAT_CLASSES[number] if 0 <= number < len(BEAT_CLASSES) else "?"] += 1
    return _merge(spans), counts


def _read_reasons(connection: Connection, scope: Scope, key: SensorKey, from_us: int, to_us: int) -> dict[str, list[Span]]:
    """Return the spans that were inconclusive for each reason; an episode that has not ended lasts."""
    findings = tables.findings.c
    recent = and_(findings.onset_us > from_us - MAX_EPISODE_US, findings.onset_us < to_us)
    told = and_(findings.kind.in_(JUDGING_KINDS), findings.inconclusive.is_not(None))
    query = select(findings.kind, findings.onset_us, findings.end_us, findings.inconclusive)
    episodes: dict[tuple[str, int], tuple[str, int]] = {}
    for row in connection.execute(query.where(is_of(scope, tables.findings, key), recent, told).order_by(findings.id)):
        episodes[row.kind, row.onset_us] = row.inconclusive, to_us if row.end_us is None else row.end_us
    reasons: dict[str, list[Span]] = {}
    for (_, onset_us), (reason, end_us) in episodes.items():
        reasons.setdefault(reason, []).append((max(onset_us, from_us), min(end_us, to_us)))
    return reasons


def _merge(spans: Iterable[Span]) -> list[Span]:
    """Return the union of spans, in order and apart from each other."""
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def _intersect(first: list[Span], second: list[Span]) -> list[Span]:
    return _merge((max(a, c), min(b, d)) for a, b in first for c, d in second)


def _subtract(spans: list[Span], removed: list[Span]) -> list[Span]:
    """Return the parts of `spans` outside of `removed`; both are merged."""
    for start, end in removed:
        spans = [part for a, b in spans for part in ((a, min(b, start)), (max(a, end), b)) if part[1] > part[0]]
    return spans


def _length(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)
