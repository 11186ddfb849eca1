"""Inserts premature beats into training recordings of `ecg_qrs`. Few recordings of CinC 2017 have any, and in noise a
network is uncertain about what is rare in training.

A beat is replaced by one that comes earlier, followed by a compensatory pause. It is the patient's own complex, as in an atrial
premature beat, or a ventricular one of another patient (Goldberger's Clinical Electrocardiography, chapters 15 and 16).
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from rich.progress import Progress

from evaluation.noise import qrs_amplitude
from models.inference.ecg_beat import V
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ
from training.beat_cinc import OTHER, label_by_rule
from training.beat_data import analyse_recording, unlabelled_beats
from training.cinc import CincRecording
from training.ecg_augmentation import Random

BEFORE: Final = round(0.2 * RATE_HZ)
AFTER: Final = round(0.4 * RATE_HZ)
"""Samples of a beat before its R peak, including the P wave, and after it, including the T wave."""

RECORDING_SHARE: Final = 0.4
"""Share of the recordings that get premature beats."""

BEAT_SHARES: Final = (0.03, 0.1, 0.25, 0.5)
"""Share of the beats that become premature, one of these values per recording: from occasional beats to every other one."""

VENTRICULAR_SHARE: Final = 0.7
"""Share of these recordings whose premature beats are ventricular."""

MAX_SHAPES: Final = 2
"""Number of different ventricular shapes in one recording."""

PREMATURITY: Final = (0.12, 0.5)
"""How much earlier a beat comes, as a share of the interval before it."""

MIN_INTERVAL: Final = round(0.3 * RATE_HZ)
"""Smallest distance from the previous beat, in samples."""

HEIGHT_SD: Final = 0.25
WIDTH_RANGE: Final = (0.85, 1.2)
INVERTED_SHARE: Final = 0.2
"""How another patient's complex is varied: standard deviation of the logarithm of its height, range of its width, share
inverted."""


def repeat_recording(record: CincRecording, times: int) -> tuple[Samples, Samples]:
    """Return the recording repeated without a jump where repetitions join, and its R peaks in samples.

    The repeated section begins in the middle of the first interval and ends in the middle of the last.
    """
    beats = record.beat_s
    first, end = (round(0.5 * float(pair.sum()) * RATE_HZ) for pair in (beats[:2], beats[-2:]))
    section = record.mv[first:end].astype(np.float64)
    section -= np.linspace(0.0, section[-1] - section[0], section.size)
    inside = beats[1:-1] * RATE_HZ - first
    return np.tile(section, times), (inside + section.size * np.arange(times)[:, None]).ravel()


def extract_ventricular_complexes(records: Sequence[CincRecording], progress: Progress) -> list[Samples]:
    """Return ventricular complexes, (`BEFORE` + 1 + `AFTER`,) each, in units of their patient's normal QRS height."""
    candidates = [record for record in records if record.label == OTHER]
    tracked = progress.track(candidates, description="premature beats")
    return [shape for record in tracked for shape in _ventricular_complexes(record)]


def _ventricular_complexes(record: CincRecording) -> Iterator[Samples]:
    """Yield the complexes that a textbook rule identifies, in the last repetition of the recording."""
    mv, _ = repeat_recording(record, 3)
    beats = unlabelled_beats(analyse_recording(mv, RATE_HZ, None)[1])
    times_s = beats.times_s[label_by_rule(beats, OTHER) == V]
    height = qrs_amplitude(mv, RATE_HZ, beats.times_s)
    for position in np.round(times_s[times_s > (mv.size - record.mv.size) / RATE_HZ] * RATE_HZ).astype(np.int64).tolist():
        complex_mv = mv[position - BEFORE : position + AFTER + 1]
        if complex_mv.size == BEFORE + 1 + AFTER:
            yield complex_mv / height


def insert_premature_beats(
    mv: Samples, peaks: Samples, height_mv: float, complexes: Sequence[Samples], random: Random
) -> tuple[Samples, Samples]:
    """Return the recording and its R peaks in samples, with some beats made premature.

    `height_mv` is the height of its normal QRS complex.
    """
    if random.random() >= RECORDING_SHARE:
        return mv, peaks
    share = random.choice(BEAT_SHARES)
    is_ventricular = bool(complexes) and random.random() < VENTRICULAR_SHARE
    shapes = (
        [_vary_complex(complexes[int(random.integers(len(complexes)))], random) for _ in range(MAX_SHAPES)]
        if is_ventricular
        else []
    )
    positions = np.round(peaks).astype(np.int64)
    out, new_peaks = mv.copy(), peaks.astype(np.float64)
    noise_floor = float(np.median(np.abs(np.diff(mv))))
    for index in np.flatnonzero(random.random(positions.size) < share).tolist():
        if not 0 < index < positions.size - 1:
            continue
        new_position = positions[index] - round(random.uniform(*PREMATURITY) * int(positions[index] - positions[index - 1]))
        start, end = new_position - BEFORE, positions[index] + AFTER
        if new_position - new_peaks[index - 1] < MIN_INTERVAL or start < 1 or end + BEFORE > positions[index + 1]:
            continue
        complex_mv = (
            height_mv * shapes[int(random.integers(MAX_SHAPES))]
            if shapes
            else mv[positions[index] - BEFORE : positions[index] + AFTER + 1]
        )
        out[start : end + 1] = np.linspace(out[start - 1], mv[end], end + 1 - start) + random.normal(
            0, noise_floor, end + 1 - start
        )
        out[start : start + complex_mv.size] += complex_mv - np.linspace(complex_mv[0], complex_mv[-1], complex_mv.size)
        new_peaks[index] = new_position
    return out, new_peaks


def _vary_complex(shape: Samples, random: Random) -> Samples:
    """Return the complex higher or lower, wider or narrower, sometimes inverted."""
    factor = np.exp(random.normal(0, HEIGHT_SD)) * (-1.0 if random.random() < INVERTED_SHARE else 1.0)
    positions = BEFORE + (np.arange(shape.size) - BEFORE) / random.uniform(*WIDTH_RANGE)
    changed: Samples = factor * np.interp(positions, np.arange(shape.size), shape)
    return changed
