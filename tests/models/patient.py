"""A patient whose vital signs are measured with one set of rules."""

from config.limits import DEFAULT_LIMITS, Limits
from models.findings import Finding
from models.rules.vitals import VitalRules

US_PER_S = 1_000_000
MINUTE, HOUR, DAY = 60, 3600, 86400
START_S = 20_000 * DAY + 8 * HOUR
"""A day at 08:00 UTC, in seconds since 1970."""


class Patient:
    """Measures vital signs with one set of rules; `at` is in seconds since `START_S`."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.rules = VitalRules(limits)

    def measure(self, at: float, kind: str, value: float, *flags: str) -> list[Finding]:
        return list(self.rules.feed(kind, value, round((START_S + at) * US_PER_S), flags))

    def pressure(self, at: float, systolic: float, diastolic: float, *flags: str) -> list[Finding]:
        return self.measure(at, "systolic", systolic, *flags) + self.measure(at, "diastolic", diastolic, *flags)


def episodes(findings: list[Finding]) -> list[tuple[str, float, float | None]]:
    """Return kind, onset and end of each finding, in seconds since `START_S`."""
    return [(f.kind, f.onset_s - START_S, None if f.end_s is None else f.end_s - START_S) for f in findings]


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]
