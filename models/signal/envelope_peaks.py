"""The peaks of the envelope, each of which may be a beat."""

from typing import Final

from models.signal.candidates import PeakCandidate
from models.signal.envelope import ENVELOPE_MARGIN, envelope
from models.signal.filters import RingBuffer
from models.signal.resample import RATE_HZ

LOOKAHEAD_SAMPLES: Final = round(0.08 * RATE_HZ)
"""A candidate has no higher peak within this distance. With the filter delays, a beat is reported 0.33 s after its R peak."""

MIN_ENVELOPE_MV: Final = 0.01
MAX_ENVELOPE_MV: Final = 1.5
"""Envelope height of the smallest and the largest beats: a QRS complex of 0.1 mV exceeds ADC noise, and none exceeds 5 mV."""

BUFFER_SAMPLES: Final = round(17.0 * RATE_HZ)
"""Samples that a decision may need, back from the newest one."""


class EnvelopePeaks:
    """Computes the envelope of one gap-free stretch of signal and finds its peaks."""

    def __init__(self, signal: RingBuffer, start: int) -> None:
        """Read samples from `signal`; the stretch starts at sample `start`."""
        self._signal = signal
        self._start = start
        self.envelope = RingBuffer(BUFFER_SAMPLES, start)

    def extend(self, end: int) -> None:
        """Extend the envelope to sample `end`; the signal is padded at both ends of the stretch."""
        start = self.envelope.end
        if start < end:
            first, stop = start - ENVELOPE_MARGIN, end + ENVELOPE_MARGIN
            padded = self._signal.edge_padded(first, stop, self._start)
            self.envelope.extend(envelope(padded, self._start - first, stop - self._signal.end))

    def find(self, start: int, stop: int) -> list[PeakCandidate]:
        """Return the peaks from sample `start` to before `stop`; the ends of a stretch are not peaks."""
        first, before = max(start - 1 - LOOKAHEAD_SAMPLES, self._start), max(start - 1, self._start)
        heights = self.envelope[first : stop + LOOKAHEAD_SAMPLES + 1]
        inner = heights[before - first : stop + 1 - first]
        rising = inner[1:] > inner[:-1]
        candidates = []
        for index in (rising[:-1] > rising[1:]).nonzero()[0].tolist():
            top = before - first + index + 1
            height = heights.item(top)
            if height >= MIN_ENVELOPE_MV:
                neighbours = heights[max(top - LOOKAHEAD_SAMPLES, 0) : top + LOOKAHEAD_SAMPLES + 1]
                if neighbours.argmax() == min(top, LOOKAHEAD_SAMPLES):
                    candidates.append(PeakCandidate(first + top, height, height))
        return candidates
