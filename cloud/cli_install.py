"""The commands that install and run a site on this machine: `pulsegate-cloud site install` and its siblings."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud.errors import ClinicError
from config.endpoint import is_host
from config.process import stop_on_signals

if TYPE_CHECKING:
    from cloud.site.install import Plan

AddCommand = Callable[..., argparse.ArgumentParser]

MAX_INGESTS: Final = 16
"""One worker keeps a core busy; more of them than a machine has cores are of no use."""


def add_install_commands(add_command: AddCommand) -> None:
    """Add the commands to the parser of `pulsegate-cloud site`. What `install` is not told stays as it was."""
    install = add_command("install", "install a site on this machine and start it: see make site")
    install.add_argument("--units", type=Path, required=True, metavar="DIR", help="folder of the systemd units")
    install.add_argument("--revision", required=True, metavar="TEXT", help="version of the programs")
    install.add_argument("--host", type=_parse_host, metavar="NAME", help="name by which hubs and browsers reach the site")
    install.add_argument("--site", metavar="NAME", help="name of the site, as it stands in certificates")
    install.add_argument("--country", metavar="CODE", help="its country in the EU or the EEA")
    install.add_argument("--region", metavar="NAME", help="the region in this country")
    install.add_argument("--ingests", type=_parse_count, metavar="N", help=f"number of ingest workers, at most {MAX_INGESTS}")
    install.add_argument(
        "--ssh-from", type=_parse_networks, metavar="NETWORKS", help="who may use SSH, such as 192.0.2.0/24,2001:db8::/32"
    )
    install.set_defaults(run=_run_install)
    for name, summary, run in (
        ("start", "start the services of the site that is installed on this machine", _run_start),
        ("stop", "stop the services", _run_stop),
        ("state", "show the state of each service", _run_state),
        ("keep", "keep certificates and revocation lists of the site current; a service of its own", _run_keep),
    ):
        add_command(name, summary).set_defaults(run=run)


def _run_install(options: argparse.Namespace) -> int:
    from cloud.site.install import DEFAULT_PLAN, Plan, install, load_plan

    _check_root()
    chosen = {name: vars(options)[name] for name in Plan.__dataclass_fields__ if vars(options)[name] is not None}
    plan = replace(load_plan() or DEFAULT_PLAN, **chosen)
    if "SSH_CONNECTION" in os.environ and not plan.ssh_from:
        raise ClinicError(
            "you are connected by SSH, which the firewall would close: give SSH_FROM=, the networks that may use it"
        )
    os.umask(0o022)
    if not install(plan, options.units, _print):
        _print("Nothing had to be changed.")
    _print(f"The site runs: https://{plan.host}/ for staff, {plan.host}:8443 and {plan.host}:8883 for hubs.")
    return 0


def _run_start(_options: argparse.Namespace) -> int:
    from cloud.site.manager import find_manager

    _check_root()
    find_manager().start(_load_plan().ingests, must_restart=False)
    return 0


def _run_stop(_options: argparse.Namespace) -> int:
    from cloud.site.manager import find_manager

    _check_root()
    find_manager().stop()
    return 0


def _run_state(_options: argparse.Namespace) -> int:
    from cloud.site.manager import find_manager, is_running

    _check_root()
    states = find_manager().states()
    for name, state in states.items():
        _print(f"{name:24} {state}")
    return 0 if states and all(map(is_running, states.values())) else 1


def _run_keep(_options: argparse.Namespace) -> int:
    from cloud.site import Authority
    from cloud.site.install import keep_certificates
    from cloud.site.keeper import keep
    from cloud.site.layout import DATA

    host = _load_plan().host

    async def run() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        await keep(Authority.load(DATA / "site"), lambda authority: keep_certificates(authority, host), stop)

    asyncio.run(run())
    return 0


def _load_plan() -> "Plan":
    from cloud.site.install import load_plan

    plan = load_plan()
    if plan is None:
        raise ClinicError("no site is installed on this machine: run make site")
    return plan


def _check_root() -> None:
    if os.geteuid() != 0:
        raise ClinicError("only root installs and runs a site: use sudo")


def _parse_host(text: str) -> str:
    if not is_host(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host name: give one such as clinic.example")
    return text


def _parse_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_INGESTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_INGESTS}")
    return int(text)


def _parse_networks(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
