"""Tells QRS complexes from P waves while beats fail to come, by what this patient's QRS complexes and P waves are like."""

from typing import Final

import numpy as np

from models.rules.known_p import KnownPWave
from models.rules.strip import Strip
from models.signal.filters import median_of
from models.signal.latest import Latest
from models.signal.resample import RATE_HZ

KNOWN_BEATS: Final = 64
"""Beats in the running median of the QRS height, about a minute: longer than an artefact that is taken for beats."""

MIN_ESCAPE_MV: Final = 0.3
"""A complex of this height is not a P wave: P waves are at most 0.25 mV (Goldberger's Clinical Electrocardiography, 3)."""

MIN_HEIGHT_SHARE: Final = 0.5
"""Where QRS complexes are low, a complex of this share of their height is one too: P waves are lower."""

MAX_P_SHARE: Final = 0.75
"""No complex of this share of the usual height of the QRS complexes is a P wave, whatever its shape."""

MIN_SHARPNESS_PER_S: Final = 45.0
"""Steepest slope over height of a narrow QRS complex, in 1/s. That of a P wave of 90 ms is some 27, because it is round; the
slope of a bell curve with standard deviation s is at most 0.61 / s."""

MIN_NARROW_MV: Final = 0.1
"""Height of the lowest QRS complex whose sharpness can be told from that of noise."""

UNKNOWN_HEIGHT_MV: Final = 0.5
"""Height of a QRS complex that a monitor must detect (IEC 60601-2-27:2011, 201.12.1.101.15); used until beats are known."""

HALF_WIDTH_S: Final = 0.1
"""Signal on each side of an R peak in which its slope is measured: half of a wide complex."""

BLOCK_S: Final = 0.4
"""Length of the blocks in which a signal is searched for complexes: a wide complex and its T wave."""

MAX_TALL_BLOCKS: Final = 2
"""Blocks of a signal without beats that may be tall: a single artefact that lies on the border of two."""

MIN_TALL_MV: Final = 0.2
MAX_TALL_SHARE: Final = 0.75
"""Lowest height of a tall block: noise of 40 uV rms is lower. Where QRS complexes are hardly higher than that, a tall block has
this share of their height: beats that are as low as noise may be noise."""

NOISY_P_WAVE_RATIO: Final = 1.2
"""Height of the tallest P wave with noise of 20 uV on it, over the tallest without noise."""

T_WAVE_S: Final = 0.5
"""Time from an R peak to the end of its T wave at slow rates, in which the signal is not searched."""


class KnownQrs:
    """The height of this patient's QRS complexes, and what could be one of them."""

    def __init__(self, height_mv: float | None = None) -> None:
        """Start with the height that an earlier stream knew, if there was one."""
        self._heights_mv = Latest[float](KNOWN_BEATS, [] if height_mv is None else [height_mv])
        self._p_wave = KnownPWave()

    @property
    def height_mv(self) -> float | None:
        """Median height of the latest QRS complexes, None while there is none."""
        return median_of(self._heights_mv) if self._heights_mv else None

    @property
    def _least_mv(self) -> float:
        """Height of the lowest complex that is certainly not a P wave."""
        known = self.height_mv
        return min(MIN_ESCAPE_MV, MIN_HEIGHT_SHARE * (UNKNOWN_HEIGHT_MV if known is None else known))

    def learn(self, t_s: float, amplitude_mv: float, signal: Strip) -> None:
        """Learn the height of a QRS complex over the baseline, and the P wave before it."""
        self._heights_mv.append(abs(amplitude_mv))
        self._p_wave.learn(t_s, signal)

    def is_p_wave(self, t_s: float, amplitude_mv: float, signal: Strip) -> bool:
        """Return whether a complex is lower than this patient's QRS complexes and like the P waves before them."""
        known = self.height_mv
        return known is not None and abs(amplitude_mv) < MAX_P_SHARE * known and self._p_wave.is_p_wave(t_s, signal)

    def count_p_waves(self, start_s: float, end_s: float, signal: Strip) -> int:
        """Return how many P waves of this patient the signal after a beat at `start_s` shows."""
        return self._p_wave.count(start_s + T_WAVE_S, end_s, signal)

    def is_qrs(self, t_s: float, amplitude_mv: float, signal: Strip) -> bool:
        """Return whether a complex is as tall as a QRS complex, or as sharp; escape beats may have any other shape."""
        if abs(amplitude_mv) >= self._least_mv:
            return True
        _, mv = signal.strip(t_s - HALF_WIDTH_S, t_s + HALF_WIDTH_S)
        if mv.size < 3 or abs(amplitude_mv) < MIN_NARROW_MV:
            return False
        steepest = float(np.max(np.abs(np.nan_to_num(mv[2:] - mv[:-2])))) * RATE_HZ / 2
        return steepest >= MIN_SHARPNESS_PER_S * abs(amplitude_mv)

    def is_quiet(self, start_s: float, end_s: float, signal: Strip, max_tall: int = MAX_TALL_BLOCKS) -> bool:
        """Return whether the signal after a beat at `start_s` is too low to hide QRS complexes of the known height."""
        known = self.height_mv
        tall_mv = (
            UNKNOWN_HEIGHT_MV if known is None else max(MIN_HEIGHT_SHARE * known, min(MIN_TALL_MV, MAX_TALL_SHARE * known))
        )
        return self._is_lower(start_s, end_s, signal, tall_mv, max_tall)

    def shows_only_p_waves(self, start_s: float, end_s: float, signal: Strip) -> bool:
        """Return whether nothing in the signal after a beat at `start_s` is higher than a P wave in noise."""
        return self._is_lower(start_s, end_s, signal, max(NOISY_P_WAVE_RATIO * self._least_mv, MIN_TALL_MV))

    def _is_lower(self, start_s: float, end_s: float, signal: Strip, tall_mv: float, max_tall: int = MAX_TALL_BLOCKS) -> bool:
        """Return whether no more than `max_tall` blocks of the signal reach this height."""
        _, mv = signal.strip(start_s + T_WAVE_S, end_s)
        width = round(BLOCK_S * RATE_HZ)
        blocks = self._p_wave.blank(mv)[: mv.size // width * width].reshape(-1, width)
        if not blocks.size or np.isnan(blocks).any():
            return False
        return int(np.count_nonzero(np.ptp(blocks, axis=1) >= tall_mv)) <= max_tall
