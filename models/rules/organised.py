"""Measures for how long the heart has beaten in an organised rhythm: QRS complexes at 40 to 150/min."""

from typing import Final

from models.findings import Finding
from models.signal.filters import median_of
from models.signal.latest import Latest

MIN_BPM: Final = 40.0
MAX_BPM: Final = 150.0
"""Rates of a rhythm that perfuses, with a margin: slower and faster ones need an alert of their own."""

MEDIAN_INTERVALS: Final = 5
"""A single early beat and its pause do not interrupt an organised rhythm."""

MAX_INTERVAL_S: Final = 3.0
"""No beat for as long as a pause interrupts it."""

DISORGANISED: Final = frozenset({"vt", "vf", "pause", "asystole", "no_beats"})
"""Kinds of findings that exclude an organised rhythm while they last."""


class OrganisedRhythm:
    """Tells since when the rhythm has been organised without interruption.

    Attributes:
        since_s: stream time of the first beat of the organised rhythm; None while there is none.
    """

    def __init__(self) -> None:
        self.since_s: float | None = None
        self._intervals_s = Latest[float](MEDIAN_INTERVALS)
        self._first_s = self._last_s = 0.0
        self._ongoing: set[tuple[str, float]] = set()

    def on_beat(self, t_s: float, rr_s: float | None) -> None:
        """Process one beat with the interval that ends at it, None after a gap."""
        if rr_s is None or rr_s > MAX_INTERVAL_S:  # a standstill is no part of the rhythm that follows it
            self.interrupt()
        else:
            self._intervals_s.append(rr_s)
        self._first_s = self._first_s if self._intervals_s else t_s
        self._last_s = t_s
        if not self._intervals_s or self._ongoing:
            return
        if not MIN_BPM <= 60.0 / median_of(self._intervals_s) <= MAX_BPM:
            self.since_s = None
        elif self.since_s is None:
            self.since_s = max(self._first_s, t_s - sum(self._intervals_s))

    def on_finding(self, finding: Finding) -> None:
        """Process a finding of another rule: some exclude an organised rhythm while they last."""
        if finding.kind not in DISORGANISED or finding.inconclusive:
            return
        if finding.end_s is None:
            self._ongoing.add(finding.episode)
            self.interrupt()
        else:
            self._ongoing.discard(finding.episode)

    def advance_to(self, t_s: float) -> None:
        """Process the time up to `t_s`, before which no further beat will be reported."""
        if t_s - self._last_s > MAX_INTERVAL_S:
            self.interrupt()

    def interrupt(self) -> None:
        """Start over: there was a gap, or another rhythm."""
        self.since_s = None
        self._intervals_s.clear()
