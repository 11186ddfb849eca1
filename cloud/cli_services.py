"""The commands that run a site's services, one process each, for a supervisor: they stop at SIGTERM."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from cloud.argument_types import Address, parse_address
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
        command.add_argument(
            "--metrics",
            type=parse_address,
            metavar="ADDRESS:PORT",
            help="show metrics by HTTPS at this private address of the machine, to the service named metrics",
        )
        command.set_defaults(run=_run, service=name)
    sample = add_command("sample-config", "print a settings file of a site's services, to be adapted")
    sample.set_defaults(run=_print_sample)


def _run(options: argparse.Namespace) -> int:
    settings = _load_settings(options.config)
    asyncio.run(_serve(options.service, settings, options.metrics))
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


async def _serve(name: str, settings: SiteSettings, metrics: Address | None) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with contextlib.AsyncExitStack() as stack:
        if metrics is not None:
            from cloud.metrics_server import serving_metrics

            identity = _find_identity(name, settings)
            await stack.enter_async_context(serving_metrics(*metrics, identity, settings.public))
        await _find_service(name)(settings, stop, _print)


def _find_identity(name: str, settings: SiteSettings) -> Path:
    """Return the folder of a service's certificate."""
    if name == "serve":
        return settings.page.identity
    identity = (settings.ingest if name == "ingest" else settings.opener).broker.identity
    assert identity is not None, "the settings name one"
    return identity


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
