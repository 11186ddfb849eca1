"""The commands about the site's audit log: check it, print it, cut what is older than its retention."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, Final

from cloud.audit_actors import ORIGIN, operator
from cloud.audit_log import AuditLog
from cloud.cli_keys import AddCommand, AddOptions, folder_of
from cloud.clock import now_us
from cloud.folder import ClinicFolder
from cloud.signing_keys import key_file
from cloud.store.audit import cut_log, read_log, read_rows
from cloud.store.audit_hubs import HubLog, list_hub_logs
from cloud.subjects import check_name, opened_store
from config.argument_types import parse_time
from config.terminal import escape_controls
from sync.audit import Action, AuditEvent, Category, Purpose, read_row
from sync.audit_check import Finding, LogReport, check_log
from sync.audit_text import describe_report, describe_row, format_us, row_as_json
from sync.key_files import KeyFileError
from sync.signing import SigningKey, Use, VerifyingKey
from sync.wire import WireError

MIN_KEEP_DAYS: Final = 30
"""`cut` keeps at least these days: what happened last month must be found, whoever types the command."""
_DAY_US: Final = 86_400 * 1_000_000


def add_audit_commands(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add `audit verify`, `audit show` and `audit cut` to the parser."""
    audit = add_command("audit", "check or print the audit log: who did what, with whose data, when and why")
    commands = audit.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, summary: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        add_data_options(parser)
        parser.set_defaults(run=run)
        return parser

    verify = add("verify", "check that no row was changed, removed, inserted or moved; exit status 1 if one was", _run_verify)
    verify.add_argument("--json", action="store_true", help="print the result as one JSON object")
    show = add("show", "print the rows of the log, oldest first", _run_show)
    show.add_argument("--subject", metavar="NAME", help="only rows about this patient's pseudonym")
    show.add_argument("--since", type=parse_time, metavar="TIME", help="only rows since then, such as 2026-11-30T08:00:00Z")
    show.add_argument("--json", action="store_true", help="print every row as a JSON line")
    cut = add("cut", "delete rows that are older than their retention, and sign a note of what was cut", _run_cut)
    cut.add_argument("--keep-days", type=_parse_days, required=True, metavar="N", help=f"days to keep, {MIN_KEEP_DAYS} or more")


def _run_verify(options: argparse.Namespace) -> int:
    folder = folder_of(options)
    with opened_store(folder) as store, store.snapshot() as connection:
        try:
            report = check_log(read_log(connection, ORIGIN), _load_public_key(folder))
            hubs = list_hub_logs(connection)
        except WireError as error:
            report, hubs = LogReport((Finding(0, str(error)),), 1, 0, 0, None, None), []
    findings = [*report.findings, *(_finding_about(hub) for hub in hubs if hub.forked_us is not None)]
    if options.json:
        _print(json.dumps(_report_as_json(report, findings, hubs)))
    else:
        for line in (*describe_report(report), *map(_describe_hub, hubs)):
            _print(line)
        for finding in findings:
            _print(f"FOUND {'row ' + str(finding.row) if finding.row else 'log'}: {finding.text}")
    return 1 if findings else 0


def _run_show(options: argparse.Namespace) -> int:
    if options.subject is not None:
        check_name(options.subject)
    with opened_store(folder_of(options)) as store:
        event = AuditEvent(operator(), Action.READ, Category.LOG, options.subject, purpose=Purpose.SECURITY)
        AuditLog(store, now_us).append(event)
        since_us = None if options.since is None else round(options.since.timestamp() * 1e6)
        with store.snapshot() as connection:
            for number, encoded in read_rows(connection, subject=options.subject, since_us=since_us):
                row = read_row(number, encoded)
                _print(json.dumps(row_as_json(row)) if options.json else describe_row(row))
    return 0


def _run_cut(options: argparse.Namespace) -> int:
    folder = folder_of(options)
    key = SigningKey.load(key_file(folder.path, Use.AUDIT), Use.AUDIT)
    at_us = now_us()
    event = AuditEvent(operator(), Action.CUT_LOG, Category.LOG)
    with opened_store(folder) as store:
        AuditLog(store, now_us).sign(key)
        with store.transaction() as connection:
            n = cut_log(connection, ORIGIN, key, event, at_us - options.keep_days * _DAY_US, at_us)
    _print(f"cut {n} rows that were older than {options.keep_days} days")
    return 0


def _load_public_key(folder: ClinicFolder) -> VerifyingKey | None:
    try:
        return SigningKey.load(key_file(folder.path, Use.AUDIT), Use.AUDIT).public
    except KeyFileError:
        return None


def _finding_about(hub: HubLog) -> Finding:
    since = format_us(hub.forked_us or 0)
    return Finding(0, f"the logs of hub {hub.hub} and this site contradict each other since {since}: a find-fork row says how")


def _describe_hub(hub: HubLog) -> str:
    return f"hub {hub.hub}: its log had {hub.head.number} rows, as of {format_us(hub.received_us)}"


def _report_as_json(report: LogReport, findings: list[Finding], hubs: list[HubLog]) -> dict[str, Any]:
    return {
        "first": report.first,
        "last": report.last,
        "anchored": report.anchored,
        "anchored_by": report.anchored_by,
        "unanchored_since": None if report.unanchored_since_us is None else format_us(report.unanchored_since_us),
        "hubs": [{"hub": hub.hub, "last": hub.head.number, "at": format_us(hub.received_us)} for hub in hubs],
        "findings": [{"row": finding.row, "text": finding.text} for finding in findings],
    }


def _parse_days(text: str) -> int:
    if not text.isdecimal() or int(text) < MIN_KEEP_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days: give {MIN_KEEP_DAYS} or more")
    return int(text)


def _print(line: str) -> None:
    sys.stdout.write(escape_controls(line) + "\n")
