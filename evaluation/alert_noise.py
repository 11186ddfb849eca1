"""Noise added to a recording before its alerts are counted: moving electrodes and muscles, as in daily life."""

from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.detection import detect
from evaluation.ec57 import load_reference
from evaluation.noise import RATE_HZ, add_noise, load_noise, noise_rms, qrs_amplitude

Samples = NDArray[np.float64]

KINDS: Final = ("EM", "MA", "EM+MA")
"""Electrode motion, muscle artefact, and both with equal power."""
SNR_DB: Final = (0, -6)
"""Levels at which a healthy person must not raise a high alert."""


class NoiseLevel(NamedTuple):
    """Which noise is added: its folder, kind and signal-to-noise ratio in dB, and the number of the draw of its offset."""

    folder: Path
    kind: str
    snr_db: int
    draw: int = 0

    @property
    def name(self) -> str:
        """Kind and level for people."""
        return f"{self.kind} {self.snr_db} dB"


def list_noise_levels(folder: Path) -> list[NoiseLevel]:
    """Returns every kind at every level."""
    return [NoiseLevel(folder, kind, snr_db) for kind in KINDS for snr_db in SNR_DB]


def add_alert_noise(header: Path, mv: Samples, rate_hz: float, level: NoiseLevel) -> Samples:
    """Returns the samples with noise throughout; the record's name and the draw seed the offset.

    The amplitude of the QRS complexes is measured at the annotated beats, or where there are none at the detected ones.
    """
    beats_s = load_reference(header.with_suffix(".atr"), rate_hz).times_s
    amplitude_mv = qrs_amplitude(mv, rate_hz, beats_s if beats_s.size else detect(mv, rate_hz))
    seed = header.stem if not level.draw else f"{header.stem} {level.draw}"
    return add_noise(mv, rate_hz, _noise(level.folder), level.kind, level.snr_db, amplitude_mv, seed)


@cache
def _noise(folder: Path) -> dict[str, Samples]:
    noise = load_noise(folder)
    both = noise["EM"] + noise["MA"]
    return noise | {"EM+MA": both / noise_rms(both, RATE_HZ)}
