"""Detects when a measured value passes its limits, with hysteresis and persistence.

An episode stays the same episode if its value passes a more severe limit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from models.findings import Finding

MAX_CONTINUOUS_SPACING_S: Final = 10.0
"""Values closer together than this come from a continuous sensor: manual measurements are not so frequent."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """When a measured value is abnormal.

    Attributes:
        kind: of the findings.
        key: name of the value in a finding's `measured`.
        limit_key: name of the most severe limit that was passed, in `measured`.
        limits: from the mildest to the most severe.
        above: whether values above the limits are the abnormal ones; otherwise those below.
        hysteresis: how far a value must be back inside a limit to end its violation.
        persistence_s: how long the values of a continuous sensor must stay beyond a limit; a single value counts at once.
        inclusive: whether a value equal to the limit is beyond it.
    """

    kind: str
    key: str
    limit_key: str
    limits: Sequence[float]
    above: bool
    hysteresis: float
    persistence_s: float = 0.0
    inclusive: bool = True

    def is_beyond(self, value: float, limit: float) -> bool:
        """Return whether a value violates a limit."""
        distance = value - limit if self.above else limit - value
        return distance > 0 or (self.inclusive and distance == 0)

    def is_within(self, value: float, limit: float) -> bool:
        """Return whether a value is back inside a limit by more than the hysteresis."""
        return not self.is_beyond(value, limit - self.hysteresis if self.above else limit + self.hysteresis)


class ThresholdRule:
    """Reports the episodes of one criterion.

    A finding is yielded when the mildest limit is passed, again at each more severe one, and when the episode ends. It is also
    yielded when the value is worse than reported by the hysteresis or more.
    """

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion
        self._since: list[float | None] = [None] * len(criterion.limits)
        """For each limit, the time since which it has been violated."""
        self._level = 0
        """How many limits the episode has passed; 0 without an episode."""
        self._onset_s = 0.0
        self._extreme = self._reported = 0.0
        self._worse_since_s: float | None = None
        """Since when the value has been worse than reported by the hysteresis or more."""
        self._last_s: float | None = None

    @property
    def kind(self) -> str:
        """The kind of the findings."""
        return self._criterion.kind

    @property
    def is_within(self) -> bool:
        """Whether the last value violates no limit."""
        return self._since[0] is None

    def add_value(self, at_s: float, value: float, *, continuous: bool = False) -> Iterator[Finding]:
        """Process one plausible value; `continuous` if its sensor measures without being asked."""
        since_last_s = None if self._last_s is None else at_s - self._last_s
        close = since_last_s is not None and abs(since_last_s) <= MAX_CONTINUOUS_SPACING_S
        clock_set_back = since_last_s is not None and since_last_s < 0
        if clock_set_back or (continuous and not close):
            self._since[self._level :] = [None] * (len(self._since) - self._level)
            self._worse_since_s = None
        self._last_s = at_s
        if self._level and self._criterion.is_within(value, self._criterion.limits[0]):
            yield from self._end_episode(at_s)
        self._update_violations(at_s, value)
        wait_s = self._criterion.persistence_s if continuous or close else 0.0
        level = sum(since is not None and at_s - since >= wait_s for since in self._since)
        is_worse = self._is_worse(at_s, value, wait_s)
        if level > self._level or is_worse:
            self._level = max(level, self._level)
            yield self._finding(None)

    def forget(self) -> None:
        """Forget the episode, because it is not known any more whether it goes on."""
        self._level, self._last_s, self._worse_since_s = 0, None, None
        self._since[:] = [None] * len(self._since)

    def _update_violations(self, at_s: float, value: float) -> None:
        for i, limit in enumerate(self._criterion.limits):
            if self._criterion.is_within(value, limit):
                self._since[i] = None
            elif self._since[i] is None and self._criterion.is_beyond(value, limit):
                self._since[i] = at_s
                if i == 0:
                    self._onset_s, self._extreme = at_s, value
        if self._since[0] is not None:
            self._extreme = max(self._extreme, value) if self._criterion.above else min(self._extreme, value)

    def _is_worse(self, at_s: float, value: float, wait_s: float) -> bool:
        """Process the value; return whether it has been worse than reported for long enough."""
        step = self._criterion.hysteresis if self._criterion.above else -self._criterion.hysteresis
        if not self._level or not self._criterion.is_beyond(value, self._reported + step):
            self._worse_since_s = None
            return False
        self._worse_since_s = at_s if self._worse_since_s is None else self._worse_since_s
        return at_s - self._worse_since_s >= wait_s

    def _end_episode(self, at_s: float) -> Iterator[Finding]:
        if self._level:
            yield self._finding(at_s)
        self._level = 0
        self._since[:] = [None] * len(self._since)

    def _finding(self, end_s: float | None) -> Finding:
        criterion = self._criterion
        self._reported, self._worse_since_s = self._extreme, None
        measured = {criterion.key: self._extreme, criterion.limit_key: criterion.limits[self._level - 1]}
        return Finding(criterion.kind, self._onset_s, end_s, f"rule:{criterion.kind}", None, measured)
