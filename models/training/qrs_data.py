"""What `ecg_qrs` learns from: bumps that the detector met in clean recordings with noise, and which of them were beats.

The recordings are of CinC 2017; R peaks are those that the agent's own detector finds without noise. Every recording runs twice
in a row: the detector learns the patient's shape in the first half minute.
"""

import hashlib
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from models.evaluation.noise import qrs_amplitude
from models.inference.ecg_qrs import EcgQrs
from models.signal import candidate, filters, judged, qrs, shape
from models.signal.candidate import SIZE, UNIT, Judge, Values, Verdict
from models.signal.filters import Samples, Tape
from models.signal.judged import JudgedQrsDetector
from models.signal.qrs import KEPT, Bump, QrsDetector
from models.signal.resample import RATE_HZ
from models.training import disturb
from models.training.cinc import LABELS, Recorded
from models.training.disturb import Disturber, Random

CLEAN: Final = 0.16
"""Noise as a share of a beat up to which a recording's own R peaks are taken for the truth: nine of ten beats of clean records
of mitdb have less."""

LEAST_S: Final = 20.0
LEAST_BEATS: Final = 12
"""A recording must show its rhythm, and its shape often enough to be learnt."""

UNIT_S: Final = UNIT / RATE_HZ
"""Of a place of an R peak."""

NEAR_S: Final = 0.12
"""The bump of a beat lies this close to the R peak; of several, it is the nearest. A wide complex's envelope peaks late."""

NEAREST: Final = 8
WRONG: Final = 0.03
"""While the truth decides: samples from an R peak within which a bump is a beat, and the share of beats that it leaves out."""

SETTLING: Final = round(8.0 * RATE_HZ)
"""Samples after which bumps count: before, the shape is not known."""

STEADY: Final = 0.4
QUIET: Final = 0.12
"""Shares of the recordings with noise at one level throughout, and with none."""

MADE_UP: Final = 0.35
MIXED: Final = 0.4
"""Shares of the recordings with noise that was never recorded, and with kinds mixed. There is but half a minute of each
recorded kind, which a network knows by heart after a while."""

LEVELS_DB: Final = (-2.0, 18.0)
CHANGE_DB: Final = 8.0
SILENCE_DB: Final = 60.0
"""Range of the noise's level, how far it changes from one stretch to the next, and its level where it pauses."""

_PIECE: Final = 250


@dataclass(frozen=True, slots=True)
class Bumps:
    """`values` (n, 265) as the network sees them, whether each is a beat (n,), its R peak in `UNIT` samples from it (n,)."""

    values: NDArray[np.float32]
    beats: NDArray[np.float32]
    places: NDArray[np.float32]

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Bumps":
        return Bumps(self.values[chosen], self.beats[chosen], self.places[chosen])


class Watched(JudgedQrsDetector):
    """Shows every bump to its judge, in a clean signal too, and keeps where each was and what the judge saw of it.

    Without a judge the true R peaks decide, with errors now and then: the network must go on after its own.
    """

    def __init__(self, signal: Tape, judge: Judge | None, peaks: Samples, random: Random) -> None:
        super().__init__(signal, self._keep)
        self._judge_of_it, self._peaks, self._random = judge, peaks, random
        self._shown = 0
        self.at: list[int] = []
        self.seen: list[Values] = []

    def _measured(self, bump: Bump) -> Bump:
        self._shown = bump.at
        return bump if self._learning else self._seen(bump)

    def _keep(self, values: Values) -> Verdict:
        self.at.append(self._shown)
        self.seen.append(values)
        return self._judge_of_it(values) if self._judge_of_it else self._truth()

    def _truth(self) -> Verdict:
        place = float(self._peaks[np.abs(self._peaks - self._shown).argmin()]) - self._shown
        right = abs(place) <= NEAREST and self._random.random() >= WRONG
        return Verdict(0.98 if right else 0.02, place if right else 0.0)


class _Listener(QrsDetector):
    @property
    def noise_share(self) -> float:
        """As it is at the end."""
        return self._noise_share()


def clean_recordings(records: Sequence[Recorded]) -> list[Recorded]:
    """Those whose R peaks may be taken for the truth."""
    return [record for record in records if LABELS[record.label] != "~" and _is_clean(record)]


def _is_clean(record: Recorded) -> bool:
    if record.mv.size < LEAST_S * RATE_HZ or record.beat_s.size < LEAST_BEATS or not np.isfinite(record.mv).all():
        return False
    tape = Tape(KEPT)
    detector = _Listener(tape)
    _run(detector, tape, record.mv.astype(np.float64))
    return detector.noise_share < CLEAN


def met(record: Recorded, disturber: Disturber, judge: Judge | None) -> Bumps:
    """The bumps of one recording, run twice with noise; without a judge the truth decides."""
    mv, beat_s = _twice(record)
    noisy = _noisy(mv, beat_s, disturber)
    tape = Tape(KEPT)
    detector = Watched(tape, judge, beat_s * RATE_HZ, disturber.random)
    _run(detector, tape, noisy)
    at = np.array(detector.at, np.int64)
    beats, places = _labels(at, beat_s * RATE_HZ)
    values = np.array(detector.seen, np.float32).reshape(-1, SIZE)
    return Bumps(values, beats, places)[at > SETTLING]


def collected(records: Sequence[Recorded], seed: int, data: Path, judge: bytes | None, kept: Path, progress: Progress) -> Bumps:
    """The bumps of all of them, met once (two minutes) by these very sources with this very judge, and kept.

    `judge` is an ONNX file's content; `data` the folder that holds the noise.
    """
    disturber = Disturber(data, np.random.default_rng(seed))
    of_it = hashlib.sha256("".join([digest(), f"{seed}", *(record.name for record in records)]).encode() + (judge or b""))
    sources = of_it.hexdigest()
    network = EcgQrs(judge) if judge else None
    if not (kept.exists() and np.load(kept)["sources"] == sources):
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = joined([met(record, disturber, network) for record in progress.track(records, description=kept.stem)])
        fields = {name: getattr(made, name) for name in Bumps.__slots__}
        np.savez(kept.with_suffix(".part.npz"), sources=sources, **fields)
        kept.with_suffix(".part.npz").replace(kept)
    with np.load(kept) as store:
        return Bumps(*(store[name] for name in Bumps.__slots__))


def digest() -> str:
    """Of the sources that decide the bumps and their labels."""
    sources = (sys.modules[__name__], disturb, filters, qrs, judged, shape, candidate)
    return hashlib.sha256("".join(inspect.getsource(source) for source in sources).encode()).hexdigest()


def joined(parts: Sequence[Bumps]) -> Bumps:
    """All of them."""
    return Bumps(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.beats for part in parts]),
        np.concatenate([part.places for part in parts]),
    )


def _run(detector: QrsDetector, tape: Tape, mv: Samples) -> None:
    for start in range(0, mv.size, _PIECE):
        piece = mv[start : start + _PIECE]
        tape.extend(piece)
        detector.push(piece)
    detector.finish()


def _twice(record: Recorded) -> tuple[Samples, Samples]:
    """From the middle of its first interval to that of its last, two times in a row without a step; and its R peaks."""
    beats = record.beat_s
    first, end = (round(0.5 * float(pair.sum()) * RATE_HZ) for pair in (beats[:2], beats[-2:]))
    part = record.mv[first:end].astype(np.float64)
    part -= np.linspace(0.0, part[-1] - part[0], part.size)
    inside = beats[1:-1] - first / RATE_HZ
    return np.tile(part, 2), np.concatenate((inside, inside + part.size / RATE_HZ))


def _noisy(mv: Samples, beat_s: Samples, disturber: Disturber) -> Samples:
    random = disturber.random
    amplitude = qrs_amplitude(mv, RATE_HZ, beat_s)
    noise = _noise(mv.size, disturber)
    level = _level(mv.size, random) if random.random() >= STEADY else np.full(mv.size, 10 ** (-random.uniform(*LEVELS_DB) / 20))
    if random.random() < QUIET:
        level = 0.0 * level
    noisy: Samples = random.choice((-1.0, 1.0), p=(0.3, 0.7)) * (mv + amplitude / np.sqrt(8) * level * noise)
    return noisy


def _noise(samples: int, disturber: Disturber) -> Samples:
    """Of power 1: kinds mixed, one recorded kind, or made up; the recorded ones seen through other electrodes."""
    random = disturber.random
    drawn = random.random()
    if drawn < MADE_UP:
        return _made_up(samples, random)
    noise = disturber.noise(1, samples)[0] if drawn < MADE_UP + MIXED else disturber.one_kind(samples)
    electrode = np.concatenate(([1.0], random.normal(0, 0.4, random.integers(0, 5))))
    return _of_power_1(np.convolve(noise, electrode)[:samples])


def _made_up(samples: int, random: Random) -> Samples:
    """Noise of a random colour, some of it with a hump like that of muscles, which swells and bursts."""
    hz = np.maximum(np.fft.rfftfreq(samples, 1 / RATE_HZ), 0.5)
    hump = random.uniform(0, 3) * np.exp(-(((hz - random.uniform(2, 40)) / random.uniform(2, 15)) ** 2))
    spectrum = np.fft.rfft(random.normal(0, 1, samples)) * hz ** -random.uniform(0, 1.2) * (0.3 + hump)
    every = round(random.uniform(0.1, 2.0) * RATE_HZ)
    knots = random.normal(0, random.uniform(0.1, 0.9), samples // every + 2)
    swelling = np.exp(np.interp(np.arange(samples) / every, np.arange(knots.size), knots))
    return _of_power_1(np.fft.irfft(spectrum, samples) * swelling)


def _of_power_1(noise: Samples) -> Samples:
    scaled: Samples = noise / np.sqrt(np.mean(noise**2))
    return scaled


def _level(samples: int, random: Random) -> Samples:
    """Noise that comes, changes and goes, at once or within half a second."""
    low, high = LEVELS_DB
    usual_db = random.uniform(low, high - 2)
    snr_db = np.empty(samples)
    start = 0
    while start < samples:
        width = round(random.exponential(4.0) * RATE_HZ) + 30
        drawn = random.random()
        snr_db[start : start + width] = (
            usual_db if drawn < 0.5 else SILENCE_DB if drawn < 0.65 else usual_db + random.uniform(-CHANGE_DB, CHANGE_DB)
        )
        start += width
    half = int(random.choice((1, 5, 25, 60)))
    level: Samples = 10 ** (-snr_db / 20)
    smooth: Samples = np.convolve(np.pad(level, half, mode="edge"), np.ones(2 * half + 1) / (2 * half + 1), "valid")
    return smooth


def _labels(at: NDArray[np.int64], peaks: Samples) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    beats, places = np.zeros(at.size, np.float32), np.zeros(at.size, np.float32)
    for peak in peaks.tolist():
        near = np.flatnonzero(np.abs(at - peak) <= NEAR_S * RATE_HZ)
        if near.size:
            nearest = near[np.abs(at[near] - peak).argmin()]
            beats[nearest], places[nearest] = 1.0, (peak - at[nearest]) / UNIT
    return beats, places
