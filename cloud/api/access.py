"""Logs each access to a subject's data before the data is shown. What cannot be logged is not shown.

Pages ask again every few seconds, and follow a feed. So one row stands for all that a reader sees of a subject and category
within `ACCESS_WINDOW_S`; it is on the disk before the first of it is shown.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from cloud.audit_log import AuditLog
from sync.audit import Action, Actor, AuditEvent, Category, Purpose
from sync.wire import is_name

ACCESS_WINDOW_S: Final = 600.0
"""A reader who watches 100 patients all day then adds 43,000 rows, some 15 MB, and every access is known to ten minutes."""
MAX_REMEMBERED: Final = 100_000
"""Accesses that are remembered, some 20 MB. Beyond it old ones are forgotten, and logged again at their next use."""
CATEGORIES: Final = {
    "patient": Category.OVERVIEW,
    "alert": Category.ALERTS,
    "ecg": Category.WAVEFORMS,
    "vital": Category.VITALS,
    "sensor": Category.VITALS,
}
"""The category of each type of live message that holds data of a subject."""


class AccessLog:
    """Notes accesses in the site's audit log. Thread-safe. `clock_s` is monotonic."""

    def __init__(self, log: AuditLog, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock_s = clock_s
        self._logged_s: dict[tuple[Actor, Category, str], float] = {}
        self._appending = threading.Lock()

    def is_noted(self, reader: Actor, category: Category, subject: str) -> bool:
        """Whether a row of the present window stands for this access. It does not wait for the database."""
        logged_s = self._logged_s.get((reader, category, subject))
        return logged_s is not None and self._clock_s() - logged_s < ACCESS_WINDOW_S

    def note(self, reader: Actor, category: Category, subjects: Iterable[str]) -> None:
        """Log that a reader sees data of these subjects, unless it is logged; the rows are on the disk on return.

        Raises:
            TransientError, PermanentError: the store failed. The data must not be shown.
        """
        wanted = sorted({subject for subject in subjects if is_name(subject)})
        if all(self.is_noted(reader, category, subject) for subject in wanted):
            return
        with self._appending:  # a second request waits until the row of the first is on the disk
            new = [subject for subject in wanted if not self.is_noted(reader, category, subject)]
            self._log.append(*(AuditEvent(reader, Action.READ, category, subject, purpose=Purpose.CARE) for subject in new))
            self._remember(reader, category, new)

    def _remember(self, reader: Actor, category: Category, subjects: Iterable[str]) -> None:
        now_s = self._clock_s()
        if len(self._logged_s) > MAX_REMEMBERED:
            self._logged_s = {key: at_s for key, at_s in self._logged_s.items() if now_s - at_s < ACCESS_WINDOW_S}
        if len(self._logged_s) > MAX_REMEMBERED:
            self._logged_s = {}
        self._logged_s.update({(reader, category, subject): now_s for subject in subjects})
