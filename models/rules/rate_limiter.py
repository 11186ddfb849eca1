"""Limits how often alerts of one kind are repeated: for a while after an alert, further episodes are suppressed and counted."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from config.limits import Limits

RANKS: Final[Mapping[str, int]] = {"low": 0, "medium": 1, "high": 2}
"""Priorities (IEC 60601-1-8), least urgent first."""

RateLimiterState = Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class _LastAlert:
    """The last alert of a kind that was emitted. The field names are keys of the saved state.

    Attributes:
        at_us: the end of its episode, or its onset while the episode lasts.
        priority: the highest that it has had.
        held: how many alerts of the kind have been suppressed since.
    """

    at_us: int
    priority: str
    held: int = 0


class AlarmRateLimiter:
    """Decides which alerts of one sensor are suppressed.

    All times are those of episodes, in UTC microseconds, so the result does not depend on when the limiter is asked. The
    time-out starts at the end of the last emitted episode, not of a suppressed one: a condition that comes and goes all day is
    emitted again after each time-out.

    An alert is never suppressed if its priority is high, if it is more urgent than the last emitted one, or if the last emitted
    one lies in the future, because the clock was set back.
    """

    def __init__(self, limits: Limits, state: RateLimiterState | None = None) -> None:
        """Start empty, or resume from the `state` that an earlier limiter returned."""
        self._timeout_us = {
            "low": round(limits.repeat_low.value * 1e6),
            "medium": round(limits.repeat_medium.value * 1e6),
        }
        self._last = {kind: _LastAlert(**saved) for kind, saved in (state or {}).items()}

    def is_suppressed(self, kind: str, priority: str, at_us: int) -> bool:
        """Return whether an alert of this kind and priority must be suppressed; it could be emitted at `at_us` or later."""
        last = self._last.get(kind)
        if last is None or priority == "high" or RANKS[priority] > RANKS[last.priority]:
            return False
        return abs(at_us - last.at_us) < self._timeout_us[priority]

    def suppress(self, kind: str) -> None:
        """Count one more suppressed alert of this kind."""
        self._last[kind].held += 1

    def emit(self, kind: str, priority: str, onset_us: int) -> int:
        """Record that an alert is emitted, and return how many of its kind were suppressed before it."""
        held = self._last[kind].held if kind in self._last else 0
        self._last[kind] = _LastAlert(onset_us, priority)
        return held

    def escalate(self, kind: str, priority: str) -> None:
        """Raise the priority of the last emitted alert of this kind."""
        self._last[kind].priority = priority

    def end_episode(self, kind: str, end_us: int) -> None:
        """Record the end of the episode of the last emitted alert of this kind; the time-out starts here."""
        self._last[kind].at_us = max(self._last[kind].at_us, end_us)

    def state(self) -> RateLimiterState:
        """Return what `AlarmRateLimiter(limits, state)` needs to resume after a restart, ready for JSON."""
        return {kind: asdict(last) for kind, last in self._last.items()}
