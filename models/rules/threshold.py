"""A measured number beyond its limit: one episode, however deep it gets, with hysteresis and persistence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from models.findings import Finding

CONTINUOUS_S: Final = 10.0
"""Values that come closer than this belong to a continuous sensor: no one measures by hand so often."""

STALE_S: Final = 86400.0
"""After a day without a value nobody can say that an episode went on: the next one begins another."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """What to watch: `limits` from the mildest to the most severe, `above` for values that are too high.

    `key` names the value in a finding's `measured`, `limit_key` the most severe limit that was passed. A value at the limit is
    beyond it where `inclusive`. Those of a continuous sensor must stay beyond for `persistence_s`; a single one counts at once.
    """

    kind: str
    key: str
    limit_key: str
    limits: Sequence[float]
    above: bool
    hysteresis: float
    persistence_s: float = 0.0
    inclusive: bool = True

    def beyond(self, value: float, limit: float) -> bool:
        """Whether a value passes a limit."""
        distance = value - limit if self.above else limit - value
        return distance > 0 or (self.inclusive and distance == 0)

    def within(self, value: float, limit: float) -> bool:
        """Whether a value is back, by more than the hysteresis."""
        return not self.beyond(value, limit - self.hysteresis if self.above else limit + self.hysteresis)


class Threshold:
    """Episodes of one criterion: told when the mildest limit is passed, again at each more severe one, and when it ends."""

    def __init__(self, criterion: Criterion) -> None:
        self._what = criterion
        self._since: list[float | None] = [None] * len(criterion.limits)
        self._level = 0
        self._onset_s = 0.0
        self._extreme = 0.0
        self._last_s: float | None = None

    def value(self, at_s: float, value: float, *, continuous: bool = False) -> Iterator[Finding]:
        """One plausible value; `continuous` if it comes from a sensor that measures by itself."""
        apart_s = None if self._last_s is None else at_s - self._last_s
        if self._last_s is not None and apart_s is not None and apart_s > STALE_S:
            yield from self._end(self._last_s)
        closely = apart_s is not None and abs(apart_s) <= CONTINUOUS_S
        set_back = apart_s is not None and apart_s < 0
        if set_back or (continuous and not closely):
            self._since[self._level :] = [None] * (len(self._since) - self._level)
        self._last_s = at_s
        if self._level and self._what.within(value, self._what.limits[0]):
            yield from self._end(at_s)
        self._take_in(at_s, value)
        wait_s = self._what.persistence_s if continuous or closely else 0.0
        level = sum(since is not None and at_s - since >= wait_s for since in self._since)
        if level > self._level:
            self._level = level
            yield self._finding(None)

    def _take_in(self, at_s: float, value: float) -> None:
        for i, limit in enumerate(self._what.limits):
            if self._what.within(value, limit):
                self._since[i] = None
            elif self._since[i] is None and self._what.beyond(value, limit):
                self._since[i] = at_s
                if i == 0:
                    self._onset_s, self._extreme = at_s, value
        if self._since[0] is not None:
            self._extreme = max(self._extreme, value) if self._what.above else min(self._extreme, value)

    def _end(self, at_s: float) -> Iterator[Finding]:
        if self._level:
            yield self._finding(at_s)
        self._level = 0
        self._since[:] = [None] * len(self._since)

    def _finding(self, end_s: float | None) -> Finding:
        what = self._what
        measured = {what.key: self._extreme, what.limit_key: what.limits[self._level - 1]}
        return Finding(what.kind, self._onset_s, end_s, f"rule:{what.kind}", None, measured)
