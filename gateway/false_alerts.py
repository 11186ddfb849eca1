"""After the clinic marked an alert of AF as false, this patient's AF needs twice the evidence for 30 days.

One of 27 people without AF has most of the false alerts, and has them every day: what misled the model once does so again.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from config.limits import Limits
from models.findings import Finding
from sync.records import AlertRecord

KINDS: Final = frozenset({"af", "irregular_pulse"})
DAY_US: Final = 86_400_000_000

log = logging.getLogger(__name__)


class FalseAlerts:
    """Holds the alerts of AF episodes that are still short, while this patient's need twice the evidence."""

    def __init__(self, limits: Limits, until_us: int | None = None) -> None:
        """`until_us` is what an earlier object had: until when the evidence counts half."""
        self._factor = limits.false_af_evidence.value
        self._kept_us = round(limits.false_af_days.value) * DAY_US
        self.until_us = until_us
        self._episode: tuple[str, float] | None = None
        self._due_us = 0
        """The latest episode that was held, and when it has lasted for long enough."""
        self._held: tuple[Finding, AlertRecord] | None = None

    def mark(self, sensor: str, kind: str, now_us: int) -> None:
        """Process that the clinic marked an alert of this kind as false."""
        if kind in KINDS:
            self.until_us = now_us + self._kept_us
            log.info("%s: an alert was marked as false; its kind needs twice the evidence for a month", sensor)

    def hold(self, finding: Finding, alert: AlertRecord, now_us: int) -> bool:
        """Return whether the alert about an episode must wait, because this is too short so far or was too short.

        It must last twice as long as it took to be found at `now_us` of the stream, and not seem to have ended. The findings
        of a cuff, which no model made, do not wait.
        """
        if finding.kind not in KINDS or finding.probability is None or self.until_us is None or alert.onset_us >= self.until_us:
            return False
        if self._episode != finding.episode:
            self._episode = finding.episode
            self._due_us = alert.onset_us + round(self._factor * (now_us - alert.onset_us))
        goes_on = alert.end_us is None and "maybe_ended" not in finding.measured
        self._held = (finding, alert) if goes_on else None
        return alert.end_us is None or alert.end_us < self._due_us

    def take_due(self, now_us: int, decided_us: int) -> tuple[Finding, AlertRecord] | None:
        """Return the episode that was held and has lasted for long enough now."""
        if self._held is None or now_us < self._due_us:
            return None
        (finding, alert), self._held = self._held, None
        return finding, replace(alert, decided_us=decided_us, raised_us=decided_us)

    def clear(self) -> None:
        """Forget the episode that is held: its stream has ended."""
        self._held = None

    def state(self) -> Mapping[str, Any]:
        """Return what must survive a restart, ready for JSON."""
        return {"until_us": self.until_us}
