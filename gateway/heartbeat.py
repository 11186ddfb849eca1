"""Collects the status that the hub sends to the clinic every minute (`sync.status`)."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.version import VERSION
from gateway.clock import Clock
from gateway.enrolment.identity import IdentityError, SiteRecord
from gateway.enrolment.site_clock import Clocks, SiteClock, SiteTimeError
from gateway.models import LoadedModels
from gateway.power import read_battery
from gateway.sensor_runner import SensorRunner
from sync.consent import ToldConsent, subject_tag
from sync.outbox import Outbox
from sync.outbox.epochs import SECONDS_PER_DAY
from sync.status import MAX_ERASED, Backlog, HubStatus, count_links
from sync.versions import REVISION
from sync.wire import LANES


@dataclass(frozen=True, slots=True)
class StatusCollector:
    """Collects the status of one agent. It contains no health value and names no sensor.

    `folder` holds the buffer; `identity` is the folder of the hub's identity, None if it is not enrolled.
    """

    folder: Path
    identity: Path | None
    clock: Clock
    hub: str
    outbox: Outbox
    sensors: Sequence[SensorRunner]
    models: LoadedModels
    read_audit: Callable[[], bytes | None]
    """Returns the field `audit`; None if there is none."""
    told: Callable[[], ToldConsent]
    """Returns what the hub knows of its subject's consent."""

    def collect(self, seq: int) -> HubStatus:
        """Return the status with this number. Call it on the storage thread.

        Raises:
            PermanentError, TransientError: the outbox failed.
        """
        buffered = self.outbox.statistics()
        return HubStatus(
            self.hub,
            self.outbox.epoch,
            seq,
            max(0, self.clock.wall_us()),
            VERSION,
            REVISION,
            backlog=tuple(Backlog(lane, buffered.pending[lane], buffered.oldest_s.get(lane)) for lane in LANES),
            battery=read_battery(),
            clock_offset_us=_clock_offset_us(self.identity),
            certificate_days=_certificate_days(self.identity, self.clock.wall_us() // 1_000_000),
            models=self.models.release,
            free_bytes=_free_bytes(self.folder),
            links=count_links(sensor.state for sensor in self.sensors),
            audit=self.read_audit(),
            consent=self.told(),
            erased=tuple(subject_tag(self.hub, erased) for erased in sorted(self.outbox.erased_subjects))[:MAX_ERASED],
        )


def _clock_offset_us(identity: Path | None) -> int | None:
    """Return how far the wall clock is ahead of the site's time; None while that is not known."""
    if identity is None:
        return None
    try:
        offset_s = SiteClock(identity, Clocks.of_system()).wall_offset_s()
    except SiteTimeError:
        return None
    return None if offset_s is None else round(offset_s * 1e6)


def _certificate_days(identity: Path | None, now_s: int) -> int | None:
    """Return the days left of the hub's certificate, negative after its end; None without one."""
    if identity is None:
        return None
    try:
        return (SiteRecord.load(identity).until_s - now_s) // SECONDS_PER_DAY
    except IdentityError:
        return None


def _free_bytes(folder: Path) -> int:
    """Return the free space of the disk with the buffer; 0 if the disk cannot be read."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize
