"""The result of the demo: whether anything was lost and whether every alert was shown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from gateway.simulate.audit import Audit
from gateway.simulate.comparison import AlertComparison, compare_alerts
from gateway.simulate.home_audit import SensorAudit
from gateway.simulate.script import Episode, begun_episodes, expected_episodes, load_script

SEVERE_SYSTOLIC_MMHG: Final = 180
"""A pressure from here on raises an alert: the agent's limit `crisis_systolic`."""
SEVERE_PRESSURE: Final = "bp_crisis"

Alerts = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found out. `missed` and `unexpected` are alerts of the sensors in the home; see `HomeAlerts`."""

    audited: Audit
    pending: int
    home: Mapping[str, SensorAudit] = field(default_factory=dict)
    home_alerts: AlertComparison = field(default_factory=AlertComparison)
    episodes: tuple[Episode, ...] = ()
    compared: AlertComparison = field(default_factory=AlertComparison)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost or stored twice, and every expected alert was shown and no other."""
        is_complete = self.audited.passed and all(audit.passed for audit in self.home.values()) and not self.pending
        return is_complete and self.compared.passed and self.home_alerts.passed

    def as_json(self) -> dict[str, Any]:
        """Return the audits and comparisons, ready for JSON."""
        result: dict[str, Any] = {
            **self.audited.counts(),
            "expected": [asdict(episode) for episode in self.episodes],
            "missed": [asdict(episode) for episode in (*self.compared.missed, *self.home_alerts.missed)],
            "unexpected": [*self.compared.unexpected, *self.home_alerts.unexpected],
        }
        if self.home:
            result["sensors"] = {name: audit.counts() for name, audit in self.home.items()}
        return result

    def format(self) -> str:
        """Return the verdict in one line for each part, with the markup of rich."""
        lines = [
            f"{name}: {audit.measured} results measured, {audit.stored} at the clinic, {audit.in_sensor} still in the sensor; "
            f"{audit.values_sent} values sent, {audit.values_stored} at the clinic; "
            f"{audit.lost + audit.values_lost} lost, {audit.repeated + audit.values_repeated} twice"
            for name, audit in self.home.items()
        ]
        missed = len(self.compared.missed) + len(self.home_alerts.missed)
        unexpected = len(self.compared.unexpected) + len(self.home_alerts.unexpected)
        verdict = "[green]passed[/green]" if self.passed else "[bold red]failed[/bold red]"
        lines.append(
            f"{self.audited.samples_unaccounted} samples unaccounted for, {missed} episodes missed, "
            f"{unexpected} alerts without an episode, {self.pending} blocks not acknowledged: {verdict}"
        )
        return "\n".join(lines)


def compare_with_script(alerts: Alerts, script_name: str, seconds: float) -> tuple[tuple[Episode, ...], AlertComparison]:
    """Return the episodes that a script has up to `seconds`, and their comparison with the alerts."""
    script = load_script(script_name)
    episodes = expected_episodes(script, seconds)
    not_due = [episode for episode in begun_episodes(script, seconds) if episode not in episodes]
    return episodes, compare_alerts(alerts, episodes, not_due)


def compare_home_alerts(alerts: Alerts, severe_pressures: int) -> AlertComparison:
    """Compare the alerts of the sensors in the home with the number of severely raised pressures that the clinic holds.

    There is one alert at least if there was such a pressure, because each may continue the alert of the one before.
    """
    found = [alert for alert in alerts if alert["kind"] == SEVERE_PRESSURE]
    missed = (Episode(SEVERE_PRESSURE, 0.0, 0.0),) if severe_pressures and not found else ()
    unexpected = tuple(alert for alert in alerts if alert not in found or not severe_pressures)
    return AlertComparison(missed, unexpected)
