"""Rows and reports of an audit log as lines of text and as JSON."""

from datetime import UTC, datetime
from typing import Any

from sync.audit import AuditRow
from sync.audit_check import LogReport


def describe_row(row: AuditRow) -> str:
    """One line: number, time, actor, what was done to what, whose data, why and how it ended."""
    event = row.event
    actor = f"{event.actor.role}:{event.actor.id}@{event.actor.organisation}"
    subject = f" subject={event.subject}" if event.subject else ""
    session = f" session={event.session}" if event.session else ""
    count = f" count={event.count}" if event.count > 1 else ""
    objects = f" {' '.join(event.objects)}" if event.objects else ""
    done = f"{event.action} {event.category}{subject}{objects}"
    return f"{row.number} {format_us(row.at_us)} {actor} {done} for={event.purpose} {event.outcome}{count}{session}"


def row_as_json(row: AuditRow) -> dict[str, Any]:
    """Return the fields of a row."""
    event = row.event
    return {
        "row": row.number,
        "at": format_us(row.at_us),
        "origin": {"end": str(row.origin.end), "name": row.origin.name},
        "actor": event.actor._asdict(),
        "session": event.session,
        "subject": event.subject,
        "action": event.action,
        "category": event.category,
        "objects": list(event.objects),
        "purpose": event.purpose,
        "outcome": event.outcome,
        "count": event.count,
        "previous": row.previous.hex(),
    }


def describe_report(report: LogReport) -> list[str]:
    """Return the lines of a check: which rows are there, and which of them another end can prove."""
    if report.last < report.first:
        return ["no row could be followed" if report.findings else "the log has no rows"]
    lines = [f"rows {report.first} to {report.last} follow each other"]
    if report.anchored_by is not None:
        lines.append(f"{report.anchored_by} holds a signed head of row {report.anchored}")
    if report.unanchored_since_us is not None:
        first = max(report.anchored + 1, report.first)
        since = format_us(report.unanchored_since_us)
        lines.append(f"rows {first} to {report.last} are not anchored at another end, since {since}")
    return lines


def format_us(time_us: int) -> str:
    """A time (microseconds since 1970) as RFC 3339 writes it, in UTC."""
    return datetime.fromtimestamp(time_us / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
