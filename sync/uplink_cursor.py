"""In which order an uplink reads the lanes of the outbox, and how far it has read each."""

from dataclasses import dataclass
from typing import Final

from sync.outgoing import Position
from sync.wire import Lane

SEND_ORDER: Final[tuple[tuple[Lane, bool], ...]] = (
    ("alert", False),
    ("alert", True),
    ("vital", True),
    ("wave", True),
    ("vital", False),
    ("wave", False),
    ("archive", True),
    ("archive", False),
)
"""(lane, is live), most urgent first."""
_START: Final[Position] = (0, 0)


@dataclass(slots=True)
class Cursor:
    """How far a lane has been read.

    `live` advances from the lane's end at the start of the connection; `backlog` advances from the lane's start to `boundary`.
    """

    live: Position
    boundary: Position
    backlog: Position = _START

    def advance(self, is_live: bool, position: Position) -> None:
        if is_live:
            self.live = position
        else:
            self.backlog = position
