"""Training data of `ecg_qrs`: the candidates that the detector finds in clean recordings with added noise, and which of them
are beats.

The recordings are those of CinC 2017. R peaks are those that the agent's own detector finds without noise. Every recording is
played twice in a row, because the detector learns the patient's QRS template in the first half minute.
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
from models import beat_context
from models.inference.ecg_qrs import EcgQrs
from models.signal import beat_classifier, envelope, filters, noisy_qrs, qrs, shape
from models.signal.beat_classifier import INPUT_SIZE, OFFSET_UNIT_SAMPLES, BeatClassifier, Classification, InputVector
from models.signal.candidates import PeakCandidate
from models.signal.envelope_peaks import BUFFER_SAMPLES
from models.signal.filters import RingBuffer, Samples
from models.signal.noisy_qrs import LEARN_EVERY_N_BEATS, DoubtfulBeat, NoisyQrsDetector, SubsampledQrsShape
from models.signal.qrs import QrsDetector
from models.signal.resample import RATE_HZ
from training import beat_cinc, beat_data, cinc, ecg_augmentation, qrs_noise, qrs_premature
from training.cache import source_digest
from training.cinc import LABELS, CincRecording
from training.ecg_augmentation import Random
from training.qrs_noise import NoiseGenerator, constant_level, varying_level
from training.qrs_premature import insert_premature_beats, repeat_recording

MAX_NOISE: Final = 0.16
"""Noise as a share of a beat up to which the R peaks found in a recording count as the truth. Nine of ten beats of clean mitdb
records have less."""

MIN_LENGTH_S: Final = 20.0
MIN_BEATS: Final = 12
"""A recording must be long enough to show its rhythm, and have enough beats to learn its template."""

UNIT_S: Final = OFFSET_UNIT_SAMPLES / RATE_HZ
"""Unit of the offset of an R peak, in seconds."""

MAX_DISTANCE_S: Final = 0.15
"""The candidate of a beat is the nearest one within this distance of the R peak. The envelope of a wide complex peaks late, and
a burst of noise shifts the peak towards itself."""

TRUTH_DISTANCE: Final = 12
TRUTH_ERROR_SHARE: Final = 0.03
"""Where the reference beats decide which candidates the detector accepts: the distance from an R peak, in samples, within which
a candidate is accepted, and the share of the beats that are rejected nevertheless."""

SETTLING: Final = round(8.0 * RATE_HZ)
"""Samples after which candidates are used; before, the QRS template is not known."""

CONSTANT_LEVEL_SHARE: Final = 0.4
NOISE_FREE_SHARE: Final = 0.12
"""Shares of the recordings with noise at a constant level, and without noise."""

PREMATURE_FROM_DB: Final = 9.0
"""Typical noise level up to which premature beats are inserted. In stronger noise the rhythm identifies beats better than the
shape, and a network trained on many broken rhythms loses more normal beats than there are premature ones to find."""

_CHUNK: Final = 250


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates of the detector.

    Attributes:
        values: (n, 265) the inputs of the network.
        beats: (n,) 1 where a candidate is a beat.
        offsets: (n,) distance of its R peak in `OFFSET_UNIT_SAMPLES` samples.
    """

    values: NDArray[np.float32]
    beats: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Candidates":
        return Candidates(self.values[chosen], self.beats[chosen], self.offsets[chosen])


class CandidateRecorder(NoisyQrsDetector):
    """Asks its classifier about every candidate, even in a clean signal, and records the position and the values of each.

    Without a classifier the true R peaks decide, with occasional errors, because the network must continue after its own
    errors.
    """

    def __init__(self, signal: RingBuffer, classifier: BeatClassifier | None, peaks: Samples, random: Random) -> None:
        super().__init__(signal, self._record_candidate)
        self._shape = SubsampledQrsShape(LEARN_EVERY_N_BEATS)  # a minute has at most one beat in `LEARN_EVERY_N_CLEAN_BEATS`
        self._recorded_classifier, self._true_peaks, self._truth_random = classifier, peaks, random
        self._current_position = 0
        self.positions: list[int] = []
        self.inputs: list[InputVector] = []

    def _measure(self, candidate: PeakCandidate) -> PeakCandidate:
        self._current_position = candidate.sample
        return candidate if self._learning else self._classify(candidate)

    def _retract(self, doubtful: DoubtfulBeat) -> None:
        """Keep the beat: what follows a false beat is training data too."""

    def _record_candidate(self, values: InputVector) -> Classification:
        self.positions.append(self._current_position)
        self.inputs.append(values)
        return self._recorded_classifier(values) if self._recorded_classifier else self._classify_by_truth()

    def _classify_by_truth(self) -> Classification:
        offset = float(self._true_peaks[np.abs(self._true_peaks - self._current_position).argmin()]) - self._current_position
        is_beat = abs(offset) <= TRUTH_DISTANCE and self._truth_random.random() >= TRUTH_ERROR_SHARE
        return Classification(0.98 if is_beat else 0.02, offset if is_beat else 0.0)


class _NoiseMeter(QrsDetector):
    @property
    def noise_share(self) -> float:
        """The noise as a share of a beat, at the end of what was pushed."""
        return self._noise_ratio()


def select_clean_recordings(records: Sequence[CincRecording]) -> list[CincRecording]:
    """Return the recordings whose R peaks can count as the truth."""
    return [record for record in records if LABELS[record.label] != "~" and _is_clean(record)]


def _is_clean(record: CincRecording) -> bool:
    if record.mv.size < MIN_LENGTH_S * RATE_HZ or record.beat_s.size < MIN_BEATS or not np.isfinite(record.mv).all():
        return False
    buffer = RingBuffer(BUFFER_SAMPLES)
    detector = _NoiseMeter(buffer)
    _run_detector(detector, buffer, record.mv.astype(np.float64))
    return detector.noise_share < MAX_NOISE


@dataclass(frozen=True, slots=True)
class AugmentationSources:
    """What recordings are augmented with: noise, and ventricular complexes scaled to the height of a normal complex."""

    noise_generator: NoiseGenerator
    complexes: Sequence[Samples]


def record_candidates(record: CincRecording, sources: AugmentationSources, classifier: BeatClassifier | None) -> Candidates:
    """Return the candidates of one recording, played twice with noise. Without a classifier the reference beats decide."""
    noisy, peaks = _augment(*repeat_recording(record, 2), sources)
    buffer = RingBuffer(BUFFER_SAMPLES)
    detector = CandidateRecorder(buffer, classifier, peaks, sources.noise_generator.random)
    _run_detector(detector, buffer, noisy)
    positions = np.array(detector.positions, np.int64)
    beats, offsets = _label_candidates(positions, peaks)
    values = np.array(detector.inputs, np.float32).reshape(-1, INPUT_SIZE)
    return Candidates(values, beats, offsets)[positions > SETTLING]


@dataclass(frozen=True, slots=True)
class RecordingGroup:
    """Recordings and the ventricular complexes found in them. Held-out recordings get none of a training recording."""

    records: list[CincRecording]
    complexes: Sequence[Samples]


def load_candidates(
    group: RecordingGroup, seed: int, data: Path, classifier: bytes | None, cache: Path, progress: Progress
) -> Candidates:
    """Return the candidates of all recordings. They are cached; computing them takes two minutes.

    The cache is valid for the same code, recordings and classifier.

    Args:
        group: the recordings.
        seed: seed of the augmentation.
        data: the folder that holds the noise.
        classifier: content of an ONNX file; None if the reference beats decide.
        cache: the file.
        progress: where progress is shown.
    """
    names = "".join(record.name for record in group.records)
    key = hashlib.sha256(f"{digest()}{seed}{names}".encode() + (classifier or b"")).hexdigest()
    network = EcgQrs(classifier) if classifier else None
    if not (cache.exists() and np.load(cache)["sources"] == key):
        cache.parent.mkdir(parents=True, exist_ok=True)
        sources = AugmentationSources(NoiseGenerator(data, np.random.default_rng(seed)), group.complexes)
        candidates = concatenate(
            [record_candidates(record, sources, network) for record in progress.track(group.records, description=cache.stem)]
        )
        fields = {name: getattr(candidates, name) for name in Candidates.__slots__}
        with replacing(cache) as draft:
            np.savez(draft, sources=key, **fields)
    with np.load(cache) as store:
        return Candidates(*(store[name] for name in Candidates.__slots__))


def digest() -> str:
    """Return the digest of the source code that determines the candidates and their labels."""
    signal = envelope, filters, qrs, noisy_qrs, shape, beat_classifier
    premature = qrs_premature, beat_cinc, beat_data, beat_context
    return source_digest(sys.modules[__name__], qrs_noise, ecg_augmentation, *premature, *signal) + cinc.digest()


def concatenate(parts: Sequence[Candidates]) -> Candidates:
    """Return the candidates of all parts."""
    return Candidates(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.beats for part in parts]),
        np.concatenate([part.offsets for part in parts]),
    )


def _run_detector(detector: QrsDetector, buffer: RingBuffer, mv: Samples) -> None:
    for start in range(0, mv.size, _CHUNK):
        piece = mv[start : start + _CHUNK]
        buffer.extend(piece)
        detector.push()
    detector.finish()


def _augment(mv: Samples, peaks: Samples, sources: AugmentationSources) -> tuple[Samples, Samples]:
    """Return the recording with premature beats (in some) and noise, and its R peaks."""
    random = sources.noise_generator.random
    height = qrs_amplitude(mv, RATE_HZ, peaks / RATE_HZ)
    factor = (varying_level if random.random() >= CONSTANT_LEVEL_SHARE else constant_level)(mv.size, random)
    if random.random() < NOISE_FREE_SHARE:
        factor = 0.0 * factor
    if np.median(factor) <= 10 ** (-PREMATURE_FROM_DB / 20):
        mv, peaks = insert_premature_beats(mv, peaks, height, sources.complexes, random)
    noise = sources.noise_generator.draw(mv.size)
    noisy: Samples = random.choice((-1.0, 1.0), p=(0.3, 0.7)) * (mv + height / np.sqrt(8) * factor * noise)
    return noisy, peaks


def _label_candidates(positions: NDArray[np.int64], peaks: Samples) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    beats, offsets = np.zeros(positions.size, np.float32), np.zeros(positions.size, np.float32)
    for peak in peaks.tolist():
        near_peak = np.flatnonzero(np.abs(positions - peak) <= MAX_DISTANCE_S * RATE_HZ)
        if near_peak.size:
            nearest = near_peak[np.abs(positions[near_peak] - peak).argmin()]
            beats[nearest], offsets[nearest] = 1.0, (peak - positions[nearest]) / OFFSET_UNIT_SAMPLES
    return beats, offsets
