"""Tells whether a fast rate may be that of a healthy heart in exertion: it rose gradually and is not too fast for it.

In exertion the sinus node accelerates from beat to beat, whereas a tachycardia by re-entry begins within a beat. Implanted
defibrillators tell the two apart by the same criterion (sudden onset: Swerdlow et al., J Am Coll Cardiol 23:1342, 1994).
Where the sensor measures its acceleration, a gradual rise of a wearer who moves waits longer than one at rest.
"""

from collections.abc import Sequence
from math import inf
from typing import Final

from config.limits import Limits
from models.signal.filters import median_of
from models.signal.latest import Latest

BLOCK: Final = 5
"""Intervals in each of the two adjacent blocks that are compared. Two wrong ones, such as a premature beat and its pause, do
not change a median of five."""

SUDDEN_RATIO: Final = 1.15
"""The rate rises suddenly if the median of a block is this many times that of the block before, some 2.3 s earlier at 130/min.
The fastest rise in 22 hours of healthy people is 2.3/min in a second, 1.04 in this time. Devices choose 1.10 to 1.23."""

BRIDGED_S: Final = 60.0
"""Over a gap of at most this length, the rates before and after it are compared as if they were adjacent. A rate that had risen
gradually, falls suddenly and returns within this time has not risen suddenly: beats were missed for a while, or came early and
late. Only the rate that it had before counts then."""

RECOVERY_S: Final = 120.0
"""A rate is that of a wearer who moves for so long after the last motion. In the first minute after an exercise a healthy heart
slows down by more than 12/min (Cole et al., N Engl J Med 341:1351, 1999), so from below 150/min to below 131/min in two."""
MOTION_DELAY_S: Final = 60.0
"""Motion that is known so long after the rate has reached the limit counts as motion in its rise: `models.signal.motion` looks
at the last minute."""
MOVING_REASON: Final = "motion.moving"
"""The reason key of an alert about the rate of a wearer who moved when it was raised."""


class ExertionRule:
    """Follows the beats and tells whether an alert about their rate must wait.

    A gradual rise needs a slower rate before it. Where none was seen, as from the start of the stream, nothing has to wait.
    A gradual rise in motion waits longer while the motion lasts. Motion changes nothing for any other rate.

    Attributes:
        is_moving: whether the wearer moves, at the beats that follow; None if that is not known, which counts as rest.
    """

    def __init__(self, limits: Limits, age_years: int | None = None) -> None:
        """Without an age, the maximum of the patient's sinus node is not known, and a critical rate takes its place."""
        critical = limits.tachycardia_critical.value
        fastest = critical if age_years is None else min(critical, predict_maximum(age_years))
        self._slower = limits.tachycardia_rate.value - limits.rate_hysteresis.value
        self._hysteresis = limits.rate_hysteresis.value
        self._persistence_s = limits.rate_persistence.value
        self._waits_s = (
            (limits.tachycardia_rate.value, limits.exertion_persistence.value),
            (limits.exertion_rate.value, limits.exertion_fast_persistence.value),
            (fastest, limits.rate_persistence.value),
        )
        """From which rate on, and for how long a rate that rose gradually must last."""
        self._moving_wait_s = max(limits.exertion_moving_persistence.value, limits.exertion_persistence.value)
        self.is_moving: bool | None = None
        self._moved_s = -inf
        """When the wearer moved last."""
        self._rose_in_motion = False
        """Whether the rate reached the limit in a motion that has lasted since."""
        self._since_s: list[float | None] = [None] * len(self._waits_s)
        self._intervals_s = Latest[float](2 * BLOCK)
        self._was_slower = False
        self._jump: tuple[float, float] | None = None
        """The rate before the last sudden rise, and when that began; None while the rate rises gradually, or fell back."""
        self._fall: tuple[float, float] | None = None
        """The rate before the last sudden fall from a rate that had risen gradually, and when it was last as fast."""
        self._since_jump = 2 * BLOCK
        """Beats since the last sudden rise was over: its rate is in the blocks for a while."""

    def on_beat(self, t_s: float, rr_s: float) -> None:
        """Process one beat with the interval that ends at it. Do not call it for the first beat after a gap."""
        self._intervals_s.append(rr_s)
        latest = list(self._intervals_s)
        if len(latest) < BLOCK:
            return
        rate = 60.0 / median_of(latest[-BLOCK:])
        if rate < self._slower:
            self._was_slower = True
        self._follow_jump(t_s, rate, latest)
        self._since_s = [
            (t_s if since is None else since) if rate >= from_rate - (0.0 if since is None else self._hysteresis) else None
            for since, (from_rate, _) in zip(self._since_s, self._waits_s, strict=True)
        ]
        self._follow_motion(t_s)

    def on_gap(self, seconds: float = inf) -> None:
        """Process a gap."""
        if seconds > BRIDGED_S:
            self._intervals_s.clear()
            self._was_slower, self._fall = False, None

    def explains(self, t_s: float) -> bool:
        """Whether an alert about the rate at `t_s` must still wait, because the rate may be that of exertion."""
        if not self._was_slower:
            return False
        if self._jump:
            return t_s - self._jump[1] < self._persistence_s
        waits_s = [wait_s for _, wait_s in self._waits_s]
        if self._rose_in_motion:
            waits_s[0] = self._moving_wait_s
        return all(since is None or t_s - since < wait_s for since, wait_s in zip(self._since_s, waits_s, strict=True))

    def _follow_motion(self, t_s: float) -> None:
        if self.is_moving:
            self._moved_s = t_s
        since_s = self._since_s[0]
        may_begin = since_s is not None and t_s - since_s <= MOTION_DELAY_S
        has_moved = since_s is not None and t_s - self._moved_s <= RECOVERY_S
        self._rose_in_motion = has_moved and (may_begin or self._rose_in_motion)

    def _follow_jump(self, t_s: float, rate: float, latest: Sequence[float]) -> None:
        if self._jump:
            self._since_jump = 0
            if rate < max(self._slower, SUDDEN_RATIO * self._jump[0]):
                self._jump = None
        elif len(latest) == 2 * BLOCK:
            before = 60.0 / median_of(latest[:BLOCK])
            self._since_jump += 1
            was_gradual = self._since_jump > 2 * BLOCK
            if was_gradual and before >= max(self._slower, SUDDEN_RATIO * rate):
                self._fall = before, t_s
            elif rate >= max(self._slower, SUDDEN_RATIO * before) and not self._is_return(t_s, rate):
                self._jump = before, t_s - sum(latest[-(BLOCK // 2 + 1) :])

    def _is_return(self, t_s: float, rate: float) -> bool:
        """Whether the rate is again what it was before it suddenly fell a short time ago."""
        return self._fall is not None and t_s - self._fall[1] <= BRIDGED_S and rate < SUDDEN_RATIO * self._fall[0]


def predict_maximum(age_years: int) -> float:
    """Returns the highest rate of the sinus node in exertion that is expected at this age.

    Tanaka, Monahan & Seals, J Am Coll Cardiol 37:153, 2001.
    """
    return 208.0 - 0.7 * age_years
