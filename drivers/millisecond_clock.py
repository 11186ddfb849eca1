"""The clock of a sensor that counts milliseconds since it was switched on in 32 bits."""

from typing import Final

_WRAP_MS: Final = 2**32
"""The counter starts again at 0 after 49.7 days."""


class MillisecondClock:
    """Continues the time of a sensor beyond the end of its counter, for the length of a connection.

    A sensor that is switched off loses its connection, so a stamp belongs to the half of the counter's range around the last
    one. Frames of several streams may arrive out of order.
    """

    def __init__(self) -> None:
        self._last_ms: int | None = None

    def continue_ms(self, stamp_ms: int) -> int:
        """The time of a stamp, in ms since the counter was 0 before the first stamp of this connection."""
        last_ms = stamp_ms if self._last_ms is None else self._last_ms
        half = _WRAP_MS // 2
        self._last_ms = last_ms + (stamp_ms - last_ms + half) % _WRAP_MS - half
        return self._last_ms
