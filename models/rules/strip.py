"""The part of a signal that a rule looks at."""

from typing import Protocol

from models.signal.filters import Samples


class Strip(Protocol):
    """The ECG as `models.signal.chain.EcgChain` keeps it."""

    def strip(self, start_s: float, end_s: float) -> tuple[float, Samples]:
        """Return the time of the first sample, and mV at 125 Hz without baseline, NaN in gaps."""
        ...
