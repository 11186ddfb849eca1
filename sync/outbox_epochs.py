"""Epochs: each opening of the buffer and each UTC day of sealing has one. `docs/protocol.md` is the reference."""

import secrets
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


def plausible_time(epoch: int, now_s: int, registered_s: int) -> int:
    """The clock's seconds since 1970, or those of the epoch if the clock is wrong."""
    return now_s if is_plausible(now_s, epoch, registered_s) else epoch_seconds(epoch)


def sealing_day(epoch: int) -> int:
    """The UTC day, in days since 1970, on which the blocks of an epoch are sealed."""
    return epoch_seconds(epoch) // SECONDS_PER_DAY
