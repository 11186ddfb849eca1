"""How much of a day's observed time was spent in atrial fibrillation."""

from collections.abc import Iterator, Mapping

from config.limits import Limits
from models.findings import Finding

DAY_S = 86400.0
HOUR_S = 3600.0


class DailyBurden:
    """AF burden per day: time in AF as a share of the time in which the rhythm could be told.

    Time that was not observed (gaps, noise, a strap that lay on the table) counts for neither: the finding says how many hours
    were. With less than the least observed time it is inconclusive, `too_short`.
    """

    def __init__(self, limits: Limits, day_zero_s: float = 0.0, state: Mapping[str, float] | None = None) -> None:
        """`day_zero_s` is a moment at which a day begins, by the clock of `add`; `state` is what an earlier one said last."""
        self._limit = limits.af_burden.value
        self._least_h = limits.af_burden_observed.value
        self._zero_s = day_zero_s
        self._day = int(state["day"]) if state else None
        self._af_s = state["af_s"] if state else 0.0
        self._observed_s = state["observed_s"] if state else 0.0

    def add(self, start_s: float, end_s: float, is_af: bool) -> Iterator[Finding]:
        """The rhythm was known between two times, in order and without overlap; a day that is over is told."""
        while start_s < end_s:
            day = self._day_of(start_s)
            yield from self._turn_to(day)
            until_s = min(end_s, self._begins_s(day + 1))
            self._observed_s += until_s - start_s
            self._af_s += (until_s - start_s) * is_af
            start_s = until_s

    def put(self, at_s: float, af_s: float, observed_s: float) -> Iterator[Finding]:
        """So much time in AF of so much observed, all of it counted to the day of `at_s`: what `AfRule.take_burden` gives."""
        if observed_s > 0.0:
            yield from self._turn_to(self._day_of(at_s))
            self._af_s += af_s
            self._observed_s += observed_s

    def finish(self) -> Iterator[Finding]:
        """What is known of the day that has begun."""
        if self._day is not None and self._observed_s > 0.0:
            yield self._finding(self._day)
        self._day, self._af_s, self._observed_s = None, 0.0, 0.0

    def state(self) -> dict[str, float] | None:
        """What `DailyBurden(limits, zero, state)` goes on from after a restart; None before the first addition."""
        return None if self._day is None else {"day": self._day, "af_s": self._af_s, "observed_s": self._observed_s}

    def _turn_to(self, day: int) -> Iterator[Finding]:
        if day != self._day:
            yield from self.finish()
            self._day = day

    def _day_of(self, at_s: float) -> int:
        return int((at_s - self._zero_s) // DAY_S)

    def _begins_s(self, day: int) -> float:
        return self._zero_s + day * DAY_S

    def _finding(self, day: int) -> Finding:
        measured = {
            "af_percent": round(100.0 * self._af_s / self._observed_s, 2),
            "observed_h": round(self._observed_s / HOUR_S, 2),
            "limit_percent": self._limit,
        }
        enough = self._observed_s >= self._least_h * HOUR_S
        why = None if enough else "too_short"
        span = self._begins_s(day), self._begins_s(day + 1)
        return Finding("af_burden", *span, "rule:af_burden", None, measured, inconclusive=why)
