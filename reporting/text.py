"""Times as people read them."""

from datetime import UTC, datetime

from reporting.result import Replayed


def start_time(result: Replayed) -> str | None:
    """When the file began, ISO 8601 in UTC; None where it does not tell."""
    if not result.start_known:
        return None
    return datetime.fromtimestamp(result.start_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(seconds: float) -> str:
    """Seconds as a person reads a clock: 1:02:03, 4:05."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
