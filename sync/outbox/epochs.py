"""Epochs: each opening of the buffer and each UTC day of sealing has one. `docs/protocol.md` is the reference."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sync.errors import PermanentError
from sync.wire import EPOCH_RANDOM_BITS, MAX_COUNT, epoch_seconds

SECONDS_PER_DAY: Final = 86_400
CLOCK_LEAP_S: Final = 10 * 366 * SECONDS_PER_DAY
"""A clock that is further than ten years after the last epoch is wrong."""


def next_epoch(last: int | None, now_s: int, registered_s: int) -> int:
    """An epoch above the last one of the buffer: seconds since 1970 in its high bits, then random bits.

    The hub's registration was written at `registered_s`: the clinic assigns the subject from then on.

    Raises:
        PermanentError: there is no higher epoch below 2⁵³.
    """
    lowest = registered_s if last is None else max(epoch_seconds(last) + 1, registered_s)
    seconds = max(now_s, lowest) if is_plausible(now_s, last, registered_s) else lowest
    epoch = seconds << EPOCH_RANDOM_BITS | secrets.randbits(EPOCH_RANDOM_BITS)
    if epoch > MAX_COUNT:
        raise PermanentError("cannot begin another epoch: the buffer has reached the highest; move the buffer away")
    return epoch


def is_plausible(now_s: int, last: int | None, registered_s: int) -> bool:
    """Whether a clock that shows `now_s` may be right, with the buffer's last epoch and the time of the registration."""
    latest = registered_s if last is None else max(epoch_seconds(last), registered_s)
    return registered_s <= now_s <= latest + CLOCK_LEAP_S


@dataclass(slots=True)
class HubClock:
    """The hub's clock, which may be wrong. While it is, the time is the epoch's begin plus what the clock has advanced since.

    A step back, or by more than a day, is no advance: what is kept for days must not be deleted.
    """

    read_s: Callable[[], int]
    registered_s: int
    _last_s: int = 0
    _advanced_s: int = 0

    def next_epoch(self, last: int | None) -> int:
        """The epoch that begins now; see `next_epoch`."""
        self._last_s, self._advanced_s = self.read_s(), 0
        return next_epoch(last, self._last_s, self.registered_s)

    def now_s(self, epoch: int) -> int:
        """Seconds since 1970 in the present epoch."""
        now_s = self.read_s()
        step_s, self._last_s = now_s - self._last_s, now_s
        self._advanced_s += step_s if 0 <= step_s <= SECONDS_PER_DAY else 0
        return now_s if is_plausible(now_s, epoch, self.registered_s) else epoch_seconds(epoch) + self._advanced_s


def sealing_day(epoch: int) -> int:
    """The UTC day, in days since 1970, on which the blocks of an epoch are sealed."""
    return epoch_seconds(epoch) // SECONDS_PER_DAY
