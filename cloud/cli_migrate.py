"""The command that migrates the databases of a clinic."""

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.cli_keys import folder_of
from cloud.errors import ClinicError

if TYPE_CHECKING:
    from cloud.migrations import Step

AddCommand = Callable[..., argparse.ArgumentParser]
AddOptions = Callable[[argparse.ArgumentParser], None]


def add_migrate_command(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add the command to the parser."""
    command = add_command("migrate", "migrate the databases to this version, while services of the version before go on")
    add_data_options(command)
    command.add_argument(
        "--contract",
        action="store_true",
        help="also remove what this version no longer uses: stop every older pulsegate-cloud first, it cannot start afterwards",
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from cloud.migrations import migrate_all

    folder = folder_of(options)
    if isinstance(folder.blocks, Path) and not folder.blocks.exists():
        raise ClinicError(f"no store in {folder.path}: give the folder or the --store of the clinic")
    with folder.locked() if options.contract else contextlib.nullcontext():
        outcome = migrate_all(folder, may_contract=options.contract)
    for step in outcome.applied:
        _print("applied", step)
    for step in outcome.left:
        _print("left", step)
    if outcome.left:
        sys.stdout.write("stop every older pulsegate-cloud, then run this command with --contract for the rest\n")
    elif not outcome.applied:
        sys.stdout.write("nothing to migrate\n")
    return 0


def _print(what: str, step: "Step") -> None:
    kind = "contract" if step.is_contract else "expand"
    sys.stdout.write(f"{what:<8}{step.database} {step.number} ({kind}): {step.summary}\n")
