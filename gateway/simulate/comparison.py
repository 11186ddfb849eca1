"""Compares the episodes of a script with the alerts that the clinic shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.simulate.script import Episode

ONSET_TOLERANCE_S: Final[Mapping[str, float]] = {"af": 15.0}
"""How far an alert's onset may be from the script's, by kind. AF shows only in a window of many intervals."""
DEFAULT_ONSET_TOLERANCE_S: Final = 3.0
"""The tolerance for the kinds whose onset is a single beat."""


@dataclass(frozen=True, slots=True)
class AlertComparison:
    """Episodes without an alert (`missed`), and alerts without an episode (`unexpected`)."""

    missed: tuple[Episode, ...] = ()
    unexpected: tuple[Mapping[str, Any], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether alerts and episodes correspond one to one."""
        return not self.missed and not self.unexpected


def compare_alerts(
    alerts: Sequence[Mapping[str, Any]], episodes: Sequence[Episode], not_due: Sequence[Episode] = ()
) -> AlertComparison:
    """Match each episode with at most one alert of its kind whose onset is within the tolerance.

    An alert has a "kind" and an "onset" in seconds of the script. Episodes that are `not_due` may have an alert already.
    """
    missed: list[Episode] = []
    unmatched = list(alerts)
    for episode in episodes:
        tolerance_s = ONSET_TOLERANCE_S.get(episode.kind, DEFAULT_ONSET_TOLERANCE_S)
        hit = next(
            (a for a in unmatched if a["kind"] == episode.kind and abs(a["onset"] - episode.onset_s) <= tolerance_s), None
        )
        if hit:
            unmatched.remove(hit)
        else:
            missed.append(episode)
    unexpected = compare_alerts(unmatched, not_due).unexpected if not_due else tuple(unmatched)
    return AlertComparison(tuple(missed), unexpected)
