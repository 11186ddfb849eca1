"""Training windows of `ecg_quality`, labelled by what artefacts do to the detector's beats and to the shape of the waves.

Artefacts are added to clean stretches, the agent's own chain processes the result, and it is compared with the clean stretch.
No human labels are used. A window is

- bad, where less than half of the samples were received, an electrode is off for a fifth of the time, or the beats are not
found: F1 under 0.9 against the reference at 150 ms (the window of EC57; a tenth is the error that IEC 60601-2-27,
201.7.9.2.9.101, allows a heart rate);
- beats only, where the beats are found but more than a tenth of them, from P to T, have a correlation under 0.9 with their
clean version (as white noise at 12 dB causes; Orphanidou et al., IEEE J Biomed Health Inform 19, 2015, require 0.66 for beats);
- good otherwise.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures import open_recording
from captures.annotations import read_annotations
from config.files import replacing
from evaluation.matching import match
from models.inference.ecg_quality import BAD, BEATS_ONLY, GOOD, LEAD_OFF_SHARE, MIN_KNOWN_SHARE, WINDOW_S, WINDOW_SAMPLES
from models.signal import chain, envelope, filters, peak, qrs, resample
from models.signal.chain import remove_baseline
from models.signal.offline import condition, resample_recording
from models.signal.resample import RATE_HZ
from training import cinc, ecg_augmentation
from training.cache import source_digest
from training.cinc import LABELS, CincRecording, load_cinc
from training.ecg_augmentation import SNR_DB, EcgAugmenter, qrs_equivalent_power

Samples = NDArray[np.float64]

SEED: Final = 31_000
STRETCH_S: Final = 30.0
"""Artefacts are added to, and beats detected in, a stretch as a whole, so the detector has a history when a window begins."""

DRAWS: Final = {"mitdb": 3, "cinc2017": 1}
"""How often a stretch is used, each time with other artefacts. There are four times as many stretches of CinC 2017."""

MIN_F1: Final = 0.9
MIN_CORRELATION: Final = 0.9
MIN_INTACT_SHARE: Final = 0.9
"""Smallest F1 of the beats in a window that is not bad; smallest correlation of a beat of intact shape; smallest share of such
beats in a good window, and in every window of a clean stretch."""

BEFORE_S, AFTER_S = 0.25, 0.45
"""Seconds before and after the R peak: P, QRS and most of T."""

CLEAN_F1: Final = 0.95
CLEAN_CORRELATION: Final = 0.9
"""A stretch is clean only if the detector finds its beats, and if every beat resembles another one."""

LABELLED_NOISE_WEIGHT: Final = 0.3
"""Weight of a window of a CinC 2017 recording labelled noise, because not all of its windows are noise."""

UNCHANGED_SHARE: Final = 0.12
"""Share of the stretches in which only gain and polarity are changed."""

LABELLED_NOISE: Final = "labelled noise"
"""The kind of the windows of recordings labelled noise."""

RAIL_MV: Final = 5.0
"""Highest output of a saturated amplifier."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows with their labels.

    Attributes:
        mv: (n, 1250) as conditioned in the agent, NaN in gaps.
        labels: (n,) classes.
        weights: (n,) weights in the loss.
        patients: (n,) names.
        snr_db: (n,) mean ratio of the added noise, NaN without noise.
        kinds: (n,) which artefacts were added.
        beat_f1: (n,) F1 of the detector.
        intact_share: (n,) share of beats whose shape is intact.
    """

    mv: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    patients: NDArray[np.str_]
    snr_db: NDArray[np.float32]
    kinds: NDArray[np.str_]
    beat_f1: NDArray[np.float32]
    intact_share: NDArray[np.float32]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Windows":
        return Windows(*(getattr(self, name)[chosen] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Clean signal at 125 Hz, as recorded, with its R peaks in seconds."""

    patient: str
    mv: Samples
    beat_s: Samples


@dataclass(frozen=True, slots=True)
class AugmentedStretch:
    """A stretch with artefacts: signal, where the electrode is off, noise ratio per sample, names of the artefacts."""

    mv: Samples
    off: NDArray[np.bool_]
    snr_db: Samples
    kind: str


@dataclass(frozen=True, slots=True)
class _Window:
    mv: NDArray[np.float32]
    label: int
    weight: float
    patient: str
    snr_db: float
    kind: str
    beat_f1: float
    intact_share: float


def load_windows(data: Path, cache: Path, progress: Progress) -> Windows:
    """Return all training windows. They are cached as long as the code is the same; computing them takes two minutes."""
    sources = digest()
    if not (cache.exists() and np.load(cache)["sources"] == sources):
        cache.parent.mkdir(parents=True, exist_ok=True)
        windows = stack_windows(_make_windows(data, progress))
        with replacing(cache) as draft:
            np.savez(draft, sources=sources, **{name: getattr(windows, name) for name in Windows.__slots__})
    with np.load(cache) as store:
        return Windows(*(store[name] for name in Windows.__slots__))


def digest() -> str:
    """Return the digest of the source code that determines the windows and their labels: augmentation, detector, limits."""
    return source_digest(sys.modules[__name__], ecg_augmentation, chain, envelope, qrs, peak, filters, resample) + cinc.digest()


def stack_windows(windows: Iterator[_Window]) -> Windows:
    """Return the windows as arrays."""
    rows = list(windows)
    return Windows(
        np.stack([row.mv for row in rows]),
        np.array([row.label for row in rows]),
        np.array([row.weight for row in rows], np.float32),
        np.array([row.patient for row in rows]),
        np.array([row.snr_db for row in rows], np.float32),
        np.array([row.kind for row in rows]),
        np.array([row.beat_f1 for row in rows], np.float32),
        np.array([row.intact_share for row in rows], np.float32),
    )


def assign_folds(patients: NDArray[np.str_], count: int = 5) -> NDArray[np.int64]:
    """Return the fold of every window, (n,). Whole patients (mitdb) or recordings (CinC 2017) are assigned in turn by name."""
    names = np.unique(patients)
    index = {
        name: at for database in ("mitdb", "cinc2017") for at, name in enumerate(n for n in names if n.startswith(database))
    }
    return np.array([index[name] % count for name in patients])


def mitdb_stretches(data: Path) -> Iterator[Stretch]:
    """Yield the clean stretches of every mitdb record, with the reference's beats."""
    for header in sorted((data / "mitdb").glob("*.hea")):
        recording = open_recording(header)
        mv = resample_recording(recording.mv, recording.rate_hz)
        beat_s = read_annotations(header.with_suffix(".atr")).beats() / recording.rate_hz
        yield from _clean_stretches(f"mitdb/{header.stem}", mv, beat_s)


def cinc_stretches(records: Sequence[CincRecording]) -> Iterator[Stretch]:
    """Yield the clean stretches of every CinC 2017 recording not labelled noise, with the detector's beats."""
    for record in records:
        if LABELS[record.label] != "~":
            yield from _clean_stretches(f"cinc2017/{record.name}", record.mv.astype(np.float64), record.beat_s)


def augment(
    stretch: Stretch, augmenter: EcgAugmenter, random: np.random.Generator, snr_db: float | None = None
) -> AugmentedStretch:
    """Add artefacts of all kinds at random to a stretch, or only noise at `snr_db` if that is given."""
    if snr_db is not None:
        return _add_noise(stretch.mv, augmenter, np.full(stretch.mv.size, snr_db), "noise")
    if random.random() < UNCHANGED_SHARE:
        return AugmentedStretch(stretch.mv, np.zeros(stretch.mv.size, np.bool_), np.full(stretch.mv.size, np.nan), "none")
    level = random.uniform(*SNR_DB)
    knots = np.clip(level + random.uniform(-8, 8, 7), *SNR_DB)
    noisy = _add_noise(stretch.mv, augmenter, np.interp(np.linspace(0, 6, stretch.mv.size), np.arange(7), knots), "noise")
    kinds, mv, off = ["noise"], noisy.mv[None], noisy.off
    if random.random() < 0.12:
        kinds, mv = [*kinds, "saturated"], augmenter.saturate(mv, 1.0)
    if random.random() < 0.15:
        clean, mv = mv, (augmenter.detach_electrode(mv, 1.0) if random.random() < 0.7 else _saturate_amplifier(mv, random))
        kinds, off = [*kinds, "lead_off"], (mv != clean)[0]
    if random.random() < 0.35:
        kinds, mv = [*kinds, "gaps"], augmenter.add_gaps(mv, 1.0)
    return AugmentedStretch(mv[0], off, noisy.snr_db, "+".join(kinds))


def label_windows(stretch: Stretch, augmented: AugmentedStretch) -> Iterator[_Window]:
    """Yield the consecutive windows of a stretch, labelled by what the detector finds."""
    conditioned = condition(augmented.mv, RATE_HZ)
    clean = remove_baseline(stretch.mv)
    known = np.isfinite(augmented.mv)
    beat_s = stretch.beat_s[_is_surrounded(known, stretch.beat_s)]
    pairs = match(beat_s, conditioned.beat_s)
    is_found, is_true = np.zeros(beat_s.size, np.bool_), np.zeros(len(conditioned.beats), np.bool_)
    is_found[[pair[0] for pair in pairs]], is_true[[pair[1] for pair in pairs]] = True, True
    is_true |= ~_is_surrounded(known, conditioned.beat_s)
    correlations = beat_correlations(clean, conditioned.mv, beat_s)
    for start in range(0, stretch.mv.size - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        window = slice(start, start + WINDOW_SAMPLES)
        in_window = _is_in_window(beat_s, start)
        f1 = _beat_f1(is_found[in_window], is_true[_is_in_window(conditioned.beat_s, start)])
        measured = correlations[in_window][np.isfinite(correlations[in_window])]
        intact_share = float(np.mean(measured >= MIN_CORRELATION)) if measured.size else 0.0
        label = _label(float(np.mean(known[window])), float(np.mean(augmented.off[window])), f1, intact_share)
        snr_db = float(np.mean(augmented.snr_db[window]))
        mv = conditioned.mv[window].astype(np.float32)
        yield _Window(mv, label, 1.0, stretch.patient, snr_db, augmented.kind, f1, intact_share)


def _label(known: float, off: float, f1: float, intact_share: float) -> int:
    if known < MIN_KNOWN_SHARE or off >= LEAD_OFF_SHARE or not f1 >= MIN_F1:
        return BAD
    return GOOD if intact_share >= MIN_INTACT_SHARE else BEATS_ONLY


def beat_correlations(first: Samples, second: Samples, beat_s: Samples) -> Samples:
    """Return the correlation of both signals around each beat, (beats,); NaN where a fifth of the samples is missing."""
    indices = np.rint(beat_s * RATE_HZ).astype(np.int64)[:, None] + np.arange(
        -round(BEFORE_S * RATE_HZ), round(AFTER_S * RATE_HZ)
    )
    inside = (indices >= 0) & (indices < first.size)
    a, b = (np.where(inside, signal[np.clip(indices, 0, first.size - 1)], np.nan) for signal in (first, second))
    known = np.isfinite(a) & np.isfinite(b)
    count = np.maximum(known.sum(-1, keepdims=True), 1)
    a, b = (np.where(known, s - np.where(known, s, 0).sum(-1, keepdims=True) / count, 0.0) for s in (a, b))
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    sufficient = (known.mean(-1) >= 0.8) & (size > 0)
    correlations: Samples = np.divide((a * b).sum(-1), size, out=np.full(beat_s.size, np.nan), where=sufficient)
    return correlations


def augmented_windows(
    stretch: Stretch, augmenter: EcgAugmenter, random: np.random.Generator, snr_db: float | None = None
) -> Iterator[_Window]:
    """Yield the windows of one stretch with random gain and polarity and with artefacts."""
    varied = Stretch(stretch.patient, augmenter.flip_polarity(augmenter.scale_gain(stretch.mv[None]))[0], stretch.beat_s)
    return label_windows(varied, augment(varied, augmenter, random, snr_db))


def _make_windows(data: Path, progress: Progress) -> Iterator[_Window]:
    random = np.random.default_rng(SEED)
    augmenter = EcgAugmenter(data, random)
    records = load_cinc(data, progress)
    databases = {"mitdb": list(mitdb_stretches(data)), "cinc2017": list(cinc_stretches(records))}
    for database, stretches in databases.items():
        for stretch in progress.track(stretches * DRAWS[database], description=f"{database} with artefacts"):
            yield from augmented_windows(stretch, augmenter, random)
    for record in records:
        if LABELS[record.label] == "~":
            yield from _noise_windows(record)


def _noise_windows(record: CincRecording) -> Iterator[_Window]:
    for start in range(0, record.mv.size - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        mv, nan = record.mv[start : start + WINDOW_SAMPLES], float("nan")
        yield _Window(mv, BAD, LABELLED_NOISE_WEIGHT, f"cinc2017/{record.name}", nan, LABELLED_NOISE, nan, nan)


def _clean_stretches(patient: str, mv: Samples, beat_s: Samples) -> Iterator[Stretch]:
    """Yield stretches of 30 s (or the rest, from 10 s) in which all windows are clean."""
    length = round(STRETCH_S * RATE_HZ)
    for start in range(0, mv.size - WINDOW_SAMPLES + 1, length):
        section = mv[start : start + length]
        section = section[: section.size // WINDOW_SAMPLES * WINDOW_SAMPLES]
        beats = beat_s - start / RATE_HZ
        beats = beats[(beats >= 0) & (beats < section.size / RATE_HZ)]
        if np.isfinite(section).all() and _is_clean(section, beats):
            yield Stretch(patient, section, beats)


def _is_clean(mv: Samples, beat_s: Samples) -> bool:
    """Whether the detector finds the beats, and nine in ten beats of every window resemble another one of the stretch."""
    conditioned = condition(mv, RATE_HZ)
    found = len(match(beat_s, conditioned.beat_s))
    if 2 * found < CLEAN_F1 * (beat_s.size + len(conditioned.beats)) or beat_s.size < 2:
        return False
    correlations = _best_correlations(conditioned.mv, beat_s)
    shapes = [correlations[_is_in_window(beat_s, start)] >= CLEAN_CORRELATION for start in range(0, mv.size, WINDOW_SAMPLES)]
    return all(shape.size > 0 and np.mean(shape) >= MIN_INTACT_SHARE for shape in shapes)


def _best_correlations(mv: Samples, beat_s: Samples) -> Samples:
    """Return each beat's highest correlation with another one around the QRS complex, (beats,)."""
    indices = np.rint(beat_s * RATE_HZ).astype(np.int64)[:, None] + np.arange(-round(0.12 * RATE_HZ), round(0.2 * RATE_HZ))
    beats = mv[np.clip(indices, 0, mv.size - 1)]
    beats = beats - beats.mean(-1, keepdims=True)
    beats /= np.maximum(np.linalg.norm(beats, axis=-1, keepdims=True), 1e-9)
    correlations = beats @ beats.T
    np.fill_diagonal(correlations, -1.0)
    best: Samples = correlations.max(-1)
    return best


def _add_noise(mv: Samples, augmenter: EcgAugmenter, snr_db: Samples, kind: str) -> AugmentedStretch:
    scale = np.sqrt(qrs_equivalent_power(remove_baseline(mv)[None])[0] / 10 ** (snr_db / 10))
    return AugmentedStretch(mv + scale * augmenter.draw_noise(1, mv.size)[0], np.zeros(mv.size, np.bool_), snr_db, kind)


def _saturate_amplifier(mv: Samples, random: np.random.Generator) -> Samples:
    """Hold the amplifier at the end of its range for 2 s to half of the stretch; it recovers within a second."""
    size = mv.shape[-1]
    width = int(random.uniform(2 * RATE_HZ, size / 2))
    start = random.integers(0, size - width + 1)
    out = mv.copy()
    rail = random.choice((-1.0, 1.0)) * random.uniform(1.0, RAIL_MV)
    out[:, start + width :] += rail * np.exp(-np.arange(size - start - width) / (0.4 * RATE_HZ))
    out[:, start : start + width] = rail + random.normal(0, random.choice((0.0, 1e-3)), width)
    return out


def _is_surrounded(known: NDArray[np.bool_], times_s: Samples) -> NDArray[np.bool_]:
    """Return which times have signal all around them. At the edge of a gap a beat may be found or not."""
    margin = round(0.15 * RATE_HZ)
    whole = np.convolve(np.pad(known, margin, constant_values=True), np.ones(2 * margin + 1), "valid") > 2 * margin
    return whole[np.clip(np.rint(times_s * RATE_HZ).astype(np.int64), 0, known.size - 1)]


def _is_in_window(times_s: Samples, start: int) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (times_s >= start / RATE_HZ) & (times_s < start / RATE_HZ + WINDOW_S)
    return inside


def _beat_f1(is_found: NDArray[np.bool_], is_true: NDArray[np.bool_]) -> float:
    """Return the F1 of the beats; NaN without beats."""
    total = is_found.size + is_true.size
    return float((is_found.sum() + is_true.sum()) / total) if is_found.size else float("nan")
