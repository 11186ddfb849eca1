"""`pulsegate audit`: checks the hub's audit log, or prints its rows."""

import json
import sys
from argparse import Namespace
from dataclasses import asdict
from datetime import datetime

from config.settings import Settings
from config.terminal import escape_controls
from gateway.audit_log import AUDIT_FILE, AuditLog, open_audit_log
from gateway.clock import SystemClock
from sync.audit import read_row
from sync.audit_text import describe_report, describe_row, row_as_json
from sync.errors import PermanentError


def audit(settings: Settings, arguments: Namespace) -> int:
    """Run the command; returns 1 if `verify` finds something.

    Raises:
        SyncError: there is no log, or it cannot be read.
    """
    if not (settings.data / AUDIT_FILE).exists():
        raise PermanentError(f"there is no audit log in {settings.data}: the agent has never run there")
    log = open_audit_log(settings, SystemClock().wall_us)
    if arguments.what == "verify":
        return _verify(log, as_json=arguments.json)
    _show(log, arguments.subject, arguments.since, as_json=arguments.json)
    return 0


def _verify(log: AuditLog, *, as_json: bool) -> int:
    report, state = log.check(), log.state()
    if as_json:
        _print(json.dumps(asdict(report) | {"site_head": state.site and state.site.number, "site_is_forked": state.site_fork}))
    else:
        lines = [
            *describe_report(report),
            *([f"the clinic's log had {state.site.number} rows when it was last heard of"] if state.site else []),
            *(f"FOUND {f'row {finding.row}' if finding.row else 'log'}: {finding.text}" for finding in report.findings),
            *(["FOUND clinic: its signed heads contradict each other, so its log was rewritten"] if state.site_fork else []),
        ]
        for line in lines:
            _print(line)
    return 1 if report.findings or state.site_fork else 0


def _show(log: AuditLog, subject: str | None, since: datetime | None, *, as_json: bool) -> None:
    since_us = 0 if since is None else round(since.timestamp() * 1e6)
    for stored in log.rows():
        row = read_row(*stored)
        if row.at_us >= since_us and subject in (None, row.event.subject):
            _print(json.dumps(row_as_json(row)) if as_json else describe_row(row))


def _print(line: str) -> None:
    sys.stdout.write(escape_controls(line) + "\n")
