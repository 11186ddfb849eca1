"""When the MQTT client connects again."""

from dataclasses import dataclass
from typing import Final

BACKOFF_S: Final = (0.5, 30.0)
"""Shortest and longest pause before a new connection. It doubles until a connection lasts `USEFUL_AFTER_S`, and is shortened at
random by up to a half, so the hubs of a restarted broker do not all reconnect at once."""
USEFUL_AFTER_S: Final = 10.0
"""A connection that lasts as long is useful: the broker had time to accept messages. One that refuses a publish by closing, or
two clients with one id that disconnect each other, end a connection within a few round trips (2 s each over 2G)."""


@dataclass(slots=True)
class Backoff:
    """The pause before the next connection."""

    _pause_s: float = BACKOFF_S[0]

    def next_pause_s(self, lasted_s: float) -> float:
        """The pause after a connection that was open for `lasted_s`; 0 if it was never accepted."""
        shortest, longest = BACKOFF_S
        pause_s = shortest if lasted_s >= USEFUL_AFTER_S else self._pause_s
        self._pause_s = min(2 * pause_s, longest)
        return pause_s
