"""Keeps certificates and revocation lists of a site current: `pulsegate-cloud site keep`, a service of its own.

Revocation lists expire after 7 days, certificates of services after 90. Each hour the keeper writes the lists again, and
issues the certificates that are due. Whenever a list changes, an operator's revocation included, it lets the broker and the
database read the lists, and cuts connections of revoked hubs. The page and the enrolment service look for themselves.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cloud.errors import ClinicError
from cloud.site import layout
from cloud.site.authority import Authority
from cloud.site.certificates import Kind
from cloud.site.mosquitto import RELOAD_S, cut_connection, load_control, reload_broker
from sync.errors import SyncError

LOOK_S: Final = 5.0
"""How often the keeper looks for a new list: a revoked hub or service is cut within some seconds."""
RENEW_S: Final = 3600.0
"""How often lists are written and certificates checked: a day of failures is far from the seven days of a list."""
_log: Final = logging.getLogger(__name__)

KeepCertificates = Callable[[Authority], None]


class Keeper:
    """What the keeper remembers: when it wrote the lists last, and which version of them the servers have read."""

    def __init__(
        self,
        authority: Authority,
        keep_certificates: KeepCertificates,
        clock_s: Callable[[], float],
        *,
        broker: Path = layout.BROKER,
        database_pid: Path = layout.DATABASE_PID,
    ) -> None:
        """`keep_certificates` issues the certificates that are due. `clock_s` is monotonic."""
        self._authority, self._keep_certificates, self._clock_s = authority, keep_certificates, clock_s
        self._broker, self._database_pid = broker, database_pid
        self._renewed_s = -RENEW_S
        self._read: tuple[int, ...] | None = None

    async def look(self) -> None:
        """Do what is due now. What fails is logged, and tried again at the next look."""
        try:
            if self._clock_s() - self._renewed_s >= RENEW_S:
                self._renew()
            version = self._version()
            if version != self._read:
                await self._reload()
                self._read = version
        except (ClinicError, SyncError, OSError) as error:
            _log.error("cannot keep certificates and revocation lists current: %s", error)

    def _renew(self) -> None:
        """New lists come last: they make the servers read their certificates again, too."""
        self._keep_certificates(self._authority)
        self._authority.write_crls(int(time.time()))
        self._renewed_s = self._clock_s()

    def _version(self) -> tuple[int, ...]:
        return tuple(self._authority.crl_file(kind).stat().st_mtime_ns for kind in Kind)

    async def _reload(self) -> None:
        reload_broker(self._broker)
        reload_database(self._database_pid)
        await asyncio.sleep(RELOAD_S)
        endpoint = load_control(self._broker)
        for hub in self._authority.list_revoked_names(Kind.HUBS, int(time.time())):
            await cut_connection(endpoint, hub)


def reload_database(pid_file: Path) -> None:
    """Let PostgreSQL read certificates and revocation lists again (PostgreSQL 15, 19.9.4).

    Raises:
        ClinicError: it does not run.
    """
    try:
        os.kill(int(pid_file.read_text(encoding="ascii").split()[0]), signal.SIGHUP)
    except (OSError, ValueError, IndexError) as error:
        raise ClinicError(f"cannot reload the database named in {pid_file} ({error}): start it") from error


async def keep(authority: Authority, keep_certificates: KeepCertificates, stop: asyncio.Event) -> None:
    """Look again and again until `stop` is set."""
    keeper = Keeper(authority, keep_certificates, time.monotonic)
    while not stop.is_set():
        await keeper.look()
        try:
            async with asyncio.timeout(LOOK_S):
                await stop.wait()
        except TimeoutError:
            continue
