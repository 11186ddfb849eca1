"""Starts, stops and shows the services of this machine's site: by systemd where it is PID 1, otherwise by supervisord."""

import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from cloud.errors import ClinicError
from cloud.site.database import run
from cloud.site.layout import LOGS, LOOPBACK, PUBLIC_PORTS
from cloud.site.supervise import CONFIG

UNITS: Final = (
    *("pulsegate-database", "pulsegate-broker", "pulsegate-ingest@", "pulsegate-opener", "pulsegate-page"),
    *("pulsegate-enrolment", "pulsegate-keeper", "pulsegate-proxy"),
)
"""In the order of their start."""
TARGET: Final = "pulsegate.target"
FIREWALL: Final = "pulsegate-firewall"
START_LIMIT_S: Final = 120.0
"""On a slow machine Python needs some seconds for each service, and supervisord counts one as running after three more."""
STABLE_S: Final = 5.0
"""All services must run for so long: one that fails is started again after two seconds, and would run for a moment."""
_POLL_S: Final = 0.5
_RUNNING: Final = frozenset({"RUNNING", "active"})


class Manager(Protocol):
    """What runs the services."""

    def start(self, ingests: int, *, must_restart: bool) -> None:
        """Start what does not run; with `must_restart` all services anew. Returns when they run.

        Raises:
            ClinicError: a service does not start.
        """

    def stop(self) -> None:
        """Stop all services."""

    def states(self) -> Mapping[str, str]:
        """Return the state of each service by its name."""
        ...


def find_manager() -> Manager:
    """Return what runs services on this machine (sd_booted(3))."""
    return Systemd() if Path("/run/systemd/system").is_dir() else Supervisor()


class Systemd:
    """systemd. It also keeps the firewall in force."""

    def start(self, ingests: int, *, must_restart: bool) -> None:
        names = [*_instances(ingests), FIREWALL]
        surplus = [path.name for path in Path("/etc/systemd/system/pulsegate.target.wants").glob("pulsegate-ingest@*.service")]
        surplus = [name for name in surplus if name.removesuffix(".service") not in names]
        _systemctl("daemon-reload")
        if surplus:
            _systemctl("disable", "--now", *surplus)
        _systemctl("enable", "-q", TARGET, *names)
        _systemctl("restart" if must_restart else "start", TARGET, *names)
        _wait_running(self)

    def stop(self) -> None:
        _systemctl("stop", TARGET)

    def states(self) -> Mapping[str, str]:
        listed = _systemctl("list-units", "--all", "--plain", "--no-legend", "pulsegate-*.service").splitlines()
        return {fields[0].removesuffix(".service"): fields[2] for line in listed if len(fields := line.split()) > 2}


class Supervisor:
    """supervisord, from the distribution's package, with a configuration of the site's own.

    The firewall is left to the operator: a container's network belongs to the machine outside.
    """

    def start(self, ingests: int, *, must_restart: bool) -> None:
        if not self._is_running():
            run(["supervisord", "-c", str(CONFIG)], "start the process supervisor")
        elif must_restart:
            _supervisorctl("reload")
        else:
            _supervisorctl("start", "all")
        _wait_running(self)

    def stop(self) -> None:
        if self._is_running():
            _supervisorctl("shutdown")
        deadline_s = time.monotonic() + START_LIMIT_S
        while self._is_running() and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)

    def states(self) -> Mapping[str, str]:
        listed = _supervisorctl("status", is_checked=False).splitlines()
        return {fields[0].rpartition(":")[2]: fields[1] for line in listed if len(fields := line.split()) > 1}

    def _is_running(self) -> bool:
        return subprocess.run([*_CONTROL, "pid"], capture_output=True, check=False).returncode == 0  # noqa: S603


_CONTROL: Final = ("supervisorctl", "-c", str(CONFIG))


def _supervisorctl(*arguments: str, is_checked: bool = True) -> str:
    if is_checked:
        return run([*_CONTROL, *arguments], "control the services")
    done = subprocess.run([*_CONTROL, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout


def _systemctl(*arguments: str) -> str:
    return run(["systemctl", *arguments], "control the services")


def _instances(ingests: int) -> list[str]:
    """Return the names of all services."""
    names = [name for name in UNITS if not name.endswith("@")]
    return [*names, *(f"pulsegate-ingest@{number}" for number in range(1, ingests + 1))]


def _wait_running(manager: Manager) -> None:
    """Wait until all services run, the public ports answer, and it stays so.

    Raises:
        ClinicError: they do not within `START_LIMIT_S`.
    """
    started_s = running_since_s = time.monotonic()
    while time.monotonic() - running_since_s < STABLE_S:
        if waiting := _not_running(manager):
            running_since_s = time.monotonic()
            if running_since_s - started_s > START_LIMIT_S:
                names = ", ".join(waiting)
                raise ClinicError(f"not running after {START_LIMIT_S:g} s: {names}; see the logs ({LOGS}, or journalctl)")
        time.sleep(_POLL_S)


def is_running(state: str) -> bool:
    """Whether a service of this state runs."""
    return state in _RUNNING


def _not_running(manager: Manager) -> list[str]:
    states = manager.states()
    waiting = [name for name, state in states.items() if not is_running(state)]
    return waiting + [f"port {port}" for port in PUBLIC_PORTS if not states or not _answers(port)]


def _answers(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=_POLL_S).close()
    except OSError:
        return False
    return True
