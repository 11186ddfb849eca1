"""Makes the times of records monotonic although the clock of the recorder may be set during a capture."""

from typing import Final

_JITTER_US: Final = 1_000_000
"""A record that is earlier than the one before by at most this is out of order; the clock was not set."""
_LARGEST_STEP_US: Final = 366 * 86_400 * 1_000_000
"""A longer step forward means that the clock was set for the first time, not that the capture has a pause of a year."""
_SHOWN: Final = 3


class Clock:
    """Converts the times of records. After the clock was set, later times are shifted so that they continue."""

    def __init__(self) -> None:
        self._last_us: int | None = None
        self._moved_us = 0
        self._steps: list[str] = []
        self._count = 0

    def advance(self, number: int, time_us: int) -> int:
        """The time of the next record, not before that of the last one."""
        now_us = time_us + self._moved_us
        if self._last_us is not None:
            step_us = now_us - self._last_us
            if step_us < -_JITTER_US or step_us > _LARGEST_STEP_US:
                self._moved_us -= step_us
                self._count += 1
                if len(self._steps) < _SHOWN:
                    self._steps.append(f"by {step_us / 1e6:+.3f} s at record {number}")
            if not 0 <= step_us <= _LARGEST_STEP_US:
                now_us = self._last_us
        self._last_us = now_us
        return now_us

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._count:
            return ()
        more = f" and {self._count - _SHOWN} more times" if self._count > _SHOWN else ""
        return (f"the clock was set {', '.join(self._steps)}{more}; later times continue from the record before",)
