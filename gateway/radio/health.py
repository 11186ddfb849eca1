"""Notices an adapter that hangs: every scan and every connect fails because something of before never ends."""

from dataclasses import dataclass
from typing import Final

from bleak.exc import BleakDBusError

STUCK_AFTER_S: Final = 120.0
"""bluetoothd ends an attempt of its own after 20 s. An adapter that is still busy after six of them hangs."""
STUCK_WITH_LINKS_AFTER_S: Final = 1800.0
"""A power cycle ends all links, so where some are up it waits longer: it then costs them seconds, twice an hour at most."""
MIN_FAILURES: Final = 5
"""Fewer may be the fault of one attempt."""
_BUSY: Final = ("org.bluez.Error.InProgress", "org.bluez.Error.NotReady")


def is_radio_busy(error: BaseException) -> bool:
    """Return whether the adapter refused something because it is still busy, or not ready."""
    return isinstance(error, BleakDBusError) and error.dbus_error in _BUSY


@dataclass(slots=True)
class RadioHealth:
    """Counts the failures of the adapter since something last succeeded."""

    failures: int = 0
    successes: int = 0
    _since_s: float = 0.0

    def note_success(self) -> None:
        """A scan saw a device, or a connect succeeded."""
        self.failures = 0
        self.successes += 1

    def forget_failures(self) -> None:
        """Count anew, after a power cycle."""
        self.failures = 0

    def note_failure(self, error: BaseException, now_s: float) -> None:
        """A scan or connect failed. Failures that the sensor may have caused do not count."""
        if is_radio_busy(error):
            self._since_s = self._since_s if self.failures else now_s
            self.failures += 1

    def is_stuck(self, now_s: float, links: int) -> bool:
        """Return whether only a power cycle can help. `links` is the number of connected sensors."""
        limit_s = STUCK_WITH_LINKS_AFTER_S if links else STUCK_AFTER_S
        return self.failures >= MIN_FAILURES and now_s - self._since_s >= limit_s
