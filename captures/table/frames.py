"""Interpolates the frames of a camera on an even grid. A pulse wave of a phone has 24 to 60 uneven frames a second."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from captures.recording import CHUNK_SAMPLES, Chunk, Samples
from models.signal.ppg import RATE_HZ

LONGEST_STEP_S: Final = 0.25
"""Frames further apart leave a gap; between closer frames, samples are interpolated. A camera that adjusts its exposure drops
two or three frames in a row, and a systolic rise lasts 0.2 s."""
FRAMES_HZ: Final = (10.0, 64.0)
"""Average frame rates of a camera. A faster pulse wave is that of a sensor, whose samples are evenly spaced."""


def are_frames(seconds: Samples) -> bool:
    """Whether these times of a pulse wave are those of a camera's frames."""
    span_s = float(seconds[-1] - seconds[0])
    return span_s > 0 and FRAMES_HZ[0] <= (seconds.size - 1) / span_s <= FRAMES_HZ[1]


def interpolate_frames(parts: Iterator[tuple[Samples, Samples]]) -> Iterator[Chunk]:
    """Yield samples at `RATE_HZ` from frames, which are given as times in seconds and values.

    A frame that is not later than all frames before it is left out.
    """
    held_s, held = np.empty(0), np.empty(0)
    done = 0  # samples of the grid before this one are yielded or lie in a gap
    for times, values in parts:
        all_s, frames = np.concatenate((held_s, times)), np.concatenate((held, values))
        is_later = np.diff(np.maximum.accumulate(all_s), prepend=-np.inf) > 0
        all_s, frames = all_s[is_later], frames[is_later]
        if not all_s.size:
            continue
        edges = np.flatnonzero(np.diff(all_s) > LONGEST_STEP_S) + 1
        for first, stop in pairwise([0, *edges.tolist(), all_s.size]):
            begin = max(done, int(np.ceil(all_s[first] * RATE_HZ)))
            grid = np.arange(begin, int(all_s[stop - 1] * RATE_HZ) + 1)
            samples = np.interp(grid / RATE_HZ, all_s[first:stop], frames[first:stop])
            for at in range(0, grid.size, CHUNK_SAMPLES):
                continues = bool(at or (first == 0 and held.size))
                yield Chunk((begin + at) / RATE_HZ, samples[at : at + CHUNK_SAMPLES], continues)
            done = max(done, begin + grid.size)
        held_s, held = all_s[-1:], frames[-1:]
