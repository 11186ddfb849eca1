"""Defects of a signal that are measured without a network: a flat line, a saturated amplifier, hum of the mains."""

from math import inf
from typing import Final, Literal

import numpy as np

from models.signal.filters import Samples, median
from models.signal.resample import RATE_HZ

Defect = Literal["flat", "rail", "hum", "noise", "lead_off"]

FLAT_STEP_MV: Final = 0.001
"""Steps up to this size are none: an electrode on skin shows at least 5 uV of noise (`models.inference.ecg_quality`)."""

STILL_SHARE: Final = 0.6
"""A signal that stands still for this share of a window shows no rhythm in the rest of it."""

RAIL_MV: Final = 3.0
"""A signal that stands still this far from zero comes from a saturated amplifier: sensors remove the electrodes' offset, and
 IEC 60601-2-47, 201.12.4.4.101 requires a range of 10 mV peak to peak."""

MAINS_HZ: Final = (50.0, 60.0)
MAINS_SHARE: Final = 0.9
"""Share of the power at the frequency of the mains above which nothing else can be seen. In an ECG it is below a half."""

MIN_HUM_MV: Final = 0.2
"""Smallest amplitude of such hum. Sensors on skin show a tenth of it: IEC 60601-2-47 requires 60 dB of common mode
rejection."""

MIN_MAINS_RATE_HZ: Final = 124.0
"""A lower rate cannot show 60 Hz."""

HUM_KNOWN_S: Final = 3.0
"""Through hum that had lasted for so long at the last beat, beats were seen: several of them fit into this time."""

HUM_PAUSE_S: Final = 2.0
"""Hum goes on if it is interrupted for less: a hop with a QRS complex is not hum."""


def find_still_defect(mv: Samples) -> Defect | None:
    """Return "flat" or "rail" for a window at 125 Hz that stands still for most of its time; None for any other.

    Args:
        mv: (n,) samples with their offset, NaN where one is missing.
    """
    known = mv[np.isfinite(mv)]
    if known.size < 2:
        return None
    still = np.abs(known[1:] - known[:-1]) <= FLAT_STEP_MV
    if np.count_nonzero(still) / still.size < STILL_SHARE:
        return None
    return "rail" if median(np.abs(known[1:][still])) >= RAIL_MV else "flat"


class MainsMeter:
    """Measures whether hum of the mains covers all else in a hop of raw samples: the resampler removes most of it.

    A hop of 0.2 s holds ten cycles of 50 Hz and twelve of 60 Hz.
    """

    def __init__(self, rate_hz: float, hop: int) -> None:
        phase = 2 * np.pi * np.arange(hop) / rate_hz * np.array(MAINS_HZ)[:, None]
        self._waves = np.concatenate((np.cos(phase), np.sin(phase))) if rate_hz >= MIN_MAINS_RATE_HZ else None

    def is_hum(self, mv: Samples) -> bool:
        """Return whether a hop in mV is hum. An incomplete hop, or one with missing samples, is not."""
        if self._waves is None or mv.size != self._waves.shape[1]:
            return False
        centred = mv - np.add.reduce(mv) / mv.size
        power, least = float(centred @ centred), MIN_HUM_MV**2 / 2 * mv.size
        if not least / 2 <= power < inf:  # by Cauchy and Schwarz, hum is at most twice the power
            return False
        parts = self._waves @ centred
        hum = float((parts[:2] ** 2 + parts[2:] ** 2).max()) * 2 / mv.size
        return hum >= MAINS_SHARE * power and hum >= least


class HumWatch:
    """Tells where hum of the mains hides the beats of a lead.

    An electrode that comes off often picks up hum: then hum and silence begin together, and no beat could be seen.
    """

    def __init__(self, rate_hz: float, hop: int) -> None:
        self._meter = MainsMeter(rate_hz, hop)
        self._from_s, self._latest_s = 0.0, -inf

    def hides_beats(self, mv: Samples, start_s: float, last_beat_s: float | None) -> bool:
        """Process a hop that begins at `start_s`; `last_beat_s` is the time of the latest beat, None if there was none."""
        if not self._meter.is_hum(mv):
            return False
        if start_s - self._latest_s > HUM_PAUSE_S:
            self._from_s = start_s
        self._latest_s = start_s
        return last_beat_s is None or last_beat_s - self._from_s < HUM_KNOWN_S


def max_still_s(mv: Samples) -> float:
    """Return the length in seconds of the still stretch at the end of (n,) samples at 125 Hz."""
    moving = np.flatnonzero(np.abs(np.diff(mv)) > FLAT_STEP_MV)
    return float((mv.size - 1 - (moving[-1] + 1 if moving.size else 0)) / RATE_HZ)
