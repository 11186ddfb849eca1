"""Arithmetic on spans of time: (start, end) in seconds."""

from collections.abc import Iterable, Sequence

Span = tuple[float, float]


def merge_spans(spans: Iterable[Span], margin_s: float = 0.0) -> list[Span]:
    """Returns the spans, each extended by a margin on both sides, in order and without overlap."""
    merged: list[Span] = []
    for start_s, end_s in sorted((start - margin_s, end + margin_s) for start, end in spans):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end_s))
        else:
            merged.append((start_s, end_s))
    return merged


def intersect_spans(first: Sequence[Span], second: Sequence[Span]) -> list[Span]:
    """Returns the time that lies in both, each given in order and without overlap."""
    both = [(max(a[0], b[0]), min(a[1], b[1])) for a in first for b in second]
    return [(start_s, end_s) for start_s, end_s in both if start_s < end_s]


def complement_spans(spans: Iterable[Span], duration_s: float) -> list[Span]:
    """Returns the time from 0 to `duration_s` that lies in none of the spans."""
    rest: list[Span] = []
    at_s = 0.0
    for start_s, end_s in merge_spans(spans):
        if start_s > at_s:
            rest.append((at_s, min(start_s, duration_s)))
        at_s = max(at_s, end_s)
        if at_s >= duration_s:
            return [span for span in rest if span[0] < span[1]]
    return [*rest, (at_s, duration_s)]


def total_s(spans: Iterable[Span]) -> float:
    """Returns the length of spans that do not overlap."""
    return sum(end_s - start_s for start_s, end_s in spans)


def touches(span: Span, spans: Iterable[Span]) -> bool:
    """Whether a span, which may be a single moment, shares a moment with one of the others."""
    return any(span[0] <= end_s and start_s <= span[1] for start_s, end_s in spans)
