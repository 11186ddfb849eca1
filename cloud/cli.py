"""`pulsegate-cloud`: the clinic's commands. Exit codes: 0 done, 1 failed, 2 bad usage (with one line that says why)."""

import argparse
import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from cloud.dev import ClinicError, Folder, run_dev
from cloud.export import Account, export
from cloud.opener import BlockReader, Opener
from cloud.projections import Changes
from cloud.store import Store
from cloud.tables import clear, open_projections
from config.origin import OriginError, check_origin
from config.process import leaf_errors
from sync.errors import SyncError
from sync.seal import ClinicKeyPair

DEFAULT_PORT: Final = 8600


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as end:  # argparse has said what it had to say
        return int(end.code or 0)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)  # its errors are its clients' lost connections
    try:
        check_origin()
        return int(options.run(options))
    except (ClinicError, OriginError, SyncError) as error:
        return _fail(str(error))
    except BaseExceptionGroup as group:
        return _fail_of(group)
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("pulsegate-cloud", description="The clinic of pulsegate. Not a certified medical device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dev = commands.add_parser("dev", help="broker, ingest, store, opener and page in one process, on loopback")
    _add_data(dev)
    dev.add_argument("--port", type=_port, default=DEFAULT_PORT, help="of the page; 0 takes a free one (default: %(default)s)")
    dev.add_argument("--mqtt-port", type=_port, default=0, help="of the broker; 0 takes a free one (default)")
    dev.add_argument("--watch-stdin", action="store_true", help="end when stdin ends, as it does when the parent dies")
    dev.set_defaults(run=_dev)
    open_ = commands.add_parser("open", help="open all stored blocks: account for them, export or rebuild")
    _add_data(open_)
    open_.add_argument("--json", action="store_true", help="print every record as a JSON line, the account last")
    open_.add_argument("--rebuild", action="store_true", help="make the projections again from the blocks")
    open_.set_defaults(run=_open)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the clinic's keys and databases")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535")
    return int(text)


def _dev(options: argparse.Namespace) -> int:
    console = Console(highlight=False)
    asyncio.run(
        run_dev(
            Folder(options.data),
            options.port,
            options.mqtt_port,
            watch_stdin=options.watch_stdin,
            say=console.print,
        )
    )
    return 0


def _open(options: argparse.Namespace) -> int:
    folder = Folder(options.data)
    if not folder.blocks.exists():
        return _fail(f"no clinic in {folder.path}: give the folder that pulsegate-cloud dev was started with")
    clinic = ClinicKeyPair.load(folder.private_key)
    with contextlib.closing(Store.open(folder.blocks)) as store:
        if options.rebuild:
            with folder.locked():
                _rebuild(folder, store, clinic)
        return _account(store, clinic, as_json=options.json)


def _account(store: Store, clinic: ClinicKeyPair, *, as_json: bool) -> int:
    account = Account()
    for line in export(store, BlockReader(store, clinic), account):
        if as_json:
            _print_json(line)
    _print_json(account.as_json())
    unopened = account.unopened.total()
    if unopened:
        return _fail(f"{unopened} of {account.blocks} blocks could not be opened, the first because {account.first_problem}")
    return 0


def _rebuild(folder: Folder, store: Store, clinic: ClinicKeyPair) -> None:
    async def publish(_changes: Changes) -> None:
        """Nobody watches."""

    engine = open_projections(folder.projections)
    try:
        clear(engine)
        opener = Opener(store, engine, clinic, publish)
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("Opening blocks", total=store.count())
            while (changes := opener.step()) is not None:
                progress.advance(task, changes.blocks)
    finally:
        engine.dispose()


def _print_json(line: object) -> None:
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")


def _fail_of(group: BaseExceptionGroup[BaseException]) -> int:
    """The task group's first known trouble in one line; what nobody foresaw keeps its traceback."""
    known, unknown = group.split((ClinicError, SyncError))
    if unknown is not None or known is None:
        raise group
    return _fail(str(leaf_errors(known)[0]))


def _fail(message: str) -> int:
    sys.stderr.write(f"pulsegate-cloud: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
