"""The time that the hub has observed lately: what it must keep for days is not deleted because its clock leaps.

A step of the clock by more than a day is a leap, also over a restart. Between leaps the clock shows a stretch of time. The last
stretches are kept, together as long as the retention. What happened at a time outside them happened before them:

    clock             1 … 5, leap ahead, 370 … 372, leap back, 8 … 9
    last five days    3 … 5,             370 … 372,            8 … 9
"""

from typing import Final

from sync.outbox.database import OutboxDatabase
from sync.outbox.epochs import SECONDS_PER_DAY

LEAP_S: Final = SECONDS_PER_DAY
"""The longest step of a clock that is no leap. A hub that was off for longer has not observed that time."""
AHEAD_S: Final = 600
"""A stretch is stored with an end up to this much ahead: writes are rare, and after a crash it holds all that happened in it.
A stretch that a leap ends may count this much too long."""


class ObservedTime:
    """The last stretches. Call `begin` and `note` in a transaction; after a rollback call `load`."""

    def __init__(self, database: OutboxDatabase, retention_s: int) -> None:
        self._database = database
        self._kept_s = retention_s + AHEAD_S
        self.load()

    def load(self) -> None:
        """Read what is kept in memory."""
        rows = self._database.rows("SELECT first, last FROM observed ORDER BY rowid")
        self._stretches: list[tuple[int, int]] = [(first, last) for first, last in rows]

    def begin(self, last_epoch_s: int) -> None:
        """If no stretch is known, take the time up to the day of the last epoch for one: the buffer is older, or salvaged."""
        if not self._stretches and last_epoch_s:
            self._stretches = [(0, last_epoch_s + SECONDS_PER_DAY)]

    def note(self, now_s: int) -> None:
        """Note what the clock shows, before it is stored when something happened."""
        if not self._stretches or self._is_leap(now_s):
            self._stretches.append((now_s, now_s + AHEAD_S))
        elif now_s > self._stretches[-1][1]:
            self._stretches[-1] = self._stretches[-1][0], now_s + AHEAD_S
        else:
            return
        self._forget()
        self._database.execute("DELETE FROM observed")
        self._database.execute_many("INSERT INTO observed VALUES (?, ?)", self._stretches)

    def is_over(self, at_s: int) -> bool:
        """Whether what happened when the clock showed `at_s` happened at least the retention ago."""
        return not any(first <= at_s <= last for first, last in self._stretches)

    def _is_leap(self, now_s: int) -> bool:
        first, last = self._stretches[-1]
        return not max(first, last - LEAP_S) <= now_s <= last + LEAP_S

    def _forget(self) -> None:
        """Cut what is older than the retention."""
        excess_s = sum(last - first for first, last in self._stretches) - self._kept_s
        while excess_s > 0:
            first, last = self._stretches[0]
            if last - first > excess_s:
                self._stretches[0] = first + excess_s, last
            else:
                del self._stretches[0]
            excess_s -= last - first
