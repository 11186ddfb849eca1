"""Windows for `ecg_quality`, labelled by what disturbances do to the detector's beats and to the shape of the waves.

Clean stretches are disturbed, put through the agent's own chain, and compared with themselves: no opinion is asked. A window is

- bad, where less than half of the samples is there, an electrode is off for a fifth of the time, or the beats do not hold: F1
  under 0.9 against the reference at 150 ms (the window of EC57; a tenth is the error that IEC 60601-2-27, 201.7.9.2.9.101,
  allows a heart rate);
- beats only, where the beats hold but more than a tenth of them, from P to T, correlates with itself undisturbed by less
  than 0.9 (as white noise makes it at 12 dB; Orphanidou et al., IEEE J Biomed Health Inform 19, 2015, ask 0.66 for beats);
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
from evaluation.qrs import match
from models.inference.ecg_quality import BAD, BEATS_ONLY, GOOD, LEAD_OFF_SHARE, MIN_KNOWN_SHARE, WINDOW, WINDOW_S
from models.signal import chain, envelope, filters, peak, qrs, resample
from models.signal.chain import remove_baseline
from models.signal.offline import condition, resample_recording
from models.signal.resample import RATE_HZ
from training import cinc, disturb
from training.cinc import LABELS, Recorded, load_cinc
from training.disturb import SNR_DB, Disturber, signal_power
from training.sources import code

Samples = NDArray[np.float64]

SEED: Final = 31_000
STRETCH_S: Final = 30.0
"""Disturbed and detected as one: the detector comes to a window with a history."""

DRAWS: Final = {"mitdb": 3, "cinc2017": 1}
"""How often a stretch is disturbed anew: there are four times as many stretches of CinC 2017."""

LEAST_F1: Final = 0.9
LEAST_CORRELATION: Final = 0.9
LEAST_SHARE: Final = 0.9
BEFORE_S, AFTER_S = 0.25, 0.45
"""Around the R peak: P, QRS and most of T."""

CLEAN_F1: Final = 0.95
CLEAN_CORRELATION: Final = 0.9
"""Only what the detector masters undisturbed, and where every beat looks like another one, is taken as clean."""

WEAK: Final = 0.3
"""Weight of a window of a CinC 2017 record that is labelled noise: not all of its windows are."""

UNDISTURBED: Final = 0.12
"""Share of the stretches that only gain and polarity change."""

LABELLED_NOISE: Final = "labelled noise"
"""The kind of those windows."""

RAIL_MV: Final = 5.0


@dataclass(frozen=True, slots=True)
class Windows:
    """`mv` (n, 1250) as the agent conditions it, NaN in gaps; `labels` (n,) classes; `weights` (n,); `patients` (n,) names.

    `snr_db` (n,) is the mean of the window's noise, NaN without noise; `kinds` (n,) what was done to it; `beat_f1` (n,) how the
    detector fares; `alike` (n,) the share of beats whose shape holds.
    """

    mv: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    patients: NDArray[np.str_]
    snr_db: NDArray[np.float32]
    kinds: NDArray[np.str_]
    beat_f1: NDArray[np.float32]
    alike: NDArray[np.float32]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Windows":
        return Windows(*(getattr(self, name)[chosen] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Clean signal at 125 Hz, as recorded, with its R peaks in seconds."""

    patient: str
    mv: Samples
    beat_s: Samples


@dataclass(frozen=True, slots=True)
class Disturbed:
    """What was done to a stretch: the signal, samples where the electrode is off, noise ratio a sample, and its name."""

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
    alike: float


def load_windows(data: Path, kept: Path, progress: Progress) -> Windows:
    """All training windows, made once (two minutes) by these very sources and kept."""
    sources = digest()
    if not (kept.exists() and np.load(kept)["sources"] == sources):
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = collected(_make(data, progress))
        with replacing(kept) as draft:
            np.savez(draft, sources=sources, **{name: getattr(made, name) for name in Windows.__slots__})
    with np.load(kept) as store:
        return Windows(*(store[name] for name in Windows.__slots__))


def digest() -> str:
    """Of the sources that decide the windows and their labels: the disturbances, the detector, the limits."""
    return code(sys.modules[__name__], disturb, chain, envelope, qrs, peak, filters, resample) + cinc.digest()


def collected(windows: Iterator[_Window]) -> Windows:
    """One array a field."""
    rows = list(windows)
    return Windows(
        np.stack([row.mv for row in rows]),
        np.array([row.label for row in rows]),
        np.array([row.weight for row in rows], np.float32),
        np.array([row.patient for row in rows]),
        np.array([row.snr_db for row in rows], np.float32),
        np.array([row.kind for row in rows]),
        np.array([row.beat_f1 for row in rows], np.float32),
        np.array([row.alike for row in rows], np.float32),
    )


def folds(patients: NDArray[np.str_], count: int = 5) -> NDArray[np.int64]:
    """The fold of every window, (n,): whole patients (mitdb) or records (CinC 2017), by name in turn within a database."""
    names = np.unique(patients)
    place = {name: at for base in ("mitdb", "cinc2017") for at, name in enumerate(n for n in names if n.startswith(base))}
    return np.array([place[name] % count for name in patients])


def mitdb_stretches(data: Path) -> Iterator[Stretch]:
    """Clean stretches of every record, with the reference's beats."""
    for header in sorted((data / "mitdb").glob("*.hea")):
        recording = open_recording(header)
        mv = resample_recording(recording.mv, recording.rate_hz)
        beat_s = read_annotations(header.with_suffix(".atr")).beats() / recording.rate_hz
        yield from _clean(f"mitdb/{header.stem}", mv, beat_s)


def cinc_stretches(records: Sequence[Recorded]) -> Iterator[Stretch]:
    """Clean stretches of every record but those labelled noise, with the detector's beats."""
    for record in records:
        if LABELS[record.label] != "~":
            yield from _clean(f"cinc2017/{record.name}", record.mv.astype(np.float64), record.beat_s)


def disturbed(stretch: Stretch, disturber: Disturber, random: np.random.Generator, snr_db: float | None = None) -> Disturbed:
    """The stretch with everything that may happen at once; or with noise alone, at one ratio."""
    if snr_db is not None:
        return _noisy(stretch.mv, disturber, np.full(stretch.mv.size, snr_db), "noise")
    if random.random() < UNDISTURBED:
        return Disturbed(stretch.mv, np.zeros(stretch.mv.size, np.bool_), np.full(stretch.mv.size, np.nan), "none")
    level = random.uniform(*SNR_DB)
    knots = np.clip(level + random.uniform(-8, 8, 7), *SNR_DB)
    noisy = _noisy(stretch.mv, disturber, np.interp(np.linspace(0, 6, stretch.mv.size), np.arange(7), knots), "noise")
    kinds, mv, off = ["noise"], noisy.mv[None], noisy.off
    if random.random() < 0.12:
        kinds, mv = [*kinds, "saturated"], disturber.saturated(mv, 1.0)
    if random.random() < 0.15:
        before, mv = mv, (disturber.lead_off(mv, 1.0) if random.random() < 0.7 else _railed(mv, random))
        kinds, off = [*kinds, "lead_off"], (mv != before)[0]
    if random.random() < 0.35:
        kinds, mv = [*kinds, "gaps"], disturber.gaps(mv, 1.0)
    return Disturbed(mv[0], off, noisy.snr_db, "+".join(kinds))


def labelled(stretch: Stretch, result: Disturbed) -> Iterator[_Window]:
    """The stretch's windows, end to end, with what the detector makes of them."""
    conditioned = condition(result.mv, RATE_HZ)
    clean = remove_baseline(stretch.mv)
    known = np.isfinite(result.mv)
    beat_s = stretch.beat_s[_surely(known, stretch.beat_s)]
    pairs = match(beat_s, conditioned.beat_s)
    hit, true = np.zeros(beat_s.size, np.bool_), np.zeros(len(conditioned.beats), np.bool_)
    hit[[pair[0] for pair in pairs]], true[[pair[1] for pair in pairs]] = True, True
    true |= ~_surely(known, conditioned.beat_s)
    alike = correlation(clean, conditioned.mv, beat_s)
    for start in range(0, stretch.mv.size - WINDOW + 1, WINDOW):
        window = slice(start, start + WINDOW)
        here = _within(beat_s, start)
        f1 = _f1(hit[here], true[_within(conditioned.beat_s, start)])
        whole = alike[here][np.isfinite(alike[here])]
        shape = float(np.mean(whole >= LEAST_CORRELATION)) if whole.size else 0.0
        label = _label(float(np.mean(known[window])), float(np.mean(result.off[window])), f1, shape)
        snr_db = float(np.mean(result.snr_db[window]))
        mv = conditioned.mv[window].astype(np.float32)
        yield _Window(mv, label, 1.0, stretch.patient, snr_db, result.kind, f1, shape)


def _label(known: float, off: float, f1: float, alike: float) -> int:
    if known < MIN_KNOWN_SHARE or off >= LEAD_OFF_SHARE or not f1 >= LEAST_F1:
        return BAD
    return GOOD if alike >= LEAST_SHARE else BEATS_ONLY


def correlation(one: Samples, other: Samples, beat_s: Samples) -> Samples:
    """Of both signals around each beat, (beats,); NaN where a fifth of the samples or more is missing."""
    place = np.rint(beat_s * RATE_HZ).astype(np.int64)[:, None] + np.arange(
        -round(BEFORE_S * RATE_HZ), round(AFTER_S * RATE_HZ)
    )
    inside = (place >= 0) & (place < one.size)
    a, b = (np.where(inside, signal[np.clip(place, 0, one.size - 1)], np.nan) for signal in (one, other))
    both = np.isfinite(a) & np.isfinite(b)
    count = np.maximum(both.sum(-1, keepdims=True), 1)
    a, b = (np.where(both, s - np.where(both, s, 0).sum(-1, keepdims=True) / count, 0.0) for s in (a, b))
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    enough = (both.mean(-1) >= 0.8) & (size > 0)
    shares: Samples = np.divide((a * b).sum(-1), size, out=np.full(beat_s.size, np.nan), where=enough)
    return shares


def disturbed_windows(
    stretch: Stretch, disturber: Disturber, random: np.random.Generator, snr_db: float | None = None
) -> Iterator[_Window]:
    """Windows of one stretch with another gain, perhaps the other polarity, disturbed."""
    changed = Stretch(stretch.patient, disturber.polarity(disturber.gain(stretch.mv[None]))[0], stretch.beat_s)
    return labelled(changed, disturbed(changed, disturber, random, snr_db))


def _make(data: Path, progress: Progress) -> Iterator[_Window]:
    random = np.random.default_rng(SEED)
    disturber = Disturber(data, random)
    records = load_cinc(data, progress)
    bases = {"mitdb": list(mitdb_stretches(data)), "cinc2017": list(cinc_stretches(records))}
    for base, stretches in bases.items():
        for stretch in progress.track(stretches * DRAWS[base], description=f"{base} disturbed"):
            yield from disturbed_windows(stretch, disturber, random)
    for record in records:
        if LABELS[record.label] == "~":
            yield from _as_recorded(record)


def _as_recorded(record: Recorded) -> Iterator[_Window]:
    for start in range(0, record.mv.size - WINDOW + 1, WINDOW):
        mv, nan = record.mv[start : start + WINDOW], float("nan")
        yield _Window(mv, BAD, WEAK, f"cinc2017/{record.name}", nan, LABELLED_NOISE, nan, nan)


def _clean(patient: str, mv: Samples, beat_s: Samples) -> Iterator[Stretch]:
    """Stretches of 30 s (or what there is, from 10 s on), all windows of which are clean."""
    length = round(STRETCH_S * RATE_HZ)
    for start in range(0, mv.size - WINDOW + 1, length):
        part = mv[start : start + length]
        part = part[: part.size // WINDOW * WINDOW]
        beats = beat_s - start / RATE_HZ
        beats = beats[(beats >= 0) & (beats < part.size / RATE_HZ)]
        if np.isfinite(part).all() and _is_clean(part, beats):
            yield Stretch(patient, part, beats)


def _is_clean(mv: Samples, beat_s: Samples) -> bool:
    """Whether the detector finds the beats, and each of nine in ten in every window looks like another one of the stretch."""
    conditioned = condition(mv, RATE_HZ)
    found = len(match(beat_s, conditioned.beat_s))
    if 2 * found < CLEAN_F1 * (beat_s.size + len(conditioned.beats)) or beat_s.size < 2:
        return False
    alike = _best_match(conditioned.mv, beat_s)
    shapes = [alike[_within(beat_s, start)] >= CLEAN_CORRELATION for start in range(0, mv.size, WINDOW)]
    return all(shape.size > 0 and np.mean(shape) >= LEAST_SHARE for shape in shapes)


def _best_match(mv: Samples, beat_s: Samples) -> Samples:
    """Each beat's highest correlation with another one, (beats,), around the QRS complex."""
    place = np.rint(beat_s * RATE_HZ).astype(np.int64)[:, None] + np.arange(-round(0.12 * RATE_HZ), round(0.2 * RATE_HZ))
    beats = mv[np.clip(place, 0, mv.size - 1)]
    beats = beats - beats.mean(-1, keepdims=True)
    beats /= np.maximum(np.linalg.norm(beats, axis=-1, keepdims=True), 1e-9)
    alike = beats @ beats.T
    np.fill_diagonal(alike, -1.0)
    best: Samples = alike.max(-1)
    return best


def _noisy(mv: Samples, disturber: Disturber, snr_db: Samples, kind: str) -> Disturbed:
    scale = np.sqrt(signal_power(remove_baseline(mv)[None])[0] / 10 ** (snr_db / 10))
    return Disturbed(mv + scale * disturber.noise(1, mv.size)[0], np.zeros(mv.size, np.bool_), snr_db, kind)


def _railed(mv: Samples, random: np.random.Generator) -> Samples:
    """The amplifier at the end of its range for 2 s to half of the stretch, and back within a second."""
    size = mv.shape[-1]
    width = int(random.uniform(2 * RATE_HZ, size / 2))
    start = random.integers(0, size - width + 1)
    out = mv.copy()
    rail = random.choice((-1.0, 1.0)) * random.uniform(1.0, RAIL_MV)
    out[:, start + width :] += rail * np.exp(-np.arange(size - start - width) / (0.4 * RATE_HZ))
    out[:, start : start + width] = rail + random.normal(0, random.choice((0.0, 1e-3)), width)
    return out


def _surely(known: NDArray[np.bool_], times_s: Samples) -> NDArray[np.bool_]:
    """Which times have signal all around them: at the edge of a gap a beat may be seen or not."""
    margin = round(0.15 * RATE_HZ)
    whole = np.convolve(np.pad(known, margin, constant_values=True), np.ones(2 * margin + 1), "valid") > 2 * margin
    return whole[np.clip(np.rint(times_s * RATE_HZ).astype(np.int64), 0, known.size - 1)]


def _within(times_s: Samples, start: int) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (times_s >= start / RATE_HZ) & (times_s < start / RATE_HZ + WINDOW_S)
    return inside


def _f1(hit: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """NaN without beats."""
    total = hit.size + true.size
    return float((hit.sum() + true.sum()) / total) if hit.size else float("nan")
