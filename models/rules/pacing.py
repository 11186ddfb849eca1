"""States once that pacing spikes cannot be seen, where the sampling rate is too low to show them."""

from collections.abc import Iterator

from config.contexts import Contexts
from models.findings import Finding
from models.signal.spikes import MIN_SPIKE_HZ


class PacingRule:
    """Reports `pacing_not_visible` for a stream of a paced patient: it begins and ends with the stream."""

    def __init__(self, rate_hz: float, contexts: Contexts) -> None:
        self._rate_hz = rate_hz
        self._is_due = contexts.paced and rate_hz < MIN_SPIKE_HZ
        self._is_open = False

    def start(self) -> Iterator[Finding]:
        """Report it at the first samples; call this at every hop."""
        if self._is_due:
            self._is_due, self._is_open = False, True
            yield self._finding(None)

    def finish(self, end_s: float) -> Iterator[Finding]:
        """End the stream."""
        if self._is_open:
            self._is_open = False
            yield self._finding(end_s)

    def _finding(self, end_s: float | None) -> Finding:
        measured = {"rate_hz": round(self._rate_hz, 1), "limit_hz": MIN_SPIKE_HZ}
        return Finding("pacing_not_visible", 0.0, end_s, "rule:pacing_not_visible", None, measured)
