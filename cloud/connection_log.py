"""Logs connections and failed attempts: time, address and reason (BSI TR-03161-3, O.Ntwk_7 and O.Ntwk_8).

A flood cannot fill the disk: of each kind at most `LINES_LIMIT` lines are written in `WINDOW_S`, then how many were left out.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from cloud.metrics import CONNECTIONS

LINES_LIMIT: Final = 300
"""Lines of one kind in `WINDOW_S`: twenty browsers that load the page, with a dozen connections each. At most 50 MB a day."""
WINDOW_S: Final = 60.0

_log: Final = logging.getLogger(__name__)


class ConnectionLog:
    """The log of one server. `server` names it in each line; `clock_s` is monotonic."""

    def __init__(self, server: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._accepted, self._refused = _Limit(clock_s), _Limit(clock_s)

    def accept(self, address: str, name: str | None) -> None:
        """Log a connection, and the name in the client's certificate if it has one."""
        whose = "" if name is None else f" of {name}"
        CONNECTIONS.labels(self._server, "accepted").inc()
        self._write(self._accepted, logging.INFO, f"{self._server}: connection from {address}{whose}", "connections")

    def refuse(self, address: str, reason: str) -> None:
        """Log a failed attempt."""
        CONNECTIONS.labels(self._server, "refused").inc()
        line = f"{self._server}: refused a connection from {address}: {reason}"
        self._write(self._refused, logging.WARNING, line, "failed attempts")

    def _write(self, limit: "_Limit", level: int, line: str, kind: str) -> None:
        is_allowed, left_out = limit.take()
        if left_out:
            _log.log(level, "%s: %d more %s in %d s are not listed", self._server, left_out, kind, WINDOW_S)
        if is_allowed:
            _log.log(level, "%s", line)


class _Limit:
    """Allows `LINES_LIMIT` lines in each window, which begins with its first line."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._end_s = self._clock_s()
        self._lines = 0

    def take(self) -> tuple[bool, int]:
        """Return whether a line may be written, and how many were left out in the window that has just ended."""
        now_s, left_out = self._clock_s(), 0
        if now_s >= self._end_s:
            left_out = max(0, self._lines - LINES_LIMIT)
            self._end_s, self._lines = now_s + WINDOW_S, 0
        self._lines += 1
        return self._lines <= LINES_LIMIT, left_out
