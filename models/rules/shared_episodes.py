"""Makes one episode of what both the rules on beats and the ventricular monitor see.

The rules need detected beats and stop at the first that do not fit; the monitor needs seconds, and names rhythms only roughly.
An episode begins with whoever sees it first, keeps that onset, and ends when neither sees it any more. A standstill ends when
the rules have seen beats again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from models.findings import Finding

TACHYCARDIA: Final = "vt"
STANDSTILL: Final = "standstill"
GROUPS: Final[Mapping[str, str]] = {"vt": TACHYCARDIA, "pause": STANDSTILL, "asystole": STANDSTILL, "no_beats": STANDSTILL}
"""Kinds that both see. Kinds of one group name the same episode."""

FIBRILLATION: Final = "vf"
CHANCE: Final = frozenset({"bradycardia", "short_pause", "v_run", "bigeminy", "trigeminy"})
"""In fibrillation any beat is chance: no other dangerous rhythm begins while it lasts, and none of these kinds. Those
that are open end."""

WORSE: Final[Mapping[str, int]] = {"no_beats": 0, "pause": 1, "asystole": 2}
"""Kinds of a standstill, the mildest first."""


AGREEMENT_S: Final = 15.0
"""The monitor ends an episode after ten organised windows of four seconds. If the rules saw the end at most this long before,
theirs is the exact one. A tachycardia is known 10 s after its onset, and that it is a fibrillation after five windows more: one
that began at most this long before a fibrillation was it."""

RULE: Final = "rule:"
"""Sources of the rules on beats begin so."""


@dataclass(slots=True)
class _Shared:
    """The episode of one group.

    Attributes:
        reported: the finding that was last reported; None while there is no episode.
        seen_by: the episodes of the rules (True) and of the monitor (False) that are open.
        left_s: when the first of both stopped to see it.
    """

    reported: Finding | None = None
    seen_by: dict[bool, tuple[str, float]] = field(default_factory=dict)
    left_s: float = -inf


class SharedEpisodes:
    """Joins the findings of one ECG stream."""

    def __init__(self) -> None:
        self._groups = {group: _Shared() for group in GROUPS.values()}
        self._is_fibrillating = False
        self._fibrillation_s = 0.0
        """The onset of the latest fibrillation."""
        self._hidden = set[tuple[str, float]]()
        """Episodes that are not reported: they began in fibrillation, or the rules know better."""
        self._open: dict[tuple[str, float], Finding] = {}
        """The open episodes of the kinds that are `CHANCE` in fibrillation."""

    def filter_finding(self, finding: Finding, *, knows_beats: bool = True) -> Iterator[Finding]:
        """Yield the finding as part of the shared episode; nothing if the episode goes on as it was reported.

        `knows_beats`: this patient had beats within the last hour. Without, a standstill is left to the rules, for which it is
        not an `asystole` then.
        """
        if finding.kind == FIBRILLATION:
            yield from self._on_fibrillation(finding)
            return
        if finding.kind in CHANCE:
            yield from self._filter_chance(finding)
            return
        if finding.kind not in GROUPS or finding.inconclusive:
            yield finding
            return
        group = GROUPS[finding.kind]
        is_rule = finding.source.startswith(RULE)
        if finding.end_s is None:
            if is_rule or knows_beats or group != STANDSTILL:
                yield from self._on_ongoing(self._groups[group], finding, is_rule)
            else:
                self._hidden.add(finding.episode)
        else:
            yield from self._on_end(self._groups[group], finding, is_rule)

    def _on_fibrillation(self, finding: Finding) -> Iterator[Finding]:
        """End what chance beats were taken for when a fibrillation begins, and the tachycardia that turned into it.

        A tachycardia that began with it was the fibrillation: that episode goes on under the other kind.
        """
        begins = finding.end_s is None and not self._is_fibrillating
        self._is_fibrillating = finding.end_s is None
        tachycardia = self._groups[TACHYCARDIA].reported if begins else None
        if begins:
            self._fibrillation_s = finding.onset_s
            if tachycardia and finding.onset_s - tachycardia.onset_s <= AGREEMENT_S:
                self._fibrillation_s, tachycardia = tachycardia.onset_s, None
        yield replace(finding, onset_s=self._fibrillation_s)
        if not begins:
            return
        ended = [*self._open.values(), *([tachycardia] if tachycardia else [])]
        self._hidden.update(self._open, self._groups[TACHYCARDIA].seen_by.values())
        self._open.clear()
        self._groups[TACHYCARDIA] = _Shared()
        for each in ended:
            yield replace(each, end_s=max(finding.onset_s, each.onset_s))

    def _filter_chance(self, finding: Finding) -> Iterator[Finding]:
        """Yield the finding unless its episode began in fibrillation, or was open when that began."""
        is_hidden = finding.episode in self._hidden or (self._is_fibrillating and finding.episode not in self._open)
        if finding.end_s is None:
            if is_hidden:
                self._hidden.add(finding.episode)
            else:
                self._open[finding.episode] = finding
        else:
            self._hidden.discard(finding.episode)
            self._open.pop(finding.episode, None)
        if not is_hidden:
            yield finding

    def _on_ongoing(self, shared: _Shared, finding: Finding, is_rule: bool) -> Iterator[Finding]:
        if shared.reported is None and self._is_fibrillating:
            self._hidden.add(finding.episode)
            return
        self._hidden.discard(finding.episode)
        shared.seen_by[is_rule] = finding.episode
        shared.left_s = -inf
        if shared.reported is not None:
            if is_rule != shared.reported.source.startswith(RULE) and not _is_worse(finding, shared.reported):
                return
            finding = replace(finding, onset_s=shared.reported.onset_s)
        shared.reported = finding
        yield finding

    def _on_end(self, shared: _Shared, finding: Finding, is_rule: bool) -> Iterator[Finding]:
        if finding.episode in self._hidden:
            self._hidden.discard(finding.episode)
            return
        assert finding.end_s is not None
        shared.seen_by.pop(is_rule, None)
        if is_rule and GROUPS[finding.kind] == STANDSTILL and not finding.lost:
            self._hidden.update(shared.seen_by.values())
            shared.seen_by.clear()
        if shared.reported is None:
            yield finding
        elif shared.seen_by:
            shared.left_s = finding.end_s
        else:
            reported, left_s = shared.reported, shared.left_s
            shared.reported, shared.left_s = None, -inf
            end_s = left_s if finding.end_s - AGREEMENT_S <= left_s <= finding.end_s else finding.end_s
            yield replace(finding, kind=reported.kind, onset_s=reported.onset_s, end_s=end_s)


def _is_worse(finding: Finding, reported: Finding) -> bool:
    """Return whether a finding of the other side makes the reported one worse: an asystole after a pause."""
    return WORSE.get(finding.kind, 0) > WORSE.get(reported.kind, 0)
