"""Faults of a stream of frames: frames that are lost before the radio, and frames that come late in a burst."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gateway.simulate.peripherals.peripheral import now_s

Frame = TypeVar("Frame")


@dataclass(slots=True)
class FrameFaults(Generic[Frame]):
    """What a stream passes each of its frames through. Without a fault it returns each at once."""

    _skips: int = 0
    _held_until_s: float = 0.0
    _held: list[Frame] = field(default_factory=list)

    def skip(self, frames: int = 1) -> None:
        """Lose the next frames: they are never sent."""
        self._skips += frames

    def hold(self, seconds: float) -> None:
        """Hold all frames back for so long, then send them together."""
        self._held_until_s = now_s() + seconds

    def reset(self) -> None:
        """Discard what is held: the stream has ended."""
        self._held.clear()

    def release(self, frame: Frame) -> list[Frame]:
        """Return the frames to send now that `frame` is complete, oldest first."""
        if self._skips:
            self._skips -= 1
            return []
        self._held.append(frame)
        if now_s() < self._held_until_s:
            return []
        released, self._held = self._held, []
        return released
