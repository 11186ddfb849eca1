"""Makes the configuration of supervisord of the systemd units, for machines where systemd is not PID 1, such as containers.

So there is one description of each service. supervisord applies what it can: command, account,
capabilities, environment and restarts.
"""

import configparser
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloud.errors import ClinicError
from cloud.site.layout import ETC, LOGS

CONFIG: Final = ETC / "supervisord.conf"
SOCKET: Final = "/run/pulsegate-supervisor.sock"
STOP_S: Final = 30
"""Time for a clean stop: ingest finishes its batch, the database writes its checkpoint. Then the process is killed."""
LOG_BYTES: Final = 10 * 1024 * 1024
LOG_FILES: Final = 5
"""For each service; a busy site writes some MB a day."""
START_S: Final = 3
"""A service that runs so long has started. One whose database is not there yet ends sooner, and is started again."""
START_TRIES: Final = 20
"""supervisord waits a second longer after each failed start: in all some three minutes."""

_HEAD: Final = f"""\
; Written by pulsegate-cloud site install, of the units in deploy/systemd. It is replaced at the next run.
[unix_http_server]
file = {SOCKET}
chmod = 0700

[supervisord]
logfile = {LOGS}/supervisord.log
logfile_maxbytes = {LOG_BYTES}
logfile_backups = {LOG_FILES}
pidfile = /run/pulsegate-supervisor.pid
umask = 077
user = root

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://{SOCKET}

; A container's disk or a test's folder that is deleted must not leave processes behind.
[program:end-with-folder]
command = /bin/sh -c 'while [ -e {CONFIG} ]; do sleep 5 || break; done; kill "$PPID"'
autorestart = false
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """What supervisord can do of a systemd unit."""

    name: str
    command: tuple[str, ...]
    user: str
    environment: Mapping[str, str]
    stop_signal: str
    capabilities: frozenset[str]
    """All that it may ever have, such as `net_bind_service`."""
    is_ambient: bool
    """Whether it has them from the start, though it is not root."""

    def restricted_command(self) -> tuple[str, ...]:
        """Return a command for root that takes the account, and gives everything else up."""
        allowed = ",".join(["-all", *(f"+{name}" for name in sorted(self.capabilities))])
        ambient = allowed if self.is_ambient else "-all"
        options = (f"--reuid={self.user}", f"--regid={self.user}", "--init-groups", "--no-new-privs")
        return (
            "setpriv",
            *options,
            f"--inh-caps={ambient}",
            f"--ambient-caps={ambient}",
            f"--bounding-set={allowed}",
            "--",
            *self.command,
        )


def read_unit(path: Path) -> Unit:
    """Read a unit of type simple, exec or notify.

    Raises:
        ClinicError: it cannot be read.
    """
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        service = parser["Service"]
        environment = dict(part.split("=", 1) for part in shlex.split(service.get("Environment", "")))
        if file := service.get("EnvironmentFile"):
            environment |= read_environment_file(Path(file))
        command = tuple(_expand(word, environment) for word in shlex.split(service["ExecStart"]))
    except (OSError, KeyError, ValueError, configparser.Error) as error:
        raise ClinicError(f"cannot read the unit {path} ({error}): take the one of this version") from error
    return Unit(
        name=path.name.removesuffix(".service"),
        command=command,
        user=service.get("User", "root"),
        environment=environment,
        stop_signal=service.get("KillSignal", "SIGTERM").removeprefix("SIG"),
        capabilities=frozenset(name.lower().removeprefix("cap_") for name in service["CapabilityBoundingSet"].split()),
        is_ambient="AmbientCapabilities" in service,
    )


def read_environment_file(path: Path) -> dict[str, str]:
    """Return the variables of a file of lines NAME=VALUE."""
    return dict(part.split("=", 1) for part in shlex.split(path.read_text(encoding="utf-8"), comments=True))


def _expand(word: str, environment: Mapping[str, str]) -> str:
    for name, value in environment.items():
        word = word.replace(f"${{{name}}}", value)
    return word


def make_supervisor_config(units: Sequence[Unit], instances: int) -> str:
    """Return the text of supervisord.conf; a unit whose name ends with @ runs `instances` times."""
    return _HEAD + "".join(_describe(unit, priority, instances) for priority, unit in enumerate(units, 1))


def _describe(unit: Unit, priority: int, instances: int) -> str:
    name = unit.name.removesuffix("@")
    values = {
        "command": shlex.join(unit.restricted_command()),
        "environment": ",".join(f'{key}="{value}"' for key, value in unit.environment.items()),
        "directory": "/",
        "priority": priority,
        "autorestart": "true",
        "startsecs": START_S,
        "startretries": START_TRIES,
        "stopsignal": unit.stop_signal,
        "stopwaitsecs": STOP_S,
        "redirect_stderr": "true",
        "stdout_logfile": f"{LOGS}/%(program_name)s{'-%(process_num)d' if unit.name != name else ''}.log",
        "stdout_logfile_maxbytes": LOG_BYTES,
        "stdout_logfile_backups": LOG_FILES,
    }
    if unit.name != name:
        values |= {"numprocs": instances, "process_name": "%(program_name)s-%(process_num)d", "numprocs_start": 1}
    return f"\n[program:{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
