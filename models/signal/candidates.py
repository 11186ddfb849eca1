"""What the QRS detector works on and what it finds: candidates of the envelope, and R peaks."""

from typing import NamedTuple

from models.signal.beat_classifier import Classification
from models.signal.shape import Match


class RPeak(NamedTuple):
    """An R peak: its sample number at 125 Hz, and its height over the baseline in mV (negative in an inverted lead)."""

    sample: float
    amplitude_mv: float


class PeakCandidate(NamedTuple):
    """A local maximum of the envelope, which may be a beat.

    `envelope` is the height of the envelope in mV. Decisions use `height`, which the matched filter measures in noise. `match`
    and `classification` (see `models.signal.noisy_qrs`) are None where they were not needed.
    """

    sample: int
    envelope: float
    height: float
    match: Match | None = None
    classification: Classification | None = None
