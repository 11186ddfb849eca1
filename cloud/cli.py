"""`pulsegate-cloud`: the clinic's commands. Exit codes: 0 done, 1 failed, 2 bad usage (with one line that says why)."""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from cloud import connection_log
from cloud.audit_actors import operator
from cloud.audit_log import AuditLog
from cloud.block_reader import BlockReader
from cloud.cli_audit import add_audit_commands
from cloud.cli_commands import add_command_commands
from cloud.cli_consent import add_consent_commands, add_hold_commands
from cloud.cli_enrolment import add_enrolment_commands
from cloud.cli_hubs import add_hubs_command
from cloud.cli_install import add_install_commands
from cloud.cli_keys import AddCommand, add_key_commands, folder_of
from cloud.cli_migrate import add_migrate_command
from cloud.cli_services import add_service_commands
from cloud.cli_site import add_site_commands
from cloud.cli_subject import add_subject_commands
from cloud.cli_user import add_user_commands
from cloud.clock import now_us
from cloud.database_url import PostgresUrl
from cloud.errors import ClinicError
from cloud.export import ExportTotals, export_records
from cloud.folder import ClinicFolder
from cloud.key_migration import migrate_keys
from cloud.key_store import KeyStore
from cloud.opener import Opener
from cloud.projections_database import open_projections, reset_projections
from cloud.receipts import BlockOutcome
from cloud.registry import Registry
from cloud.store import Store
from config.endpoint import parse_port
from config.origin import OriginError, check_package_folders
from config.process import leaf_errors
from config.program import protect_process
from config.terminal import escape_controls, log_to_terminal
from config.tls import TlsSetupError
from config.version import VERSION
from sync.audit import Action, AuditEvent, Category
from sync.errors import SyncError
from sync.wire import is_name

DEFAULT_PORT: Final = 8600
CLINIC_VARIABLE: Final = "PULSEGATE_CLINIC"
"""Names the folder where a site is installed, so that its operator need not; likewise for its databases below."""


def run_program() -> int:
    """Run the command of this process."""
    protect_process()
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        options = _build_parser().parse_args(argv)
    except SystemExit as end:  # argparse has already printed its message
        return int(end.code or 0)
    # amqtt logs each lost client connection as an error.
    log_to_terminal("warning", {"amqtt": "CRITICAL", connection_log.__name__: "INFO"})
    try:
        check_package_folders()
        return int(options.run(options))
    except (ClinicError, OriginError, SyncError, TlsSetupError) as error:
        return _fail(str(error))
    except BaseExceptionGroup as group:
        return _fail_with_first(group)
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "pulsegate-cloud",
        description="The clinic side of pulsegate: receives, decrypts and shows data of hubs. Not a certified medical device.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_command = partial(_add_command, commands.add_parser)
    _add_dev_command(add_command)
    _add_open_command(add_command)
    add_enrolment_commands(add_command, _add_data_options)
    site = add_command("site", "create the site's certificates, revoke them, and configure its broker")
    site_commands = site.add_subparsers(required=True, metavar="COMMAND")
    add_site_commands(partial(_add_command, site_commands.add_parser), _add_data_options)
    add_install_commands(partial(_add_command, site_commands.add_parser))
    user = add_command("user", "give persons certificates to look at the page, list and revoke them")
    user_commands = user.add_subparsers(required=True, metavar="COMMAND")
    add_user_commands(partial(_add_command, user_commands.add_parser), _add_data_options)
    add_key_commands(add_command, _add_data_options)
    add_command_commands(add_command, _add_data_options)
    add_consent_commands(add_command, _add_data_options)
    add_hold_commands(add_command, _add_data_options)
    add_subject_commands(add_command, _add_data_options)
    add_hubs_command(add_command, _add_data_options)
    add_audit_commands(add_command, _add_data_options)
    add_migrate_command(add_command, _add_data_options)
    add_service_commands(add_command)
    return parser


def _add_dev_command(add_command: AddCommand) -> None:
    dev = add_command(
        "dev",
        "run the whole clinic in one process for this computer only: MQTT broker, databases, decryption, web page",
    )
    _add_data_options(dev)
    dev.add_argument(
        "--port",
        type=_parse_port,
        default=DEFAULT_PORT,
        help="port of the web page; 0 chooses a free port (default: %(default)s)",
    )
    dev.add_argument(
        "--mqtt-port",
        type=_parse_port,
        default=0,
        metavar="PORT",
        help="port of the MQTT broker; 0 chooses a free port (default: 0)",
    )
    dev.add_argument(
        "--watch-stdin", action="store_true", help="stop when standard input ends, as it does when the parent process exits"
    )
    dev.set_defaults(run=_run_dev)


def _add_open_command(add_command: AddCommand) -> None:
    open_ = add_command(
        "open",
        "decrypt all stored blocks and print totals; with options, also print the records or rebuild the projections",
    )
    _add_data_options(open_)
    open_.add_argument("--json", action="store_true", help="print every record as a JSON line, then the totals")
    open_.add_argument(
        "--rebuild", action="store_true", help="before that, rebuild the projections, the decrypted data, from the blocks"
    )
    open_.set_defaults(run=_run_open)


def _add_command(add_parser: Callable[..., argparse.ArgumentParser], name: str, summary: str) -> argparse.ArgumentParser:
    """Add a command whose own --help begins with the summary in the list of commands."""
    return add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")


def _add_folder_option(parser: argparse.ArgumentParser) -> None:
    folder = os.environ.get(CLINIC_VARIABLE)
    parser.add_argument(
        "--data",
        type=Path,
        default=folder,
        required=folder is None,
        metavar="DIR",
        help="folder of the clinic's keys and databases; pulsegate-site names the site's",
    )


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    _add_folder_option(parser)
    for option, variable, content in (
        ("--store", "PULSEGATE_STORE", "sealed blocks"),
        ("--projections", "PULSEGATE_PROJECTIONS", "decrypted data"),
    ):
        parser.add_argument(
            option,
            type=_parse_url,
            default=os.environ.get(variable),
            metavar="URL",
            help=f"PostgreSQL database of the {content}, postgresql://USER@HOST:PORT/DATABASE, without the password: "
            "that comes from PGPASSFILE or PGPASSWORD; another computer needs TLS: add ?identity=DIR&region=DE "
            "(default: a file of SQLite in DIR)",
        )


def _parse_url(text: str) -> PostgresUrl:
    try:
        return PostgresUrl.parse(text)
    except ClinicError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parse_port(text: str) -> int:
    port = 0 if text == "0" else parse_port(text)
    if port is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535")
    return port


def _run_dev(options: argparse.Namespace) -> int:
    from cloud.dev import run_dev  # `open` must not load the web server and the broker

    console = Console(highlight=False)
    asyncio.run(
        run_dev(
            folder_of(options),
            options.port,
            options.mqtt_port,
            watch_stdin=options.watch_stdin,
            print_line=console.print,
        )
    )
    return 0


def _run_open(options: argparse.Namespace) -> int:
    folder = folder_of(options)
    if isinstance(folder.blocks, Path) and not folder.blocks.exists():
        return _fail(f"no clinic in {folder.path}: give the folder that pulsegate-cloud dev was started with")
    with contextlib.closing(Store.open(folder.blocks)) as store:
        if folder.key_1.exists():
            with folder.locked():
                migrate_keys(folder, store, KeyStore(folder.keys))
        AuditLog(store, now_us).append(*_opening_events(store))
        reader = BlockReader(store, Registry(folder.hubs, time.monotonic), KeyStore(folder.keys))
        if options.rebuild:
            with folder.locked():
                _rebuild(folder, store, reader)
        return _print_totals(store, reader, as_json=options.json)


def _opening_events(store: Store) -> list[AuditEvent]:
    """What the audit log says before a person's command opens all blocks: one row for each subject."""
    actor = operator()
    return [AuditEvent(actor, Action.OPEN, Category.ALL_RECORDS, subject) for subject in store.subjects() if is_name(subject)]


def _print_totals(store: Store, reader: BlockReader, *, as_json: bool) -> int:
    totals = ExportTotals()
    for line in export_records(store, reader, totals):
        if as_json:
            _print_json(line)
    _print_json(totals.as_json())
    problems = totals.problems()
    return _fail("; ".join(problems)) if problems else 0


def _rebuild(folder: ClinicFolder, store: Store, reader: BlockReader) -> None:
    def send_no_receipts(_outcomes: Sequence[BlockOutcome]) -> None:
        """Hubs send again what they have no receipt for."""

    engine = open_projections(folder.projections)
    try:
        reset_projections(engine)
        opener = Opener(store, engine, reader, send_no_receipts)
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("Opening blocks", total=store.count_blocks())
            while (opened := opener.open_batch()) is not None:
                progress.advance(task, opened)
    finally:
        engine.dispose()


def _print_json(line: object) -> None:
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")


def _fail_with_first(group: BaseExceptionGroup[BaseException]) -> int:
    """Report the first expected error of a task group in one line; an unexpected error keeps its traceback."""
    expected, unexpected = group.split((ClinicError, SyncError, TlsSetupError))
    if unexpected is not None or expected is None:
        raise group
    return _fail(str(leaf_errors(expected)[0]))


def _fail(message: str) -> int:
    sys.stderr.write(f"pulsegate-cloud: {escape_controls(message)}\n")
    return 1


if __name__ == "__main__":
    sys.exit(run_program())
