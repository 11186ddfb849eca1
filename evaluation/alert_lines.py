"""The alerts of one recording as the live agent would have raised them, and from when to when each was open."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from evaluation.spans import Span, merge_spans

RANKS: Final = {"low": 0, "medium": 1, "high": 2}

DELAY_S: Final = 10.0
"""An alert about several episodes states the onset of the first. Each later one began at most so long before its report."""


SAME_S: Final = 0.01
"""Ends of episodes that differ by less are the same: times are stated to a millisecond."""


class AlertLine(NamedTuple):
    """One message about an alert: raised, changed or ended. Times are seconds from the start of the recording.

    Attributes:
        end_s: None while the alert is open.
        decided_s: the arrival of the samples that decided it.
        latest_s: the end of the latest episode of an alert that is open and waits for the next; None while an episode lasts, or
            its signal is lost.
        raised_s: when the alert was last raised: at first, or because it became worse.
    """

    id: str
    kind: str
    priority: str
    onset_s: float
    end_s: float | None
    decided_s: float
    latest_s: float | None = None
    raised_s: float | None = None


class OpenSpan(NamedTuple):
    """A stretch of time in which an alert was open with one kind and priority.

    `lasts` is False while it waits for its next episode. A stretch of no length is an episode that had ended when it was
    reported.
    """

    kind: str
    priority: str
    start_s: float
    end_s: float
    lasts: bool = True


@dataclass(frozen=True, slots=True)
class RaisedAlert:
    """One alert with all its messages.

    Attributes:
        kind: the last one.
        priority: the highest one.
        onset_s: the onset that it states.
        opened: when it was open, by kind, priority and whether an episode lasted, in order.
        extents: the stretches of signal that it is about, from the onset to the end of its episodes.
        high_raised_s: when it was raised with high priority, at first and again.
    """

    kind: str
    priority: str
    onset_s: float
    opened: tuple[OpenSpan, ...]
    extents: tuple[Span, ...]
    high_raised_s: tuple[float, ...]

    @property
    def raised_s(self) -> float:
        """When it was first raised."""
        return self.opened[0].start_s


def trace_alerts(lines: Iterable[AlertLine], duration_s: float) -> list[RaisedAlert]:
    """Returns the alerts of a recording of this duration in the order in which they were raised.

    An alert is open from the decision to raise it to the end that it states, never before the decision. An alert that is
    raised again after its end has two such stretches; one that never ends is open to the end of the recording.
    """
    by_id: dict[str, list[AlertLine]] = {}
    for line in lines:
        by_id.setdefault(line.id, []).append(line)
    return sorted((_trace_alert(group, duration_s) for group in by_id.values()), key=lambda alert: alert.raised_s)


def _trace_alert(lines: Sequence[AlertLine], duration_s: float) -> RaisedAlert:
    opened: list[OpenSpan] = []
    current: AlertLine | None = None
    start_s = 0.0
    for line in lines:
        over_s = line.latest_s if line.end_s is None else line.end_s
        if current:
            opened.append(_span(current, start_s, line.decided_s if over_s is None or current.latest_s is not None else over_s))
        if over_s is not None and _reports_new(current, line, over_s):
            opened.append(OpenSpan(line.kind, line.priority, line.decided_s, max(over_s, line.decided_s)))
        start_s = (
            opened[-1].end_s if current and (current.kind, current.priority) == (line.kind, line.priority) else line.decided_s
        )
        current = line if line.end_s is None else None
    if current:
        opened.append(_span(current, start_s, duration_s))
    joined = _join_equal(opened)
    return RaisedAlert(
        lines[-1].kind,
        max((line.priority for line in lines), key=RANKS.__getitem__),
        lines[0].onset_s,
        tuple(joined),
        tuple(_extents(lines[0].onset_s, joined)),
        tuple(dict.fromkeys(line.raised_s or line.decided_s for line in lines if line.priority == "high")),
    )


def _reports_new(current: AlertLine | None, line: AlertLine, over_s: float) -> bool:
    """Whether a line about an episode that is over is the first one about it, or about its kind and priority."""
    if current is None or (current.kind, current.priority) != (line.kind, line.priority):
        return True
    return current.latest_s is not None and over_s > current.latest_s + SAME_S


def _span(line: AlertLine, start_s: float, until_s: float) -> OpenSpan:
    return OpenSpan(line.kind, line.priority, start_s, max(until_s, start_s), line.latest_s is None)


def _join_equal(opened: Iterable[OpenSpan]) -> list[OpenSpan]:
    """Join stretches that follow each other and differ in nothing."""
    joined: list[OpenSpan] = []
    for span in opened:
        before = joined[-1] if joined else None
        if before and before._replace(start_s=0, end_s=0) == span._replace(start_s=0, end_s=0) and before.end_s >= span.start_s:
            joined[-1] = before._replace(end_s=max(span.end_s, before.end_s))
        else:
            joined.append(span)
    return joined


def _extents(onset_s: float, opened: Sequence[OpenSpan]) -> list[Span]:
    lasting = [(span.start_s, span.end_s) for span in opened if span.lasts]
    stretches = merge_spans(lasting)
    (first_s, first_end_s), *later = stretches
    return merge_spans([(min(onset_s, first_s), first_end_s), *((start_s - DELAY_S, end_s) for start_s, end_s in later)])
