"""Keeps the last minutes of an ECG and its beats, for the strips of alerts that are decided long after their onset.

The analysis keeps 45 s of the signal. Atrial fibrillation is often known a minute after its onset and its end two minutes late,
so this history keeps more, packed as it is in the records: a quarter of what the analysis takes for the same time.
"""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from math import ceil, floor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.analysis import EcgAnalysis
from models.beat_labels import UNKNOWN, LabelledBeat
from models.signal.resample import RATE_HZ
from sync.packing import pack_samples, unpack_samples

SCALE_MV: Final = 0.001
"""Millivolts per unit of the samples: 1 microvolt, finer than the resolution of any supported sensor."""
MAX_UNITS: Final = 2**31 - 1
"""The largest sample of a strip, 2 kV."""
KEPT_S: Final = 240.0
"""Of 20 episodes of atrial fibrillation 19 are known 194 s after their onset (decision 35); ten seconds before it are shown."""
BLOCK_SAMPLES: Final = 1250
"""Samples that are packed at a time: 10 s."""
SETTLED_SAMPLES: Final = 250
"""The baseline of the newest second is provisional (`EcgChain.strip`), and the resampler still holds samples back."""


class _Block(NamedTuple):
    first: int
    """Its first sample, as a number since the start of the stream at 125 Hz."""
    size: int
    packed: bytes


class StripHistory:
    """The ECG of one analysis and its beats, `KEPT_S` long. What is kept does not depend on chunk sizes."""

    def __init__(self, analysis: EcgAnalysis) -> None:
        """Begin with the stream of `analysis`."""
        self._analysis = analysis
        self._blocks: deque[_Block] = deque()
        self._next = 0
        self._beats_s = array("d")
        self._labels = bytearray()

    @property
    def start_s(self) -> float:
        """The time of the oldest sample that is kept."""
        oldest_s = self._analysis.chain.start_s
        return min(self._blocks[0].first / RATE_HZ, oldest_s) if self._blocks else oldest_s

    @property
    def end_s(self) -> float:
        """The stream time right after the last sample received."""
        return self._analysis.chain.end_s

    def add_step(self, beats: Iterable[LabelledBeat]) -> None:
        """Note the beats that a step of the analysis labelled, and pack the signal that is settled now."""
        for beat in beats:
            self._beats_s.append(beat.t_s)
            self._labels += beat.label.encode()
        settled = round(self.end_s * RATE_HZ) - SETTLED_SAMPLES
        if settled >= self._next + BLOCK_SAMPLES:
            self._pack_until(settled)
            self._drop_before(self.end_s - KEPT_S)

    def signal(self, start_s: float, end_s: float) -> tuple[float, NDArray[np.int32]]:
        """Return the time of the first sample, and the samples at 125 Hz in units of `SCALE_MV`; 0 where one is missing.

        The result is limited to the signal kept, and empty if none of it is.
        """
        newest_s, mv = self._analysis.chain.strip(start_s, end_s)
        newest = round(newest_s * RATE_HZ)
        first, stop = ceil(start_s * RATE_HZ), newest + mv.size
        blocks = [block for block in self._blocks if block.first < newest and first < block.first + block.size]
        if not blocks:
            return newest_s, _to_units(mv)
        first = max(first, blocks[0].first)
        stop = min(max(stop, blocks[-1].first + blocks[-1].size), max(floor(end_s * RATE_HZ) + 1, first))
        units = np.zeros(stop - first, np.int32)
        _put(units, newest - first, _to_units(mv))
        for block in blocks:
            _put(units, block.first - first, unpack_samples(block.packed))
        return first / RATE_HZ, units

    def beats(self, start_s: float, end_s: float) -> list[tuple[float, str]]:
        """Return the times of the beats from `start_s` to before `end_s`, each with its label, `?` if it has none yet."""
        at, until = bisect_left(self._beats_s, start_s), bisect_left(self._beats_s, end_s)
        labelled = zip(self._beats_s[at:until], self._labels[at:until].decode(), strict=True)
        return [*labelled, *((t_s, UNKNOWN) for t_s in self._analysis.unlabelled_s if start_s <= t_s < end_s)]

    def _pack_until(self, settled: int) -> None:
        while self._next + BLOCK_SAMPLES <= settled:
            last = self._next + BLOCK_SAMPLES - 1
            start_s, mv = self._analysis.chain.strip((self._next - 0.5) / RATE_HZ, (last + 0.5) / RATE_HZ)
            if mv.size == 0:  # in a gap that is longer than what the chain keeps
                self._next = settled // BLOCK_SAMPLES * BLOCK_SAMPLES
                return
            self._blocks.append(_Block(round(start_s * RATE_HZ), mv.size, pack_samples(_to_units(mv))))
            self._next += BLOCK_SAMPLES

    def _drop_before(self, t_s: float) -> None:
        while self._blocks and (self._blocks[0].first + self._blocks[0].size) / RATE_HZ <= t_s:
            self._blocks.popleft()
        dropped = bisect_left(self._beats_s, self.start_s)
        del self._beats_s[:dropped], self._labels[:dropped]


def _to_units(mv: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return samples in units of `SCALE_MV`, 0 where one is missing; those of a damaged file that do not fit are cut off."""
    limit_mv = MAX_UNITS * SCALE_MV
    return np.round(np.clip(np.nan_to_num(mv), -limit_mv, limit_mv) / SCALE_MV).astype(np.int32)


def _put(units: NDArray[np.int32], at: int, part: NDArray[np.int32]) -> None:
    """Copy what of `part`, which begins at `at`, lies within `units`."""
    begin, end = max(at, 0), min(at + part.size, units.size)
    if begin < end:
        units[begin:end] = part[begin - at : end - at]
