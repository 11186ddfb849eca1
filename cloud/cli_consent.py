"""`pulsegate-cloud consent` and `hold`: what a patient has agreed to or withdrawn, and whose data must be kept."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cloud.audit_actors import operator
from cloud.cli_keys import AddCommand, AddOptions, folder_of
from cloud.clock import now_us
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.registry import format_time
from cloud.store.consents import ConsentChange, give_consent, list_changes, read_text, withdraw_consent
from cloud.store.erasure import list_erased
from cloud.store.holds import Hold, lift_hold, list_holds, set_hold
from cloud.subjects import check_name, opened_store
from config.terminal import escape_controls

TEXT_LIMIT_BYTES: Final = 256 * 1024
"""The longest text of a consent: 60 pages."""
REASON_LIMIT: Final = 500
"""The longest reason of a hold, in characters."""


def add_consent_commands(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add `consent give`, `consent withdraw` and `consent show` to the parser."""
    consent = add_command("consent", "record and show what patients have agreed to; without consent nothing is taken in")
    commands = consent.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, summary: str, run: Callable[[ClinicFolder, argparse.Namespace], int]) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        add_data_options(parser)
        parser.add_argument("--subject", required=True, metavar="NAME", help="the patient's pseudonym")
        parser.set_defaults(run=lambda options: run(folder_of(options), options))
        return parser

    give = add("give", "record that a patient has agreed to a text; the hub collects again within a minute", _run_give)
    give.add_argument("--text", type=Path, required=True, metavar="FILE", help="the text that the patient agreed to, in UTF-8")
    add("withdraw", "record that a patient does not agree any more; the hub stops within a minute", _run_withdraw)
    show = add("show", "print each change of a patient's consent, oldest first", _run_show)
    show.add_argument("--json", action="store_true", help="print each change as a JSON line, with the text that was agreed to")


def add_hold_commands(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add `hold set`, `hold lift` and `hold list` to the parser."""
    hold = add_command("hold", "keep a patient's data after their retention, and against an erasure, while a law requires it")
    commands = hold.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, summary: str, run: Callable[[ClinicFolder, argparse.Namespace], int]) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        add_data_options(parser)
        parser.set_defaults(run=lambda options: run(folder_of(options), options))
        return parser

    set_ = add("set", "keep a patient's data until the hold is lifted", _run_set_hold)
    lift = add("lift", "end a hold: the data are deleted when their retention has ended", _run_lift_hold)
    for parser in (set_, lift):
        parser.add_argument("--subject", required=True, metavar="NAME", help="the patient's pseudonym")
    set_.add_argument("--reason", required=True, metavar="TEXT", help="which law or proceeding requires it; no health data")
    add("list", "print whose data are kept, since when and why", _run_list_holds)


def _run_set_hold(folder: ClinicFolder, options: argparse.Namespace) -> int:
    check_name(options.subject)
    if not 0 < len(options.reason.strip()) <= REASON_LIMIT or "\0" in options.reason:
        raise ClinicError(f"--reason must be a text of 1 to {REASON_LIMIT} characters")
    with opened_store(folder) as store, store.transaction() as connection:
        if options.subject in list_erased(connection):
            raise ClinicError(f"{options.subject} was erased: nothing is left to keep")
        set_hold(connection, Hold(options.subject, options.reason, operator().id, now_us()), operator())
    _print(f"the data of {options.subject} are kept until pulsegate-cloud hold lift")
    return 0


def _run_lift_hold(folder: ClinicFolder, options: argparse.Namespace) -> int:
    check_name(options.subject)
    with opened_store(folder) as store, store.transaction() as connection:
        lift_hold(connection, options.subject, operator(), now_us())
    _print(f"the hold of {options.subject} is lifted: what is past its retention is deleted within a day")
    return 0


def _run_list_holds(folder: ClinicFolder, _options: argparse.Namespace) -> int:
    with opened_store(folder) as store, store.transaction() as connection:
        holds = list_holds(connection)
    for hold in holds:
        _print(f"{hold.subject}  since {format_time(hold.at_us // 1_000_000)} by {hold.actor}: {hold.reason}")
    return 0


def _run_give(folder: ClinicFolder, options: argparse.Namespace) -> int:
    check_name(options.subject)
    text = _read_text(options.text)
    with opened_store(folder) as store, store.transaction() as connection:
        if options.subject in list_erased(connection):
            raise ClinicError(f"{options.subject} was erased: give the patient another pseudonym")
        change = give_consent(connection, options.subject, text, operator(), now_us())
    _print(f"{change.subject} consents to {change.purpose} from now on")
    return 0


def _run_withdraw(folder: ClinicFolder, options: argparse.Namespace) -> int:
    check_name(options.subject)
    with opened_store(folder) as store, store.transaction() as connection:
        change = withdraw_consent(connection, options.subject, operator(), now_us())
    _print(f"{change.subject} does not consent to {change.purpose} from now on: its hub is told, and its blocks are refused")
    return 0


def _run_show(folder: ClinicFolder, options: argparse.Namespace) -> int:
    check_name(options.subject)
    with opened_store(folder) as store, store.transaction() as connection:
        rows = [
            change_as_json(change, None if change.text is None else read_text(connection, change.text))
            for change in list_changes(connection, options.subject)
        ]
    if options.json:
        for row in rows:
            _print(json.dumps(row))
    elif not rows:
        _print(f"nothing is recorded of {options.subject}: a patient with a hub consents by the registration")
    for row in () if options.json else rows:
        _print(_describe(row))
    return 0


def change_as_json(change: ConsentChange, text: str | None) -> dict[str, Any]:
    """Return what is shown and exported of a change; `text` is what was agreed to."""
    return {
        "at": format_time(change.at_us // 1_000_000),
        "purpose": change.purpose,
        "given": change.is_given,
        "by": change.actor,
        "text_sha256": None if change.text is None else change.text.hex(),
        "text": text,
    }


def _describe(row: dict[str, Any]) -> str:
    what = "given" if row["given"] else "withdrawn"
    return f"{row['at']}  {row['purpose']}  {what} by {row['by']}" + (
        f", text {row['text_sha256'][:16]}" if row["text_sha256"] else ""
    )


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        text = content.decode()
    except OSError as error:
        raise ClinicError(f"cannot read {path} ({error.strerror}): give the file of the text that the patient saw") from error
    except UnicodeDecodeError as error:
        raise ClinicError(f"{path} is not a text in UTF-8: convert it") from error
    if not text.strip() or len(content) > TEXT_LIMIT_BYTES or "\0" in text:
        raise ClinicError(f"{path} must be a text of at most {TEXT_LIMIT_BYTES} bytes without NUL: give what the patient saw")
    return text


def _print(line: str) -> None:
    sys.stdout.write(escape_controls(line) + "\n")
