"""Against floods of alarms: after an alert, further episodes of its kind are held back for a while and counted."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from config.limits import Limits

RANKS: Final[Mapping[str, int]] = {"low": 0, "medium": 1, "high": 2}
"""Priorities (IEC 60601-1-8), least urgent first."""

State = Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class _Told:
    """The last alert of a kind: the end of its episode, or its onset while it lasts, and how many were held back since."""

    at_us: int
    priority: str
    held: int = 0


class FloodGuard:
    """Says which alerts of one sensor wait. Times are those of episodes, UTC microseconds: when it is asked does not matter.

    The time-out begins with the end of the last episode that was told, not of one that was held back: one that flickers all
    day is told again each time it is over. High priority never waits, and nothing waits behind a less urgent alert, or behind
    one of the future: the clock was set back.
    """

    def __init__(self, limits: Limits, state: State | None = None) -> None:
        """`state` is what an earlier one said last."""
        self._timeout_us = {
            "low": round(limits.repeat_low.value * 1e6),
            "medium": round(limits.repeat_medium.value * 1e6),
        }
        self._told = {kind: _Told(**told) for kind, told in (state or {}).items()}

    def waits(self, kind: str, priority: str, at_us: int) -> bool:
        """Whether an episode of this kind and priority that is told at `at_us` at the earliest is to be held back."""
        told = self._told.get(kind)
        if told is None or priority == "high" or RANKS[priority] > RANKS[told.priority]:
            return False
        return abs(at_us - told.at_us) < self._timeout_us[priority]

    def hold(self, kind: str) -> None:
        """One more was held back."""
        self._told[kind].held += 1

    def tell(self, kind: str, priority: str, onset_us: int) -> int:
        """An alert is told; returns how many of its kind were held back before it."""
        held = self._told[kind].held if kind in self._told else 0
        self._told[kind] = _Told(onset_us, priority)
        return held

    def rise(self, kind: str, priority: str) -> None:
        """The last alert that was told is now more urgent."""
        self._told[kind].priority = priority

    def end(self, kind: str, end_us: int) -> None:
        """The episode of the last alert that was told is over."""
        self._told[kind].at_us = max(self._told[kind].at_us, end_us)

    def state(self) -> State:
        """What `FloodGuard(limits, state)` goes on from after a restart, ready for JSON."""
        return {kind: asdict(told) for kind, told in self._told.items()}
