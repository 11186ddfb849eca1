"""The hub's time. A hub may start without a battery clock: then only the site's signed time counts.

The highest time that the site ever signed is kept on the disk: no earlier time is taken, from the site or from the system.
"""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.files import replacing
from sync.errors import PermanentError

FILE: Final = "time.json"
READ_INTERVAL_NS: Final = 1_000_000_000
"""How often the agent looks for a new time of the site: a file is read, and the time is asked for at each value."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Runs on while the machine sleeps, and starts at 0 when it boots."""


class SiteTimeError(PermanentError):
    """A time is earlier than one that the site signed before."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of this machine: the wall clock, the time since it booted (both in seconds), and the id of this boot."""

    wall_s: Callable[[], float]
    since_boot_s: Callable[[], float]
    boot_id: Callable[[], str | None]

    @classmethod
    def of_system(cls) -> "Clocks":
        return cls(time.time, lambda: time.clock_gettime(_BOOT_CLOCK), _read_boot_id)


@dataclass(frozen=True, slots=True)
class SiteClock:
    """The time by the site's last signed time, or by the wall clock where that may be right. `folder` is the identity's."""

    folder: Path
    clocks: Clocks

    def now_s(self) -> float | None:
        """Seconds since 1970; None while no clock can be trusted: the site must be asked.

        The site's time counts, if it was taken since this machine booted. Otherwise the wall clock does, unless it is earlier
        than a time that the site signed.
        """
        known = self._read()
        wall_s = self.clocks.wall_s()
        if known is None:
            return wall_s
        if known["boot"] is not None and known["boot"] == self.clocks.boot_id():
            return float(known["highest_s"] + max(0.0, self.clocks.since_boot_s() - known["since_boot_s"]))
        return wall_s if wall_s >= known["highest_s"] else None

    def offset_us(self) -> int:
        """What to add to the wall clock: 0, unless it is earlier than a time that the site signed and the site's is known."""
        known, wall_s = self._read(), self.clocks.wall_s()
        if known is None or wall_s >= known["highest_s"]:
            return 0
        return round(((self.now_s() or wall_s) - wall_s) * 1_000_000)

    def verification_s(self) -> float:
        """The time by which certificates of servers are valid; 0 while it is not known, so that none is."""
        with contextlib.suppress(SiteTimeError):
            return self.now_s() or 0.0
        return 0.0

    def wall_offset_s(self) -> float | None:
        """Return how far the wall clock is ahead of the site's time; None if that was not taken since this machine booted.

        Raises:
            SiteTimeError: the file cannot be read.
        """
        known = self._read()
        if known is None or known["boot"] is None or known["boot"] != self.clocks.boot_id():
            return None
        return self.clocks.wall_s() - float(known["highest_s"] + max(0.0, self.clocks.since_boot_s() - known["since_boot_s"]))

    def set(self, time_s: int) -> None:
        """Keep a time that the site has just signed.

        Raises:
            SiteTimeError: the site signed a later time before, or a file cannot be written.
        """
        known = self._read()
        if known is not None and time_s < known["highest_s"]:
            raise SiteTimeError(
                "the clinic's server tells an earlier time than it told before: ask the clinic to check its clock"
            )
        self._write(time_s)

    def begin(self, time_s: int) -> None:
        """Forget the times before, which another site signed, and keep this one."""
        self._write(time_s)

    def _write(self, time_s: int) -> None:
        content = {"highest_s": time_s, "boot": self.clocks.boot_id(), "since_boot_s": self.clocks.since_boot_s()}
        path = self.folder / FILE
        try:
            with replacing(path, durable=True) as draft:
                draft.write_text(json.dumps(content), encoding="ascii")
        except OSError as error:
            raise SiteTimeError(f"cannot write {path} ({error.strerror}): check the folder and the disk") from error

    def _read(self) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads((self.folder / FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SiteTimeError(f"cannot read {self.folder / FILE}: enrol this hub again") from error
        return content


class EnrolledHubClock:
    """The clocks of an enrolled hub's agent: those of the machine, but the site's time where the wall clock is too early."""

    def __init__(self, site: SiteClock) -> None:
        self._site = site
        self._offset_us = 0
        self._read_ns: int | None = None

    def mono_ns(self) -> int:
        """Nanoseconds of a clock that only moves forward."""
        return time.monotonic_ns()

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z."""
        now_ns = time.monotonic_ns()
        if self._read_ns is None or now_ns - self._read_ns >= READ_INTERVAL_NS:
            self._read_ns = now_ns
            with contextlib.suppress(SiteTimeError):  # the wall clock counts then
                self._offset_us = self._site.offset_us()
        return int(self._site.clocks.wall_s() * 1_000_000) + self._offset_us


def _read_boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # not Linux: the wall clock counts then
        return None
