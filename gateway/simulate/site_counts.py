"""The counts of `make site-demo`: what was sent, and what arrived at each place."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CUT_SAMPLES: Final = 150
"""The last frames of a strap that is switched off may not arrive: at most a second of 130 Hz, and a frame."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What arrived where. Samples are of the ECG; the page shows `opened`, which were sent, and `foreign`, which were not."""

    sent: int
    received: int
    opened: int
    foreign: int
    blocks: int
    acknowledged: int
    without_receipt: int
    episodes: int
    alerts: int
    missed: int
    unexpected: int

    @property
    def passed(self) -> bool:
        """Whether everything that the hub received was acknowledged, opened and shown, and each alert with it."""
        is_sent = 0 < self.received <= self.sent <= self.received + CUT_SAMPLES
        is_whole = self.opened == self.received and not self.foreign
        is_acknowledged = 0 < self.blocks == self.acknowledged and not self.without_receipt
        return is_sent and is_whole and is_acknowledged and self.episodes > 0 and not (self.missed or self.unexpected)

    def format(self) -> str:
        """Return the closing line."""
        parts = (
            f"samples: {self.sent} sent, {self.received} received by the hub, {self.opened} opened and shown, "
            f"{self.foreign} foreign",
            f"blocks: {self.blocks} stored, {self.acknowledged} acknowledged, {self.without_receipt} without a receipt",
            f"alerts: {self.episodes} due, {self.alerts} shown, {self.missed} missed, {self.unexpected} unexpected",
        )
        return f"{'; '.join(parts)}: {'passed' if self.passed else 'failed'}"


def count_samples(frames: Sequence[tuple[int, int]], shown: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return how many samples of `shown` were sent, and how many were not. Both are lists of checksum and number of samples."""
    left = Counter(frames)
    opened = foreign = 0
    for one in shown:
        if left[one] > 0:
            left[one] -= 1
            opened += one[1]
        else:
            foreign += one[1]
    return opened, foreign
