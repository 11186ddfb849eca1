"""The UTC time of results that a person measured on demand, from the sensor's local time and what is known of its clock.

A sensor keeps local time, often wrong, and rarely follows daylight saving time or a journey. The hub observes its clock where
the sensor sends its present time, and at each result that arrives right after its measurement. Between two settings the clock
runs steadily; such a stretch is a `_Run`. A result is dated by the latest run in which it can have been measured, and by the
hub's time zone where no run is known. No result has a time after its arrival.

A clock can be set, or restart, while no hub is connected. So the time of a result that is neither live nor marked as stored is
certain only if the clock was observed in the same connection, and "unconfirmed" otherwise. A time that the clock can have shown
both before and after it was set is unconfirmed too.
"""

import contextlib
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from drivers.readings import Origin

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US
TOLERANCE_US: Final = 60 * SECOND_US
"""A clock that differs by at most a minute is right: the drivers of the Current Time Service set it beyond this."""
LIVE_US: Final = 120 * SECOND_US
"""A result that arrives within this time of its measurement is live: a cuff that stamps the start of a measurement needs up to
a minute for it, and as long to connect."""
DRIFT: Final = 200e-6
"""The most that the clocks of hub and sensor drift apart: 17 s a day. A watch crystal drifts 20 ppm, a poor oscillator 100."""
MAX_AGE_US: Final = 730 * DAY_US
"""A result that would be older has a wrong time: the 200 places of a cuff's memory hold two years of two results a week."""
MIN_APART_US: Final = 600 * SECOND_US
"""Two results that arrive further apart come from two connections."""
MAX_RUNS: Final = 8
"""Runs that are kept: settings of the clock within the age of the results that the sensor still stores."""
MAX_POINTS: Final = 16
"""Observations that are kept of one run, at least a day apart; the oldest go."""
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - sensors keep local time without a zone
_LAST_YEAR: Final = 2111
"""The clinic stores times until 2112."""
NOT_USABLE: Final = frozenset({"not_set", "unknown", "invalid"})
"""The states of a clock whose time says nothing."""


class SpotTime(NamedTuple):
    """The time of a result, and how it was found: see `sync.records.SpotOrigin`."""

    at_us: int
    source: str


@dataclass(slots=True)
class _Run:
    """A stretch in which the sensor's clock was not set.

    It began between `from_us` and its first observation at `first_us`; the last one was at `last_us`. These times are in UTC.
    `points` are observations in the order of time: the sensor's local time, read as UTC, and UTC minus that time.
    """

    from_us: int
    first_us: int
    last_us: int
    points: list[tuple[int, int]] = field(default_factory=list)

    def lead_us(self, local_us: int) -> int:
        """UTC minus the sensor's time: between two observations on their line, otherwise that of the nearest one."""
        at = bisect(self.points, (local_us, 0))
        if at in (0, len(self.points)):
            return self.points[min(at, len(self.points) - 1)][1]
        (before_us, before), (after_us, after) = self.points[at - 1 : at + 1]
        return before + (after - before) * (local_us - before_us) // (after_us - before_us)

    def continues(self, local_us: int, lead_us: int) -> bool:
        """Whether the clock can have shown `local_us` without having been set since the last observation."""
        last_local_us, last_lead_us = self.points[-1]
        return abs(lead_us - last_lead_us) <= LIVE_US + DRIFT * abs(local_us - last_local_us)

    def add(self, local_us: int, lead_us: int) -> None:
        """Add an observation. Of those of one day the smallest lead counts: it has the shortest delay."""
        last_local_us, last_lead_us = self.points[-1]
        self.last_us = max(self.last_us, local_us + lead_us)
        if local_us - last_local_us >= DAY_US:
            self.points.append((local_us, lead_us))
            del self.points[:-MAX_POINTS]
        elif lead_us < last_lead_us:
            self.points[-1] = (last_local_us, lead_us)


class SpotTimes:
    """What is known of one sensor's clock."""

    def __init__(self, saved: Mapping[str, Any] | None = None, zone: tzinfo | None = None) -> None:
        """`saved` is the last `state()`. `zone` is the patient's time zone; None: that of the hub."""
        self._zone = zone
        runs: Sequence[Any] = (saved or {}).get("runs", ())
        self._runs = [
            _Run(from_us, first_us, last_us, [(local_us, lead_us) for local_us, lead_us in points])
            for from_us, first_us, last_us, points in runs
        ]
        self._doubtful: tuple[int, int] | None = tuple((saved or {}).get("doubtful") or ()) or None
        """Arrival and lead of the last result that was not known to be live."""
        self._observed_us: int | None = None
        """When the clock was last observed in the present connection."""

    def state(self) -> dict[str, Any]:
        """What must survive a restart, ready for JSON."""
        return {
            "runs": [[run.from_us, run.first_us, run.last_us, list(map(list, run.points))] for run in self._runs],
            "doubtful": list(self._doubtful) if self._doubtful else None,
        }

    def observe(self, sensor_time: str, arrived_us: int) -> None:
        """The sensor sent its present local time, as a driver puts it: in ISO form, or as the reason why it has none."""
        with contextlib.suppress(ValueError):
            local_us = local_as_us(datetime.fromisoformat(sensor_time).replace(tzinfo=None))
            if local_us is not None:
                self._observe(local_us, arrived_us)
                self._observed_us = arrived_us

    def on_clock_set(self, now_us: int) -> None:
        """The sensor took the hub's local time."""
        utc = datetime.fromtimestamp(now_us / SECOND_US, UTC)
        offset = utc.astimezone(self._zone).utcoffset() or timedelta()
        local_us = now_us + round(offset.total_seconds() * SECOND_US)
        self._begin_run(now_us, local_us, now_us - local_us)
        self._observed_us = now_us

    def on_disconnected(self) -> None:
        """The connection has ended. What happens to the clock from now on is not known."""
        self._observed_us = None

    def find(self, origin: Origin, arrived_us: int) -> SpotTime:
        """Return the time of a result. A live one is also an observation of the sensor's clock. Call it once for a result."""
        local_us = None if origin.measured is None or origin.clock in NOT_USABLE else local_as_us(origin.measured)
        if local_us is None or origin.measured is None:
            return SpotTime(arrived_us, "arrival")
        by_zone_us = self._by_zone(origin.measured, arrived_us)
        is_live = not origin.is_stored and self._learn(local_us, by_zone_us, arrived_us)
        times_us = self._by_runs(local_us, by_zone_us, arrived_us) or [by_zone_us]
        at_us, is_ambiguous = times_us[0], any(abs(other_us - times_us[0]) > LIVE_US for other_us in times_us)
        is_certain = is_live or ((origin.is_stored or self._is_observed(arrived_us)) and not is_ambiguous)
        if not _is_possible(at_us, arrived_us):
            return SpotTime(arrived_us, "arrival")
        if not is_certain:
            return SpotTime(min(at_us, arrived_us), "unconfirmed")
        if abs(at_us - by_zone_us) <= TOLERANCE_US:
            return SpotTime(min(by_zone_us, arrived_us), "measured")
        return SpotTime(min(at_us, arrived_us), "corrected")

    def _learn(self, local_us: int, by_zone_us: int, arrived_us: int) -> bool:
        """Observe the clock at a result that is live, and return whether it is.

        It is where the known clock or the time zone says so. If the clock was not observed lately, it may have been set since:
        then two results of different connections that arrive with the same lead are live, because the ages of stored ones
        differ, and so is a result whose time is certainly wrong.
        """
        by_runs_us = self._by_runs(local_us, by_zone_us, arrived_us)
        times_us = (by_zone_us, *by_runs_us[:1])
        is_live = any(_is_live(at_us, arrived_us) for at_us in times_us)
        if not self._is_observed(arrived_us):
            is_live = is_live or self._repeats_lead(arrived_us, arrived_us - local_us)
            self._doubtful = None if is_live else (arrived_us, arrived_us - local_us)
            is_live = is_live or not any(_is_possible(at_us, arrived_us) for at_us in times_us)
        was_set_since = any(_is_live(at_us, arrived_us) for at_us in by_runs_us[:1]) and by_runs_us[0] != local_us + self._runs[
            -1
        ].lead_us(local_us)
        if is_live and not was_set_since:
            self._observe(local_us, arrived_us)
            self._observed_us = arrived_us
        return is_live

    def _is_observed(self, now_us: int) -> bool:
        """Whether the clock was observed in this connection, lately."""
        return self._observed_us is not None and abs(now_us - self._observed_us) < MIN_APART_US

    def _repeats_lead(self, arrived_us: int, lead_us: int) -> bool:
        """Whether the last doubtful result came in another connection with the same lead."""
        if self._doubtful is None:
            return False
        last_arrived_us, last_lead_us = self._doubtful
        return arrived_us - last_arrived_us >= MIN_APART_US and abs(lead_us - last_lead_us) <= LIVE_US

    def _observe(self, local_us: int, arrived_us: int) -> None:
        lead_us = arrived_us - local_us
        run = self._runs[-1] if self._runs else None
        if run is not None and run.continues(local_us, lead_us):
            run.add(local_us, lead_us)
        else:
            self._begin_run(arrived_us - MAX_AGE_US if run is None else min(run.last_us, arrived_us), local_us, lead_us)

    def _begin_run(self, from_us: int, local_us: int, lead_us: int) -> None:
        self._runs = [run for run in self._runs if run.from_us < from_us][1 - MAX_RUNS :]
        self._runs.append(_Run(from_us, local_us + lead_us, local_us + lead_us, [(local_us, lead_us)]))

    def _by_runs(self, local_us: int, by_zone_us: int, arrived_us: int) -> list[int]:
        """The times by the runs in which the clock can have shown `local_us`, the likeliest first.

        There are several where the clock was set between two observations. A live result is likeliest, then one whose clock was
        right, then that of the latest run.
        """
        times_us, until_us = list[int](), arrived_us
        for run in reversed(self._runs):
            at_us = local_us + run.lead_us(local_us)
            if run.from_us - TOLERANCE_US <= at_us <= until_us + TOLERANCE_US and _is_possible(at_us, arrived_us):
                times_us.append(at_us)
            until_us = min(until_us, run.first_us)
        return sorted(times_us, key=lambda at_us: (not _is_live(at_us, arrived_us), abs(at_us - by_zone_us) > TOLERANCE_US))

    def _by_zone(self, measured: datetime, arrived_us: int) -> int:
        """The time if the clock is right. In the hour that is repeated in autumn, the later one that is not in the future."""
        times_us = [
            round(measured.replace(tzinfo=self._zone, fold=fold).timestamp() * SECOND_US)  # without a zone: that of the hub
            for fold in (0, 1)
        ]
        return max((at_us for at_us in times_us if at_us <= arrived_us + TOLERANCE_US), default=min(times_us))


def local_as_us(measured: datetime) -> int | None:
    """Return a local time, read as if it were UTC, in microseconds since 1970; None before 1970 and after 2111."""
    if not _EPOCH.year <= measured.year <= _LAST_YEAR:
        return None
    return (measured - _EPOCH) // timedelta(microseconds=1)


def _is_live(at_us: int, arrived_us: int) -> bool:
    return -TOLERANCE_US <= arrived_us - at_us <= LIVE_US


def _is_possible(at_us: int, arrived_us: int) -> bool:
    return -TOLERANCE_US <= arrived_us - at_us <= MAX_AGE_US
