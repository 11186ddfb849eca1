"""Pauses: no beat for the limit."""

from collections.abc import Iterator

from config.limits import Limits
from models.findings import Finding


class PauseRule:
    """No beat for the limit, in a signal that could have shown one."""

    def __init__(self, limits: Limits) -> None:
        self._limit_s = limits.pause.value
        self._last_beat_s: float | None = None
        self._raised = False

    def beat(self, t_s: float) -> Iterator[Finding]:
        """One beat; ends a pause."""
        if self._last_beat_s is not None and t_s - self._last_beat_s >= self._limit_s:
            if not self._raised:
                yield self._finding(None, t_s)
            yield self._finding(t_s, t_s)
        self._last_beat_s, self._raised = t_s, False

    def quiet_until(self, t_s: float) -> Iterator[Finding]:
        """No beat up to `t_s`, in a usable signal."""
        if self._last_beat_s is not None and not self._raised and t_s >= self._last_beat_s + self._limit_s:
            self._raised = True
            yield self._finding(None, t_s)

    @property
    def last_beat_s(self) -> float | None:
        """The beat after which it is quiet, None where no pause can begin."""
        return self._last_beat_s

    def gap(self, t_s: float) -> Iterator[Finding]:
        """No usable signal from `t_s` on: an interval across it would be no pause."""
        if self._raised:
            yield self._finding(t_s, t_s)
        self._last_beat_s, self._raised = None, False

    def _finding(self, end_s: float | None, seen_until_s: float) -> Finding:
        assert self._last_beat_s is not None
        measured = {"pause_s": round(float(seen_until_s - self._last_beat_s), 2), "limit_s": self._limit_s}
        return Finding("pause", self._last_beat_s, end_s, "rule:pause", None, measured)
