"""Formats times for people."""

from datetime import UTC, datetime

from reporting.result import ReplayResult


def format_start(result: ReplayResult) -> str | None:
    """Returns the start time of the file, ISO 8601 in UTC; None if unknown."""
    if not result.start_known:
        return None
    return datetime.fromtimestamp(result.start_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_clock(seconds: float) -> str:
    """Returns seconds in clock format: 1:02:03, 4:05."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
