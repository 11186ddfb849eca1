"""`pulsegate-cloud command` and `pulsegate-cloud commands`: tell a hub what to do, and see what became of it."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cloud.audit_actors import operator
from cloud.cli_keys import AddCommand, AddOptions, folder_of
from cloud.commands import send_command
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.registry import format_time, hub_file, load_hub
from cloud.store import Store
from cloud.store.commands import StoredCommand, list_commands
from config.argument_types import parse_time
from config.contexts import parse_contexts
from sync.commands import CommandKind
from sync.wire import ON_REQUEST_LANE, is_name


def add_command_commands(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add the commands to the parser."""
    command = add_command("command", "tell a hub what to do; it says later whether it was done: see pulsegate-cloud commands")
    add_data_options(command)
    command.add_argument("hub", metavar="HUB", help="the hub's name")
    command.add_argument("kind", metavar="KIND", choices=[str(kind) for kind in CommandKind], help="; ".join(_USAGE.values()))
    command.add_argument("values", metavar="VALUE", nargs="*", help="as KIND asks for")
    command.set_defaults(run=lambda options: _run_command(folder_of(options), options))

    commands = add_command("commands", "list the commands to hubs, and whether they were applied")
    add_data_options(commands)
    commands.add_argument("hub", metavar="HUB", nargs="?", help="only those to this hub")
    commands.add_argument("--json", action="store_true", help="print each command as a JSON line")
    commands.set_defaults(run=lambda options: _run_commands(folder_of(options), options))


def _run_command(folder: ClinicFolder, options: argparse.Namespace) -> int:
    kind = CommandKind(options.kind)
    arguments = parse_values(kind, options.values)
    path = hub_file(folder.hubs, options.hub)
    if not is_name(options.hub) or not path.exists():
        raise ClinicError("no hub of this name is registered: pulsegate-cloud hubs lists them")
    key = folder.load_or_create_signing_keys().command
    with contextlib.closing(Store.open(folder.blocks)) as store:
        sent = send_command(store, key, load_hub(path), kind, arguments, operator(), time.time_ns() // 1000)
    sys.stdout.write(f"command {sent.number} ({kind}) goes to hub {sent.hub}; it expires {format_time(sent.expires_s)}\n")
    return 0


def _run_commands(folder: ClinicFolder, options: argparse.Namespace) -> int:
    if isinstance(folder.blocks, Path) and not folder.blocks.exists():
        raise ClinicError(f"no clinic in {folder.path}: give the folder that pulsegate-cloud dev was started with")
    with contextlib.closing(Store.open(folder.blocks)) as store, store.transaction() as connection:
        commands = list_commands(connection, options.hub)
    now_s = int(time.time())
    for command in commands:
        row = command_as_json(command, now_s)
        line = json.dumps(row, separators=(",", ":")) if options.json else "  ".join(str(value) for value in row.values())
        sys.stdout.write(line + "\n")
    return 0


def command_as_json(command: StoredCommand, now_s: int) -> dict[str, Any]:
    """Return what is shown of a command. `answered` is None until the hub has said what became of it."""
    answered_us = command.answered_us
    return {
        "hub": command.hub,
        "number": command.number,
        "kind": command.kind,
        "subject": command.subject,
        "issued": format_time(command.issued_s),
        "expires": format_time(command.expires_s),
        "by": command.author,
        "state": command.state_at(now_s),
        "refusal": command.refusal,
        "answered": None if answered_us is None else format_time(answered_us // 1_000_000),
    }


def parse_values(kind: CommandKind, values: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a command.

    Raises:
        ClinicError: they are not what the kind asks for.
    """
    try:
        return _PARSERS[kind](*values)
    except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
        raise ClinicError(f"wrong values for a command {kind}: give {_USAGE[kind]}") from error


def _parse_limits(*pairs: str) -> dict[str, Any]:
    named = [pair.partition("=") for pair in pairs]
    return {"values": {name: float(value) for name, _, value in named}}


def _parse_request(start: str, end: str) -> dict[str, Any]:
    from_s, to_s = (int(parse_time(text).timestamp()) for text in (start, end))
    return {"lane": ON_REQUEST_LANE, "from_s": from_s, "to_s": to_s}


_PARSERS: Final[Mapping[CommandKind, Callable[..., dict[str, Any]]]] = {
    CommandKind.LIMITS: _parse_limits,
    CommandKind.CONTEXTS: lambda *words: {"values": parse_contexts(words)},
    CommandKind.UPLOAD: lambda policy: {"policy": policy},
    CommandKind.CLOSE_ALERT: lambda alert: {"alert": alert},
    CommandKind.MARK_FALSE: lambda alert: {"alert": alert},
    CommandKind.LOG_LEVEL: lambda level: {"level": level},
    CommandKind.RESTART: dict,
    CommandKind.REQUEST: _parse_request,
}
_USAGE: Final[Mapping[CommandKind, str]] = {
    CommandKind.LIMITS: "limits NAME=NUMBER …: all of the patient's own limits; the agent's tasks restart",
    CommandKind.CONTEXTS: "contexts known_af|paced|bundle_branch_block|age_years=N …: all that is known; tasks restart",
    CommandKind.UPLOAD: "upload all|evidence|none",
    CommandKind.CLOSE_ALERT: "close_alert ID",
    CommandKind.MARK_FALSE: "mark_false ID",
    CommandKind.LOG_LEVEL: "log_level debug|info|warning|error",
    CommandKind.RESTART: "restart",
    CommandKind.REQUEST: "request FROM TO: waveforms that the hub has kept, times such as 2026-11-30T08:00:00Z",
}
