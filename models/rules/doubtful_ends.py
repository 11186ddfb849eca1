"""Holds back the end of a dangerous episode until the signal after it is known to be one.

The rules on beats end a standstill or a ventricular run at beats of another kind, and a run where no beat comes. In noise the
detector finds such beats, and at an electrode that comes off it finds none. Both are known only seconds later. Whether the
episode goes on is not known then: it ends as lost.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from models.findings import Finding
from models.rules.shared_episodes import CHANCE, FIBRILLATION, GROUPS, RULE

CHECK_S: Final = 5.0
"""An end is held back for so long (our choice): a window of four seconds that noise fills, and a second until it is judged."""
BEFORE_S: Final = 1.0
"""A loss that begins so close before the end counts, too: the end is the time of a beat, which may come from the noise."""

OTHER_RHYTHMS: Final = CHANCE | {FIBRILLATION, "tachycardia"} | set(GROUPS)
"""A finding of one of these kinds shows what follows the episode, so that its end is reported at once."""


class DoubtfulEnds:
    """The ends that are held back, in order."""

    def __init__(self) -> None:
        self._held: list[tuple[float, Finding]] = []
        """Until when each is held back."""

    @property
    def is_holding(self) -> bool:
        """Whether the end of an episode is held back: it is over as far as the rules on beats can tell."""
        return bool(self._held)

    def filter_finding(self, finding: Finding, now_s: float) -> Iterator[Finding]:
        """Yield a finding that was reported at `now_s`, unless it is an end in doubt."""
        is_rule = finding.source.startswith(RULE) and finding.inconclusive is None
        if is_rule and finding.kind in GROUPS and finding.end_s is not None and not finding.lost:
            self._held.append((now_s + CHECK_S, finding))
            return
        if finding.kind in OTHER_RHYTHMS and finding.end_s is None and finding.inconclusive is None:
            yield from self.flush()
        yield finding

    def advance_to(self, now_s: float, is_lost: Callable[[float, float], bool]) -> Iterator[Finding]:
        """Yield the ends that are known at `now_s`; `is_lost` tells whether the signal between two times is noise or flat."""
        if not self._held:
            return
        held, self._held = self._held, []
        for until_s, finding in held:
            assert finding.end_s is not None
            if is_lost(finding.end_s - BEFORE_S, now_s):
                yield replace(finding, lost=True)
            elif now_s >= until_s:
                yield finding
            else:
                self._held.append((until_s, finding))

    def flush(self) -> Iterator[Finding]:
        """Yield all that are held back: another rhythm shows that they are ends."""
        held, self._held = self._held, []
        yield from (finding for _, finding in held)

    def lose(self) -> Iterator[Finding]:
        """Yield all that are held back as lost: the signal ends, and nothing more will be known of it."""
        yield from (replace(finding, lost=True) for finding in self.flush())
