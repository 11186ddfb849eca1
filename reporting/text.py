"""Formats times, probabilities and file names for people."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

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


def format_probability(value: float | None) -> str:
    """Returns a probability in percent. Only a certain result is 100 % or 0 %."""
    if value is None:
        return "–"
    percent = round(100 * value)
    if percent >= 100 and value < 1:
        return "> 99 %"
    return "< 1 %" if percent <= 0 < value else f"{percent} %"


def short_names(files: Sequence[str]) -> list[str]:
    """Returns the names of files without their folders, with a number where an earlier file has the same name."""
    seen: Counter[str] = Counter()
    names = []
    for file in files:
        name = Path(file).name or file
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names
