"""The commands that run a site's services, one process each, for a supervisor: they stop at SIGTERM."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from cloud.site_settings import SAMPLE, RegionRefusedError, SiteSettings, load_site_settings
from config.egress import allow_endpoint
from config.process import stop_on_signals

AddCommand = Callable[..., argparse.ArgumentParser]
Service = Callable[[SiteSettings, asyncio.Event, Callable[[str], None]], Coroutine[Any, Any, None]]
_SUMMARIES: Final = {
    "ingest": "run one ingest worker of a site: receive blocks from the broker, store and acknowledge them",
    "opener": "run one opener of a site: decrypt stored blocks for the page, and sign the audit log",
    "serve": "run the page of a site by HTTPS, for persons with a staff certificate",
}


def add_service_commands(add_command: AddCommand) -> None:
    """Add the commands to the parser. All need only the settings file of the site."""
    for name, summary in _SUMMARIES.items():
        command = add_command(name, summary)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="settings of the site's services")
        command.set_defaults(run=_run, service=name)
    sample = add_command("sample-config", "print a settings file of a site's services, to be adapted")
    sample.set_defaults(run=_print_sample)


def _run(options: argparse.Namespace) -> int:
    settings = _load_settings(options.config)
    asyncio.run(_serve(options.service, settings))
    return 0


def _load_settings(path: Path) -> SiteSettings:
    try:
        settings = load_site_settings(path)
    except RegionRefusedError as error:
        from cloud.audit_log import log_refused_endpoint

        log_refused_endpoint(error.store, error.endpoint)
        raise
    for endpoint in settings.endpoints:
        allow_endpoint(endpoint.host, endpoint.port)
    return settings


async def _serve(name: str, settings: SiteSettings) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    await _find_service(name)(settings, stop, _print)


def _find_service(name: str) -> Service:
    if name == "serve":
        from cloud.page_service import run_page_service  # only the page loads the web server

        return run_page_service
    from cloud.services import run_ingest_service, run_opener_service

    return run_ingest_service if name == "ingest" else run_opener_service


def _print_sample(_options: argparse.Namespace) -> int:
    sys.stdout.write(SAMPLE)
    return 0


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
