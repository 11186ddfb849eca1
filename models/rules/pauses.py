"""Pauses: no beat for the limit, in a signal that could have shown one.

A pause is one episode with one alert. It is `pause` from the moment its limit (3 s) is reached without a beat; where a beat
ends it earlier, but not before the lower limit (2 s), it is told then, as `short_pause`, never as both. Every decision is made
at the time of a beat or at a fixed time after one, so it does not matter when the signal is looked at.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from config.limits import Limits
from models.findings import Finding
from models.signal.filters import median_of

SEEN_AGAIN_S: Final = 1.0
"""How often a pause that goes on is looked at: a signal flat for so long is a loose electrode (`chain.FLAT_S`)."""

USUAL_BEATS: Final = 5
STANDS_OUT: Final = 1.25
"""A short pause is so many times the median of the five intervals before it: beats at 29/min that breathing makes come a little
sooner and later are a bradycardia."""


class Signal(Protocol):
    """The ECG in which beats were looked for: `models.signal.chain.EcgChain`."""

    def usable(self, start_s: float, end_s: float) -> bool:
        """Whether the signal is there between two times, and never flat."""
        ...

    def quiet(self, start_s: float, end_s: float, bumps: int = 1) -> bool:
        """Whether it could have shown beats and shows at most `bumps` of what could be one."""
        ...


class PauseRule:
    """Pauses and short pauses of one lead."""

    def __init__(self, limits: Limits) -> None:
        self._limit_s = limits.pause.value
        self._short_s = limits.short_pause.value
        self._intervals = deque[float](maxlen=USUAL_BEATS)
        self._last_beat_s: float | None = None
        self._seen_s: float | None = None

    def until(self, t_s: float, signal: Signal) -> Iterator[Finding]:
        """No beat since the last one and before `t_s`, up to which every beat is known."""
        while self._last_beat_s is not None:
            due_s = self._last_beat_s + self._limit_s if self._seen_s is None else self._seen_s + SEEN_AGAIN_S
            if t_s < due_s:
                return
            if self._seen_s is None:
                if not signal.quiet(self._last_beat_s, due_s):
                    self._forget()
                    return
                self._seen_s = due_s
                yield self._finding("pause", None, due_s)
            elif signal.usable(max(self._last_beat_s, due_s - 2 * SEEN_AGAIN_S), due_s):
                self._seen_s = due_s
            else:
                yield from self.gap(self._seen_s)

    def beat(self, t_s: float, signal: Signal) -> Iterator[Finding]:
        """One beat; ends a pause."""
        yield from self.until(t_s, signal)
        if self._last_beat_s is not None:
            if self._seen_s is not None:
                yield self._finding("pause", t_s, t_s)
            elif self._short(t_s - self._last_beat_s) and signal.quiet(self._last_beat_s, t_s, 0):
                yield self._finding("short_pause", t_s, t_s)
            self._intervals.append(t_s - self._last_beat_s)
        self._last_beat_s, self._seen_s = t_s, None

    def gap(self, t_s: float) -> Iterator[Finding]:
        """No usable signal from `t_s` on: an interval across it would be no pause."""
        if self._last_beat_s is not None and self._seen_s is not None:
            yield self._finding("pause", t_s, t_s)
        self._forget()

    def _forget(self) -> None:
        self._last_beat_s = self._seen_s = None

    def _short(self, interval_s: float) -> bool:
        usual_s = median_of(self._intervals) if self._intervals else interval_s
        return interval_s >= self._short_s and interval_s >= STANDS_OUT * usual_s

    def _finding(self, kind: str, end_s: float | None, seen_until_s: float) -> Finding:
        assert self._last_beat_s is not None
        limit_s = self._limit_s if kind == "pause" else self._short_s
        measured = {"pause_s": round(float(seen_until_s - self._last_beat_s), 2), "limit_s": limit_s}
        return Finding(kind, self._last_beat_s, end_s, f"rule:{kind}", None, measured)
