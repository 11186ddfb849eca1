"""Slows those who guess codes: after some wrong ones, an address must wait, and after many, everybody.

The secrets have 128 bits, so no number of guesses finds one. The limits keep a flood of guesses from the disk and the log.
"""

import ipaddress
import threading
from collections import OrderedDict, deque
from typing import Final

WINDOW_S: Final = 600.0
"""Wrong codes count for so long. A person who mistypes waits no longer than it takes to ask the clinic."""
ADDRESS_LIMIT: Final = 10
"""Wrong codes of one address in `WINDOW_S`: more than a person mistypes. Behind one address there may be a clinic."""
TOTAL_LIMIT: Final = 300
"""Wrong codes of all addresses in `WINDOW_S`: fifty times what the hubs of a site mistype on a busy day."""
MAX_ADDRESSES: Final = 10_000
"""Addresses that are remembered; the oldest is forgotten first. They take some 5 MB."""
_IPV6_PREFIX: Final = 64
"""One subscriber has at least a whole prefix of this length (RFC 6177)."""


class Throttle:
    """Counts wrong codes. Times are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: deque[float] = deque(maxlen=TOTAL_LIMIT)
        self._of: OrderedDict[str, deque[float]] = OrderedDict()

    def allows(self, address: str, now_s: float) -> bool:
        """Whether an address may try a code now."""
        with self._lock:
            failures = self._of.get(_group(address))
            return not (_is_full(self._all, now_s) or (failures is not None and _is_full(failures, now_s)))

    def note_failure(self, address: str, now_s: float) -> None:
        """Count a wrong code."""
        with self._lock:
            self._all.append(now_s)
            if ipaddress.ip_address(address).is_loopback:  # a load balancer on this machine: everybody comes from there
                return
            failures = self._of.setdefault(_group(address), deque(maxlen=ADDRESS_LIMIT))
            failures.append(now_s)
            self._of.move_to_end(_group(address))
            if len(self._of) > MAX_ADDRESSES:
                self._of.popitem(last=False)


def _is_full(failures: deque[float], now_s: float) -> bool:
    return len(failures) == failures.maxlen and now_s - failures[0] < WINDOW_S


def _group(address: str) -> str:
    """An IPv4 address, or the network of a subscriber with IPv6."""
    parsed = ipaddress.ip_address(address)
    return address if parsed.version == 4 else str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
