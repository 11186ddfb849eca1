"""Cuts the ECG strips of alerts, so that they show the decision: the signal before the onset, the episode, and its end.

The first strip of an episode shows its onset, or, if that is no longer kept, what the alert was raised for. When the episode
ends, its strip is drawn again: all of the episode, or its last ten seconds if it was long. A strip of its worst part is cut
when a finding says that it became worse.
"""

from typing import Final

from gateway.alerts import ToUtcUs
from gateway.strip_history import SCALE_MV, StripHistory
from models.findings import Finding
from models.signal.resample import RATE_HZ
from sync.records import Strip

BEFORE_S: Final = 10.0
"""Signal before the onset: one row of an ECG page at 25 mm/s, to compare with."""
AFTER_S: Final = 3.0
"""Signal after the end: three beats at 60/min."""
PART_S: Final = 10.0
"""Signal of the worst and of the last part of a long episode."""
LONGEST_S: Final = 30.0
"""The longest strip: three rows of an ECG page, some 4 kB."""
FIRST, WORST, LAST = "first", "worst", "last"
WORSE_KINDS: Final = frozenset({"pause", "asystole", "no_beats", "vt", "v_run", "tachycardia", "bradycardia"})
"""Kinds of which a later finding of an ongoing episode says that it became worse."""


def cut_strip(finding: Finding, to_utc_us: ToUtcUs, history: StripHistory, *, is_first: bool) -> Strip | None:
    """Return the strip of a finding, at most `LONGEST_S` of what is kept.

    None if no signal of it is left, or if a later finding of an ongoing episode says something else than that it became worse.

    Args:
        finding: in stream seconds of `history`.
        to_utc_us: converts them.
        history: keeps the signal and its beats.
        is_first: whether this is the first finding of its episode.
    """
    now_s = history.end_s
    if not is_first and finding.end_s is None and finding.kind not in WORSE_KINDS:
        return None
    from_s, until_s, part = _choose_span(finding, history.start_s, now_s, is_first=is_first)
    mark_s = finding.onset_s, now_s if finding.end_s is None else finding.end_s
    return _cut(from_s, until_s, part, mark_s, to_utc_us, history)


def cut_latest_strip(to_utc_us: ToUtcUs, history: StripHistory) -> Strip | None:
    """Return the strip of an alert that time alone raises, because its episode goes on: the latest signal, without a mark."""
    now_s = history.end_s
    return _cut(now_s - LONGEST_S, now_s, FIRST, (now_s, now_s), to_utc_us, history)


def _cut(
    from_s: float,
    until_s: float,
    part: str | None,
    mark_s: tuple[float, float],
    to_utc_us: ToUtcUs,
    history: StripHistory,
) -> Strip | None:
    start_s, samples = history.signal(from_s, until_s)
    if not samples.size:
        return None
    end_s = start_s + samples.size / RATE_HZ
    shown = history.beats(start_s, end_s)
    mark_from_s, mark_to_s = max(mark_s[0], start_s), min(mark_s[1], end_s)
    has_mark = mark_from_s < mark_to_s
    return Strip(
        to_utc_us(start_s),
        RATE_HZ,
        SCALE_MV,
        samples,
        tuple(to_utc_us(t_s) for t_s, _ in shown),
        "".join(label for _, label in shown),
        part,
        to_utc_us(mark_from_s) if has_mark else None,
        to_utc_us(mark_to_s) if has_mark else None,
    )


def _choose_span(finding: Finding, kept_s: float, now_s: float, *, is_first: bool) -> tuple[float, float, str | None]:
    """Return the start and the end of the strip, and which part of the episode it shows; signal is kept since `kept_s`."""
    begin_s = finding.onset_s - BEFORE_S
    if finding.end_s is not None:
        until_s = min(finding.end_s + AFTER_S, now_s)
        return (begin_s, until_s, None) if until_s - begin_s <= LONGEST_S else (finding.end_s - PART_S, until_s, LAST)
    if not is_first:
        return now_s - PART_S, now_s, WORST
    if kept_s <= finding.onset_s:
        return begin_s, min(begin_s + LONGEST_S, now_s), FIRST
    return now_s - LONGEST_S, now_s, FIRST
