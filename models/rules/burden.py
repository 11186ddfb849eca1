"""Computes the share of each day's observed time that was spent in atrial fibrillation, or with an irregular pulse."""

from collections.abc import Iterator, Mapping
from typing import Final

from config.limits import Limits
from models.findings import Finding

DAY_S = 86400.0
HOUR_S = 3600.0
BURDEN_KEYS: Final[Mapping[str, str]] = {"af_burden": "af_percent", "irregular_pulse_burden": "irregular_percent"}
"""The kinds of burden, each with the name of its share in `measured`. Without an ECG it is one of irregular pulse."""


class DailyBurden:
    """AF burden per day: time in AF as a share of the time in which the rhythm was known.

    Unobserved time (gaps, noise, a strap that was not worn) does not count; the finding states how many hours were observed.
    With less than the required observed time the finding is inconclusive, `too_short`.
    """

    def __init__(
        self,
        limits: Limits,
        day_zero_s: float = 0.0,
        state: Mapping[str, float] | None = None,
        kind: str = "af_burden",
    ) -> None:
        """Start empty, or resume from the `state` that an earlier object returned.

        Args:
            limits: the burden that raises an alert, and the minimum observed time.
            day_zero_s: a time at which a day begins, on the time scale of `add`.
            state: see `state`.
            kind: of the findings, a key of `BURDEN_KEYS`.
        """
        self._kind = kind
        self._limit = limits.af_burden.value
        self._min_observed_h = limits.af_burden_observed.value
        self._zero_s = day_zero_s
        self._day = int(state["day"]) if state else None
        self._af_s = state["af_s"] if state else 0.0
        self._observed_s = state["observed_s"] if state else 0.0

    def add(self, start_s: float, end_s: float, is_af: bool) -> Iterator[Finding]:
        """Add a stretch of known rhythm, in order and without overlap; yields the finding of each day that has ended."""
        while start_s < end_s:
            day = self._day_at(start_s)
            yield from self._start_day(day)
            until_s = min(end_s, self._day_start_s(day + 1))
            self._observed_s += until_s - start_s
            self._af_s += (until_s - start_s) * is_af
            start_s = until_s

    def add_total(self, at_s: float, af_s: float, observed_s: float) -> Iterator[Finding]:
        """Add a total of time in AF and observed time, as from `AfRule.take_burden`, all of it to the day of `at_s`."""
        if observed_s > 0.0:
            yield from self._start_day(self._day_at(at_s))
            self._af_s += af_s
            self._observed_s += observed_s

    def finish(self) -> Iterator[Finding]:
        """End the current day and yield its finding, from the time observed so far."""
        if self._day is not None and self._observed_s > 0.0:
            yield self._finding(self._day)
        self._day, self._af_s, self._observed_s = None, 0.0, 0.0

    def state(self) -> dict[str, float] | None:
        """Return what `DailyBurden(limits, zero, state)` needs to resume after a restart; None before the first addition."""
        return None if self._day is None else {"day": self._day, "af_s": self._af_s, "observed_s": self._observed_s}

    def _start_day(self, day: int) -> Iterator[Finding]:
        if day != self._day:
            yield from self.finish()
            self._day = day

    def _day_at(self, at_s: float) -> int:
        return int((at_s - self._zero_s) // DAY_S)

    def _day_start_s(self, day: int) -> float:
        return self._zero_s + day * DAY_S

    def _finding(self, day: int) -> Finding:
        measured = {
            BURDEN_KEYS[self._kind]: round(100.0 * self._af_s / self._observed_s, 2),
            "observed_h": round(self._observed_s / HOUR_S, 2),
            "limit_percent": self._limit,
        }
        enough = self._observed_s >= self._min_observed_h * HOUR_S
        reason = None if enough else "too_short"
        span = self._day_start_s(day), self._day_start_s(day + 1)
        return Finding(self._kind, *span, f"rule:{self._kind}", None, measured, inconclusive=reason)
