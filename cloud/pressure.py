"""Decides when hubs have to wait: ingest answers later and later, and the broker drops messages in the end."""

import math
from dataclasses import dataclass
from typing import Final

from sync.wire import RETRY_AFTER_LIMIT_S

DELAY_LIMIT_S: Final = 1.0
"""How long a message may wait before hubs are asked to pause: half of the shortest time after which a hub sends it again."""
WAIT_PER_DELAY: Final = 2
"""A hub waits twice the time that the queue takes to drain: as much again for what the other hubs send meanwhile."""
_WEIGHT: Final = 0.2
"""Weight of the latest commit in the average: it follows a slower database within some five messages."""


@dataclass(slots=True)
class Pressure:
    """Estimates how long a new message waits from the queue's length and the time that a message takes."""

    _handling_s: float = 0.0

    def note(self, handling_s: float) -> None:
        """Note how long a message took, from its receipt to the end of its commits."""
        self._handling_s += _WEIGHT * (handling_s - self._handling_s)

    def retry_after_s(self, waiting: int) -> int:
        """Return how long a hub has to wait with everything but alerts, if so many messages wait; 0 if it need not."""
        delay_s = (waiting + 1) * self._handling_s
        if delay_s <= DELAY_LIMIT_S:
            return 0
        return min(math.ceil(WAIT_PER_DELAY * delay_s), RETRY_AFTER_LIMIT_S)
