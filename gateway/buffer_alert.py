"""The technical alert that the buffer is nearly full. While it is ongoing, `gateway.thinning` leaves out vital signs."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.clock import Clock
from gateway.hub_alerts import end_hub_alert, hub_alert_state, load_hub_alert, make_hub_alert
from sync.records import AlertRecord

BUFFER_ALERT_KIND: Final = "buffer_nearly_full"
BUFFER_STATE_KEY: Final = "buffer"
"""The key in the buffer's state under which an ongoing alert is stored."""
BUFFER_CALM_S: Final = 600.0
"""How long the buffer must have room before the alert ends. On a slow link, the buffer may have room and be
nearly full again within seconds: the alert must not end and begin each time."""


class BufferAlert:
    """Raises the alert once when the buffer becomes nearly full, and ends it when it has had room for `BUFFER_CALM_S`."""

    def __init__(self, clock: Clock, saved: Mapping[str, Any] | None = None) -> None:
        """`saved` is the state that was last stored under `BUFFER_STATE_KEY`; None if there is none."""
        self._clock = clock
        self._ongoing = load_hub_alert(saved)
        self._last_full_ns = clock.mono_ns()

    @property
    def is_ongoing(self) -> bool:
        return self._ongoing is not None

    def state(self) -> Mapping[str, Any]:
        """The state to store with each alert that `update` returned, ready for JSON."""
        return hub_alert_state(self._ongoing)

    def update(self, *, is_nearly_full: bool) -> tuple[AlertRecord, ...]:
        """Returns the alert when it begins or ends, otherwise nothing. Call it after each write."""
        now_ns, now_us = self._clock.mono_ns(), self._clock.wall_us()
        if is_nearly_full:
            self._last_full_ns = now_ns
            if self._ongoing is None:
                self._ongoing = make_hub_alert(BUFFER_ALERT_KIND, f"rule:{BUFFER_ALERT_KIND}", now_us=now_us)
                return (self._ongoing,)
        elif self._ongoing is not None and now_ns - self._last_full_ns >= BUFFER_CALM_S * 1e9:
            ended, self._ongoing = end_hub_alert(self._ongoing, now_us), None
            return (ended,)
        return ()
