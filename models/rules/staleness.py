"""Ends episodes of measured values of which no newer value has come: whether they go on is then not known."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from config.limits import Limits
from models.findings import STALE_REASON, Finding

DAY_S: Final = 86400.0
MEAN_KINDS: Final = frozenset({"bp_trend", "bp_rise"})
"""Episodes of a mean: they are stale when no reading is left in it."""


class EpisodeWatch:
    """Follows the open episodes of one kind of value, whose rules must be reset when they become stale.

    A stale episode is reported as lost, with its end at the last value. The next value tells more: the rules report a new
    episode if it is abnormal, otherwise the lost one is reported as recovered.
    """

    def __init__(self, limits: Limits, lost: Iterable[Finding] = ()) -> None:
        """`lost` are the findings of episodes that were open when the agent stopped."""
        self._continuous_s = limits.stale_continuous.value
        self._on_demand_s = limits.stale_on_demand.value
        self._mean_s = limits.home_days.value * DAY_S
        self._open: dict[str, Finding] = {}
        self._lost = {finding.kind: finding for finding in lost}
        self._last_s: float | None = None
        self._is_continuous = False

    @property
    def waits(self) -> bool:
        """Whether the passing of time can change anything."""
        return bool(self._open)

    def findings(self) -> tuple[Finding, ...]:
        """Return the findings of the episodes that are open or lost."""
        return (*self._open.values(), *self._lost.values())

    def advance_to(self, now_s: float) -> Iterator[Finding]:
        """Report as lost each open episode that is stale at `now_s`."""
        for kind, finding in list(self._open.items()):
            if self._last_s is not None and now_s - self._last_s > self._stale_after_s(kind):
                self._lost[kind] = self._open.pop(kind)
                yield replace(finding, end_s=max(self._last_s, finding.onset_s), lost=True, reasons=(STALE_REASON,))

    def follow(self, findings: Iterable[Finding], at_s: float, *, continuous: bool) -> Iterator[Finding]:
        """Pass on the findings of a value measured at `at_s`; `continuous` if its sensor measures without being asked."""
        self._last_s, self._is_continuous = at_s, continuous
        for finding in findings:
            if finding.inconclusive is None and finding.end_s is None:
                self._open[finding.kind] = finding
                self._lost.pop(finding.kind, None)
            elif finding.inconclusive is None:
                self._open.pop(finding.kind, None)
            yield finding

    def recover(self, kinds: Iterable[str], at_s: float) -> Iterator[Finding]:
        """Report the lost episodes of these kinds as recovered: the value measured at `at_s` began none."""
        for kind in kinds:
            lost = self._lost.pop(kind, None)
            if lost is not None:
                yield replace(lost, end_s=max(at_s, lost.onset_s), recovered=True)

    def _stale_after_s(self, kind: str) -> float:
        if kind in MEAN_KINDS:
            return self._mean_s
        return self._continuous_s if self._is_continuous else self._on_demand_s


def to_state(findings: Sequence[Finding]) -> list[list[Any]]:
    """Return what `from_state` restores the findings of lost episodes from, ready for JSON."""
    return [[finding.kind, finding.onset_s, finding.source, dict(finding.measured)] for finding in findings]


def from_state(saved: Iterable[Sequence[Any]]) -> list[Finding]:
    """Restore the findings of lost episodes."""
    return [Finding(kind, onset_s, None, source, None, measured) for kind, onset_s, source, measured in saved]
