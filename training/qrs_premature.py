"""Premature beats put into recordings for `ecg_qrs`: few of CinC 2017 have any, and what is rare there is doubted in noise.

A beat gives way to one that comes sooner, with the pause that makes up for it: the patient's own complex, as after an atrial
premature beat, or a ventricular one of another patient (Goldberger's Clinical Electrocardiography, 15 and 16).
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from rich.progress import Progress

from evaluation.noise import qrs_amplitude
from models.inference.ecg_beat import V
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ
from training.beat_data import seen, unlabelled
from training.beat_strips import OTHER, by_rule
from training.cinc import Recorded
from training.disturb import Random

BEFORE: Final = round(0.2 * RATE_HZ)
AFTER: Final = round(0.4 * RATE_HZ)
"""Samples of a beat before its R peak, with a P wave, and after it, with the T wave."""

PATIENTS: Final = 0.4
SHARES: Final = (0.03, 0.1, 0.25, 0.5)
"""Share of the recordings that get premature beats, and of their beats that are: now and then, to every other one."""

VENTRICULAR: Final = 0.7
"""Share of these recordings whose premature beats are ventricular."""

SHAPES: Final = 2
"""Ventricular shapes that a patient has at most."""

SOONER: Final = (0.12, 0.5)
"""How much sooner, in intervals, a beat comes."""

SOONEST: Final = round(0.3 * RATE_HZ)
"""Samples after the beat before."""

LARGER: Final = 0.25
WIDER: Final = (0.85, 1.2)
UPSIDE_DOWN: Final = 0.2
"""How another patient's complex is changed: spread of its height's logarithm, width, and share that is mirrored."""


def repeated(record: Recorded, times: int) -> tuple[Samples, Samples]:
    """From the middle of its first interval to that of its last, so many times in a row without a step; and its R peaks, in
    samples.
    """
    beats = record.beat_s
    first, end = (round(0.5 * float(pair.sum()) * RATE_HZ) for pair in (beats[:2], beats[-2:]))
    part = record.mv[first:end].astype(np.float64)
    part -= np.linspace(0.0, part[-1] - part[0], part.size)
    inside = beats[1:-1] * RATE_HZ - first
    return np.tile(part, times), (inside + part.size * np.arange(times)[:, None]).ravel()


def ventricular(records: Sequence[Recorded], progress: Progress) -> list[Samples]:
    """Ventricular complexes, (`BEFORE` + 1 + `AFTER`,) each, in heights of their patient's usual QRS complex."""
    others = [record for record in records if record.label == OTHER]
    tracked = progress.track(others, description="premature beats")
    return [complexes for record in tracked for complexes in _ventricular(record)]


def _ventricular(record: Recorded) -> Iterator[Samples]:
    """Those that a rule of the textbook tells, in the last repetition of the recording."""
    mv, _ = repeated(record, 3)
    beats = unlabelled(seen(mv, RATE_HZ, None)[1])
    times_s = beats.times_s[by_rule(beats, OTHER) == V]
    height = qrs_amplitude(mv, RATE_HZ, beats.times_s)
    for at in np.round(times_s[times_s > (mv.size - record.mv.size) / RATE_HZ] * RATE_HZ).astype(np.int64).tolist():
        complexes = mv[at - BEFORE : at + AFTER + 1]
        if complexes.size == BEFORE + 1 + AFTER:
            yield complexes / height


def with_premature(
    mv: Samples, peaks: Samples, height_mv: float, complexes: Sequence[Samples], random: Random
) -> tuple[Samples, Samples]:
    """The recording and its R peaks, in samples, some of them sooner; `height_mv` is that of its usual QRS complex."""
    if random.random() >= PATIENTS:
        return mv, peaks
    share = random.choice(SHARES)
    is_ventricular = bool(complexes) and random.random() < VENTRICULAR
    shapes = (
        [_changed(complexes[int(random.integers(len(complexes)))], random) for _ in range(SHAPES)] if is_ventricular else []
    )
    at = np.round(peaks).astype(np.int64)
    out, moved = mv.copy(), peaks.astype(np.float64)
    hiss = float(np.median(np.abs(np.diff(mv))))
    for place in np.flatnonzero(random.random(at.size) < share).tolist():
        if not 0 < place < at.size - 1:
            continue
        sooner = at[place] - round(random.uniform(*SOONER) * int(at[place] - at[place - 1]))
        start, end = sooner - BEFORE, at[place] + AFTER
        if sooner - moved[place - 1] < SOONEST or start < 1 or end + BEFORE > at[place + 1]:
            continue
        beat = height_mv * shapes[int(random.integers(SHAPES))] if shapes else mv[at[place] - BEFORE : at[place] + AFTER + 1]
        out[start : end + 1] = np.linspace(out[start - 1], mv[end], end + 1 - start) + random.normal(0, hiss, end + 1 - start)
        out[start : start + beat.size] += beat - np.linspace(beat[0], beat[-1], beat.size)
        moved[place] = sooner
    return out, moved


def _changed(complexes: Samples, random: Random) -> Samples:
    """Higher or lower, wider or narrower, now and then upside down."""
    factor = np.exp(random.normal(0, LARGER)) * (-1.0 if random.random() < UPSIDE_DOWN else 1.0)
    places = BEFORE + (np.arange(complexes.size) - BEFORE) / random.uniform(*WIDER)
    changed: Samples = factor * np.interp(places, np.arange(complexes.size), complexes)
    return changed
