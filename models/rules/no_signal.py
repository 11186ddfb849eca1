"""Reports that no signal comes, with its reason: one finding until the signal is back.

Nobody watches the patient while an electrode is off or the signal is lost in noise. Short disturbances are usual in daily life,
so the finding waits for a minute. After an alert of high priority it does not wait: the lost signal may hide its course.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.signal.defects import Defect

KIND: Final = "no_signal"

BACK_S: Final = 5.0
"""The signal is back when it has been usable for this long."""

AFTER_HIGH_DELAY_S: Final = 5.0
"""After an alert of high priority a lost signal is reported this soon: the touch of an electrode takes no longer."""


class NoSignalRule:
    """Follows the defects of one lead, second by second.

    Attributes:
        is_urgent: whether an alert of high priority is open, or ended a short time ago (`limits.no_signal_after_high`).
    """

    def __init__(self, limits: Limits) -> None:
        self._wait_s, self._long_s = limits.no_signal.value, limits.no_signal_medium.value
        self.is_urgent = False
        self._lost_since_s: float | None = None
        self._good_since_s: float | None = None
        self._defects = Counter[Defect]()
        self._reason: Defect | None = None
        """The reason reported; None where the present loss has not been reported."""
        self._reported_s = 0.0

    @property
    def is_lost_in_noise(self) -> bool:
        """Whether the signal is lost at present, however short, and some of it in noise. Through hum, beats may be seen."""
        return self._lost_since_s is not None and self._defects["noise"] > 0

    def advance_to(self, t_s: float, defect: Defect | None) -> Iterator[Finding]:
        """Process the state of the signal at `t_s`, once a second: its defect, or None where it is usable."""
        if defect is None:
            yield from self._on_usable(t_s)
            return
        self._good_since_s = None
        if self._lost_since_s is None:
            self._lost_since_s = t_s
        self._defects[defect] += 1
        lost_s = t_s - self._lost_since_s
        wait_s = AFTER_HIGH_DELAY_S if self.is_urgent else self._wait_s
        due_s = wait_s if self._reason is None else self._long_s
        if self._reported_s < due_s <= lost_s:
            self._reason = self._reason or self._defects.most_common(1)[0][0]
            self._reported_s = due_s
            yield self._finding(None, lost_s)

    def gap(self, start_s: float) -> Iterator[Finding]:
        """End the loss at a gap in the stream from `start_s` on: the link is watched by an alarm of its own."""
        if self._lost_since_s is not None:
            yield from self._end(start_s, is_lost=True)

    def _on_usable(self, t_s: float) -> Iterator[Finding]:
        if self._lost_since_s is None:
            return
        if self._good_since_s is None:
            self._good_since_s = t_s
        if t_s - self._good_since_s >= BACK_S:
            yield from self._end(self._good_since_s)

    def _end(self, end_s: float, *, is_lost: bool = False) -> Iterator[Finding]:
        assert self._lost_since_s is not None
        if self._reason is not None:
            yield self._finding(max(end_s, self._lost_since_s), end_s - self._lost_since_s, is_lost=is_lost)
        self._lost_since_s = self._good_since_s = self._reason = None
        self._defects.clear()
        self._reported_s = 0.0

    def _finding(self, end_s: float | None, lost_s: float, *, is_lost: bool = False) -> Finding:
        assert self._lost_since_s is not None
        measured = {"seconds": round(max(lost_s, 0.0), 1), "limit_s": self._wait_s}
        reasons = (f"{KIND}.{self._reason}",)
        return Finding(KIND, self._lost_since_s, end_s, f"rule:{KIND}", None, measured, lost=is_lost, reasons=reasons)
