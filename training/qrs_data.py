"""What `ecg_qrs` learns from: bumps that the detector met in clean recordings with noise, and which of them were beats.

The recordings are of CinC 2017; R peaks are those that the agent's own detector finds without noise. Every recording runs twice
in a row: the detector learns the patient's shape in the first half minute.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from config.files import replacing
from evaluation.noise import qrs_amplitude
from models import beat_labels
from models.inference.ecg_qrs import EcgQrs
from models.signal import beat_classifier, envelope, filters, noisy_qrs, qrs, shape
from models.signal.beat_classifier import INPUT_SIZE, OFFSET_UNIT, BeatClassifier, Classification, InputVector
from models.signal.filters import RingBuffer, Samples
from models.signal.noisy_qrs import LEARN_ONE_IN, DoubtfulBeat, NoisyQrsDetector, SubsampledQrsShape
from models.signal.qrs import BUFFER_SAMPLES, PeakCandidate, QrsDetector
from models.signal.resample import RATE_HZ
from training import beat_data, beat_strips, cinc, disturb, qrs_noise, qrs_premature
from training.cinc import LABELS, Recorded
from training.disturb import Random
from training.qrs_noise import Noises, level, steady_level
from training.qrs_premature import repeated, with_premature
from training.sources import code

CLEAN: Final = 0.16
"""Noise as a share of a beat up to which a recording's own R peaks are taken for the truth: nine of ten beats of clean records
of mitdb have less."""

LEAST_S: Final = 20.0
LEAST_BEATS: Final = 12
"""A recording must show its rhythm, and its shape often enough to be learnt."""

UNIT_S: Final = OFFSET_UNIT / RATE_HZ
"""Of a place of an R peak."""

NEAR_S: Final = 0.15
"""The candidate of a beat lies this close to the R peak; of several, it is the nearest. A wide complex's envelope
peaks late, and a burst of noise draws it to itself."""

NEAREST: Final = 12
WRONG: Final = 0.03
"""While the truth decides: samples from an R peak within which a candidate is a beat, and the share of beats that it leaves out."""

SETTLING: Final = round(8.0 * RATE_HZ)
"""Samples after which bumps count: before, the shape is not known."""

STEADY: Final = 0.4
QUIET: Final = 0.12
"""Shares of the recordings with noise at one level throughout, and with none."""

READABLE_DB: Final = 9.0
"""Usual level of noise from which on premature beats are put in. In stronger noise rhythm tells beats better than shape does,
and who has often seen it broken loses more normal beats than are premature ones to find."""

_PIECE: Final = 250


@dataclass(frozen=True, slots=True)
class Bumps:
    """`values` (n, 265) as the network sees them, whether each is a beat (n,), its R peak in `OFFSET_UNIT` samples from it (n,)."""

    values: NDArray[np.float32]
    beats: NDArray[np.float32]
    places: NDArray[np.float32]

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Bumps":
        return Bumps(self.values[chosen], self.beats[chosen], self.places[chosen])


class Watched(NoisyQrsDetector):
    """Shows every candidate to its judge, in a clean signal too, and keeps where each was and what the judge saw of it.

    Without a judge the true R peaks decide, with errors now and then: the network must go on after its own.
    """

    def __init__(self, signal: RingBuffer, judge: BeatClassifier | None, peaks: Samples, random: Random) -> None:
        super().__init__(signal, self._keep)
        self._shape = SubsampledQrsShape(LEARN_ONE_IN)  # a minute has no more than one in `LEARN_ONE_IN_CLEAN`
        self._judge_of_it, self._peaks, self._random = judge, peaks, random
        self._shown = 0
        self.at: list[int] = []
        self.seen: list[InputVector] = []

    def _measure(self, candidate: PeakCandidate) -> PeakCandidate:
        self._shown = candidate.sample
        return candidate if self._learning else self._classify(candidate)

    def _retract(self, doubtful: DoubtfulBeat) -> None:
        """Nothing: what follows a beat that was none is to be learnt from."""

    def _keep(self, values: InputVector) -> Classification:
        self.at.append(self._shown)
        self.seen.append(values)
        return self._judge_of_it(values) if self._judge_of_it else self._truth()

    def _truth(self) -> Classification:
        place = float(self._peaks[np.abs(self._peaks - self._shown).argmin()]) - self._shown
        right = abs(place) <= NEAREST and self._random.random() >= WRONG
        return Classification(0.98 if right else 0.02, place if right else 0.0)


class _Listener(QrsDetector):
    @property
    def noise_share(self) -> float:
        """As it is at the end."""
        return self._noise_ratio()


def clean_recordings(records: Sequence[Recorded]) -> list[Recorded]:
    """Those whose R peaks may be taken for the truth."""
    return [record for record in records if LABELS[record.label] != "~" and _is_clean(record)]


def _is_clean(record: Recorded) -> bool:
    if record.mv.size < LEAST_S * RATE_HZ or record.beat_s.size < LEAST_BEATS or not np.isfinite(record.mv).all():
        return False
    buffer = RingBuffer(BUFFER_SAMPLES)
    detector = _Listener(buffer)
    _run(detector, buffer, record.mv.astype(np.float64))
    return detector.noise_share < CLEAN


@dataclass(frozen=True, slots=True)
class Sources:
    """What recordings are changed with: noise, and ventricular complexes in heights of a usual one."""

    noises: Noises
    complexes: Sequence[Samples]


def met(record: Recorded, sources: Sources, judge: BeatClassifier | None) -> Bumps:
    """The bumps of one recording, run twice with noise; without a judge the truth decides."""
    noisy, peaks = _noisy(*repeated(record, 2), sources)
    buffer = RingBuffer(BUFFER_SAMPLES)
    detector = Watched(buffer, judge, peaks, sources.noises.random)
    _run(detector, buffer, noisy)
    at = np.array(detector.at, np.int64)
    beats, places = _labels(at, peaks)
    values = np.array(detector.seen, np.float32).reshape(-1, INPUT_SIZE)
    return Bumps(values, beats, places)[at > SETTLING]


@dataclass(frozen=True, slots=True)
class Group:
    """Recordings, and the ventricular complexes in them: none that is learnt from is shown to the held-out ones."""

    records: list[Recorded]
    complexes: Sequence[Samples]


def collected(group: Group, seed: int, data: Path, judge: bytes | None, kept: Path, progress: Progress) -> Bumps:
    """The bumps of all of them, met once (two minutes) by these very sources with this very judge, and kept.

    `judge` is an ONNX file's content; `data` the folder that holds the noise.
    """
    of_it = hashlib.sha256("".join([digest(), f"{seed}", *(record.name for record in group.records)]).encode() + (judge or b""))
    wanted = of_it.hexdigest()
    network = EcgQrs(judge) if judge else None
    if not (kept.exists() and np.load(kept)["sources"] == wanted):
        kept.parent.mkdir(parents=True, exist_ok=True)
        sources = Sources(Noises(data, np.random.default_rng(seed)), group.complexes)
        made = joined([met(record, sources, network) for record in progress.track(group.records, description=kept.stem)])
        fields = {name: getattr(made, name) for name in Bumps.__slots__}
        with replacing(kept) as draft:
            np.savez(draft, sources=wanted, **fields)
    with np.load(kept) as store:
        return Bumps(*(store[name] for name in Bumps.__slots__))


def digest() -> str:
    """Of the sources that decide the bumps and their labels."""
    signal = envelope, filters, qrs, noisy_qrs, shape, beat_classifier
    premature = qrs_premature, beat_strips, beat_data, beat_labels
    return code(sys.modules[__name__], qrs_noise, disturb, *premature, *signal) + cinc.digest()


def joined(parts: Sequence[Bumps]) -> Bumps:
    """All of them."""
    return Bumps(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.beats for part in parts]),
        np.concatenate([part.places for part in parts]),
    )


def _run(detector: QrsDetector, buffer: RingBuffer, mv: Samples) -> None:
    for start in range(0, mv.size, _PIECE):
        piece = mv[start : start + _PIECE]
        buffer.extend(piece)
        detector.push()
    detector.finish()


def _noisy(mv: Samples, peaks: Samples, sources: Sources) -> tuple[Samples, Samples]:
    """With premature beats, some of it, and noise; and the R peaks."""
    random = sources.noises.random
    height = qrs_amplitude(mv, RATE_HZ, peaks / RATE_HZ)
    factor = (level if random.random() >= STEADY else steady_level)(mv.size, random)
    if random.random() < QUIET:
        factor = 0.0 * factor
    if np.median(factor) <= 10 ** (-READABLE_DB / 20):
        mv, peaks = with_premature(mv, peaks, height, sources.complexes, random)
    noise = sources.noises.draw(mv.size)
    noisy: Samples = random.choice((-1.0, 1.0), p=(0.3, 0.7)) * (mv + height / np.sqrt(8) * factor * noise)
    return noisy, peaks


def _labels(at: NDArray[np.int64], peaks: Samples) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    beats, places = np.zeros(at.size, np.float32), np.zeros(at.size, np.float32)
    for peak in peaks.tolist():
        near = np.flatnonzero(np.abs(at - peak) <= NEAR_S * RATE_HZ)
        if near.size:
            nearest = near[np.abs(at[near] - peak).argmin()]
            beats[nearest], places[nearest] = 1.0, (peak - at[nearest]) / OFFSET_UNIT
    return beats, places
