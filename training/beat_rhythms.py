"""Intervals around beats for the training of `ecg_beat`: of LTAFDB, and of normal beats in rhythms that imitate ectopy.

In these rhythms a normal beat comes early for another reason than ectopy: respiratory sinus arrhythmia, beats that are
blocked (2:1, Wenckebach, at random) and sudden changes of the sinus rate.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures.annotations import read_annotations
from captures.rhythms import RATES_HZ
from evaluation.ec57 import LABELS
from models.beat_history import BackgroundRhythm, measure_variation
from models.inference.ecg_beat import (
    BACKGROUND,
    CLASSES,
    HISTORY_INTERVALS,
    LONG_TERM_INTERVALS,
    MAX_NEXT_RR_S,
    RR_INPUTS,
    long_term_rr_quantiles,
)
from models.signal.filters import Samples
from training.beat_data import UNLABELLED, Labels

LTAFDB_EVERY: Final = 12
"""Only every 12th normal beat of LTAFDB is used, because there are four million."""

LENGTH: Final = LONG_TERM_INTERVALS + 48
"""Intervals of an imitated rhythm; the beat that is used is among the last 47."""

EARLIEST: Final = 6
"""The beat that is used is one of the six earliest of these."""

Random = np.random.Generator


def load_ltafdb_intervals(data: Path, progress: Progress) -> tuple[NDArray[np.float32], Labels]:
    """Return intervals around beats of LTAFDB, (n, 39), and their classes (n,): all its ectopic beats and some normal ones."""
    paths = sorted((data / "ltafdb").glob("*.atr"))
    parts = [_read_intervals(path) for path in progress.track(paths, description="intervals of LTAFDB")]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([labels for _, labels in parts])


def _read_intervals(path: Path) -> tuple[NDArray[np.float32], Labels]:
    annotations = read_annotations(path)
    beat_indices = [index for index, symbol in enumerate(annotations.symbol) if symbol in LABELS]
    times_s = annotations.sample[beat_indices] / (annotations.rate_hz or RATES_HZ["ltafdb"])
    classes = [LABELS[annotations.symbol[index]] for index in beat_indices]
    labels = np.array([CLASSES.index(name) if name in CLASSES else UNLABELLED for name in classes], np.int8)
    rr_s = np.diff(times_s)
    # The interval before beat k is rr_s[k - 1], the one after it rr_s[k].
    beats = np.arange(LONG_TERM_INTERVALS, rr_s.size)
    beats = beats[(labels[beats] > 0) | ((labels[beats] == 0) & (beats % LTAFDB_EVERY == 0))]
    return context_rows(rr_s, beats), labels[beats]


def context_rows(rr_s: Samples, beats: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the intervals around some beats of a rhythm as `models.inference.ecg_beat.features` takes them, (beats, 39).

    Args:
        rr_s: (n,) seconds; the interval before beat k is `rr_s[k - 1]`.
        beats: at least `LONG_TERM_INTERVALS` from the start.
    """
    background = BackgroundRhythm()
    background_s = np.array([np.nan, *map(background.push, rr_s.tolist())], np.float32)
    rows = np.empty((beats.size, RR_INPUTS), np.float32)
    rows[:, : HISTORY_INTERVALS + 1] = rr_s[beats[:, None] + np.arange(-HISTORY_INTERVALS, 1)]
    rows[:, HISTORY_INTERVALS] = np.minimum(rows[:, HISTORY_INTERVALS], MAX_NEXT_RR_S)
    rows[:, BACKGROUND] = background_s[beats]
    for part in np.array_split(np.arange(beats.size), max(1, beats.size // 4096)):
        long_term_s = rr_s[beats[part, None] + np.arange(-LONG_TERM_INTERVALS, 0)]
        rows[part, HISTORY_INTERVALS + 1 : BACKGROUND] = long_term_rr_quantiles(long_term_s)
        rows[part, BACKGROUND + 1 :] = [measure_variation(one) for one in long_term_s]
    return rows


def imitate_ectopy(count: int, seed: int) -> NDArray[np.float32]:
    """Return intervals around early normal beats, (count, 39)."""
    random = np.random.default_rng(seed)
    kinds: tuple[Callable[[Random], Samples], ...] = (breathe, breathe, block_beats, change_rate)
    rows = np.empty((count, RR_INPUTS), np.float32)
    for row in range(count):
        rr_s = kinds[row % len(kinds)](random)
        last = np.arange(LONG_TERM_INTERVALS, LENGTH - 1)
        earliness = rr_s[last - 1] / (rr_s[last - 2] + rr_s[last - 3])
        beat = last[np.argsort(earliness)[random.integers(EARLIEST)]]
        rows[row] = context_rows(rr_s, np.array([beat]))[0]
    return rows


def breathe(random: Random) -> Samples:
    """Return respiratory sinus arrhythmia, (`LENGTH`,) seconds: 4 to 25 % of the interval, a breath in 2.5 to 8 s."""
    base_s = random.uniform(0.6, 1.3)
    depth, breath_s, skew = random.uniform(0.04, 0.25), random.uniform(2.5, 8.0), random.uniform(0.0, 0.6)
    wander = np.cumsum(random.normal(0, 0.006, LENGTH))
    wander -= np.linspace(0, wander[-1], LENGTH)
    strength = np.clip(1 + np.cumsum(random.normal(0, 0.05, LENGTH)), 0.3, 1.5)
    noise = np.exp(random.normal(0, 0.01, LENGTH))
    out, phase = np.empty(LENGTH), random.uniform(0, 2 * np.pi)
    for index in range(LENGTH):
        wave = np.sin(phase + skew * np.sin(phase))
        out[index] = base_s * np.exp(wander[index]) * (1 + depth * strength[index] * wave) * noise[index]
        phase += 2 * np.pi * out[index] / breath_s * np.exp(random.normal(0, 0.15))
    limited_s: Samples = np.maximum(out, 0.35)
    return limited_s


def block_beats(random: Random) -> Samples:
    """Return a sinus rhythm of which some beats are blocked: most second ones, after Wenckebach periods, or at random."""
    atrial_s = random.uniform(0.45, 1.0) * np.exp(random.normal(0, 0.015, 4 * LENGTH))
    kind = random.integers(3)
    if kind == 0:
        conducted = (np.arange(atrial_s.size) % 2 > 0) | (random.random(atrial_s.size) < random.uniform(0.03, 0.4))
    elif kind == 1:
        conducted = np.arange(atrial_s.size) % int(random.integers(3, 8)) > 0
    else:
        conducted = random.random(atrial_s.size) > random.uniform(0.02, 0.3)
    conducted[1:] |= ~conducted[:-1]
    times_s = np.cumsum(atrial_s)
    if kind == 1:
        since = np.arange(atrial_s.size) - np.maximum.accumulate(np.where(conducted, 0, np.arange(atrial_s.size)))
        times_s = times_s + random.uniform(0.05, 0.2) * (1 - 0.5 ** (since - 1))
    intervals_s: Samples = np.diff(times_s[conducted])[:LENGTH]
    return intervals_s


def change_rate(random: Random) -> Samples:
    """Return a sinus rhythm whose rate changes by up to 35 % within a few beats, again and again."""
    out = np.full(LENGTH, random.uniform(0.55, 1.2)) * np.exp(random.normal(0, 0.012, LENGTH))
    for _ in range(random.integers(3, 12)):
        start, width = random.integers(LENGTH), random.integers(2, 14)
        ramp = np.clip((np.arange(LENGTH) - start) / width, 0, 1)
        if random.random() < 0.6:
            ramp *= np.clip(1 - (np.arange(LENGTH) - start - width - random.integers(3, 40)) / random.integers(3, 30), 0, 1)
        out *= np.exp(random.uniform(-0.35, 0.2) * ramp)
    limited_s: Samples = np.clip(out, 0.33, 2.0)
    return limited_s
