"""Detects pauses: no beat for the limit, in a signal that could have shown one.

A pause is one episode with one alert. It is a `pause` from the moment its limit (3 s) passes without a beat. If a beat ends it
earlier, but after the lower limit (2 s), it is reported at that beat as a `short_pause`; it is never reported as both. Every
decision is made at a beat or at a fixed time after one, so the result does not depend on when the rule is called.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from config.limits import Limits
from models.findings import Finding
from models.signal.filters import median_of

RECHECK_S: Final = 1.0
"""How often the signal is checked during a pause: a signal that is flat for so long is a loose electrode (`chain.FLAT_S`)."""

MEDIAN_INTERVALS: Final = 5
MIN_PAUSE_RATIO: Final = 1.25
"""A short pause lasts at least this many times the median of the five intervals before it. Beats at 29/min that vary a little
with breathing are a bradycardia."""


class Signal(Protocol):
    """The ECG in which beats were detected: `models.signal.chain.EcgChain`."""

    def is_usable(self, start_s: float, end_s: float) -> bool:
        """Return whether the signal between two times was received and is never flat."""
        ...

    def is_beat_free(self, start_s: float, end_s: float, max_peaks: int = 1) -> bool:
        """Return whether the signal could have shown beats and shows at most `max_peaks` peaks that could be one."""
        ...


class PauseRule:
    """Detects pauses and short pauses of one lead."""

    def __init__(self, limits: Limits) -> None:
        self._limit_s = limits.pause.value
        self._short_s = limits.short_pause.value
        self._intervals = deque[float](maxlen=MEDIAN_INTERVALS)
        self._last_beat_s: float | None = None
        self._checked_s: float | None = None
        """Up to when the pause has been confirmed; None where no pause has been raised."""

    def advance_to(self, t_s: float, signal: Signal) -> Iterator[Finding]:
        """Process the time up to `t_s`, before which no further beat will be reported."""
        while self._last_beat_s is not None:
            due_s = self._last_beat_s + self._limit_s if self._checked_s is None else self._checked_s + RECHECK_S
            if t_s < due_s:
                return
            if self._checked_s is None:
                if not signal.is_beat_free(self._last_beat_s, due_s):
                    self._reset()
                    return
                self._checked_s = due_s
                yield self._finding("pause", None, due_s)
            elif signal.is_usable(max(self._last_beat_s, due_s - 2 * RECHECK_S), due_s):
                self._checked_s = due_s
            else:
                yield from self.on_gap(self._checked_s)

    def on_beat(self, t_s: float, signal: Signal) -> Iterator[Finding]:
        """Process one beat; it ends a pause."""
        yield from self.advance_to(t_s, signal)
        if self._last_beat_s is not None:
            if self._checked_s is not None:
                yield self._finding("pause", t_s, t_s)
            elif self._is_short_pause(t_s - self._last_beat_s) and signal.is_beat_free(self._last_beat_s, t_s, 0):
                yield self._finding("short_pause", t_s, t_s)
            self._intervals.append(t_s - self._last_beat_s)
        self._last_beat_s, self._checked_s = t_s, None

    def on_gap(self, t_s: float) -> Iterator[Finding]:
        """Process a gap from `t_s` on: it ends a pause, and an interval across it is not a pause."""
        if self._last_beat_s is not None and self._checked_s is not None:
            yield self._finding("pause", t_s, t_s)
        self._reset()

    def _reset(self) -> None:
        self._last_beat_s = self._checked_s = None

    def _is_short_pause(self, interval_s: float) -> bool:
        median_s = median_of(self._intervals) if self._intervals else interval_s
        return interval_s >= self._short_s and interval_s >= MIN_PAUSE_RATIO * median_s

    def _finding(self, kind: str, end_s: float | None, confirmed_s: float) -> Finding:
        assert self._last_beat_s is not None
        limit_s = self._limit_s if kind == "pause" else self._short_s
        measured = {"pause_s": round(float(confirmed_s - self._last_beat_s), 2), "limit_s": limit_s}
        return Finding(kind, self._last_beat_s, end_s, f"rule:{kind}", None, measured)
