"""Chooses which signal of a file is read, by its name and by how much it varies; measures its amplitude."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from captures.leads import NAME_LIMIT, ecg_rank, is_ecg_name, is_ppg_name, millivolts_per_unit, split_words
from captures.recording import ReadOptions, RecordingError, Samples

SHOWN_CHARACTERS: Final = 40
_SHOWN: Final = 8
"""Names that a message lists; the rest is counted."""
IMPLAUSIBLE_MV: Final = 20.0
"""No ECG spans as much within a second: the largest QRS complexes have 5 mV, pacing artefacts are shorter than a sample."""
_MOST_MEASURED: Final = 24
"""Number of ECG signals whose activity is measured: recorders have up to 16 leads."""
_MANY_VALUES: Final = 3
"""A signal of fewer values is a flag, such as that of R peaks or of a detached electrode."""
_FEW_SAMPLES: Final = 100
_LEAST_CHANGES: Final = 0.05
"""Smallest share of samples that differ from the one before; an amplifier at its limit gives fewer."""
_LONGEST_LOOK_S: Final = 60.0
_RATE_TOLERANCE: Final = 1e-3
_WINDOW: Final = 128
"""Samples in which an ECG of 100 to 1000 Hz is not flat, apart from those between slow beats of few bits."""
_ENOUGH: Final = 1 << 17
"""Number of samples that are read from a signal that varies: 4 minutes at 500 Hz."""
_ACTIVE_SHARE: Final = 0.25
"""A larger share of windows varies even in an ECG of few bits with 25 beats a minute at 1000 Hz."""
_LOOK_S: Final = 1.5
"""Length of the windows in which an amplitude is measured: one beat at 40/min or faster."""


def typical_amplitude(values: Samples, rate_hz: float) -> float:
    """The median peak-to-peak amplitude of windows of 1.5 s in the first minute, in the unit of the values; NaN if unknown.

    Drift, single artefacts and invalid samples change it little.
    """
    length = max(1, round(_LOOK_S * rate_hz))
    head = values[: max(length, round(_LONGEST_LOOK_S * rate_hz))]
    count = head.size // length
    rows = head[: count * length].reshape(count, length) if count else head[None, :]
    known = rows[np.isfinite(rows).all(axis=1)] if rows.size else rows
    return float(np.median(np.ptp(known, axis=1))) if known.size else float("nan")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One signal or column of a file. `read` yields its samples, of which some minutes are read, or all if few of them vary."""

    number: int
    name: str
    unit: str
    read: Callable[[], Iterator[Samples]]

    @property
    def short_name(self) -> str:
        """The name for a message that asks for it; the number in place of a long name."""
        return self.name if self.name and len(self.name) <= SHOWN_CHARACTERS else str(self.number)

    def __str__(self) -> str:
        return f"{self.name or 'unnamed'} [{self.unit}]" if self.unit else self.name or "unnamed"


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen signal, its kind, and notes on signals that were not chosen."""

    candidate: Candidate
    kind: Literal["ecg", "ppg"]
    notes: tuple[str, ...] = ()


def choose_signal(
    file: str, what: Literal["signal", "column"], candidates: Sequence[Candidate], options: ReadOptions
) -> Choice:
    """Choose the signal that the user names; otherwise the first that is named like an ECG and is not flat, or the least flat.

    Names that say ECG come before those of leads, those with a unit of voltage before those without, and short names before
    long ones: `ECG` before `ECG baseline`.

    Raises:
        RecordingError: none is named like an ECG, or the user names one that the file does not have.
    """
    if options.signal is not None:
        candidate = find_signal(file, what, candidates, options.signal)
        return Choice(candidate, "ppg" if is_ppg_name(candidate.name) else "ecg")
    ranked = sorted(
        (candidate for candidate in candidates if is_ecg_name(candidate.name)),
        key=_rank_candidate,
    )
    if not ranked:
        pulse = next((candidate for candidate in candidates if is_ppg_name(candidate.name)), None)
        hint = (
            f"; to replay the pulse wave, give --{what} {pulse.short_name!r}"
            if pulse
            else f"; if one is an ECG, name it with --{what}"
        )
        raise RecordingError(f"{file}: no ECG among its {what}s ({list_names(candidates)}){hint}")
    measured: list[tuple[Candidate, Activity]] = []
    for candidate in ranked[:_MOST_MEASURED]:
        measured.append((candidate, measure_activity(candidate.read())))
        if not measured[-1][1].trouble:
            break
    best, activity = max(measured, key=lambda item: item[1].share)
    poor = [f"{what} {item.name[:NAME_LIMIT] or item.number} {found.trouble}" for item, found in measured if found.trouble]
    if not poor:
        return Choice(best, "ecg")
    end = f"{what} {best.name[:NAME_LIMIT] or best.number} is read" if activity.share else "no beats can be found"
    return Choice(best, "ecg", (f"{', '.join(poor)}: {end}",))


def note_rate(options: ReadOptions, file_hz: float | None) -> list[str]:
    """A note on the rate that the user states, if it differs from that of the file."""
    if options.rate_hz is None or file_hz is None or abs(options.rate_hz / file_hz - 1) < _RATE_TOLERANCE:
        return []
    return [f"{options.rate_hz:.6g} Hz as stated with --rate, not {file_hz:.6g} Hz as in the file"]


def _rank_candidate(candidate: Candidate) -> tuple[int, int, int, int]:
    rank = ecg_rank(candidate.name)
    words = len(split_words(candidate.name)) if rank > 1 else 0
    unit = 0 if millivolts_per_unit(candidate.unit) else 1 if not candidate.unit else 2
    return -rank, unit, words, candidate.number


def find_signal(file: str, what: str, candidates: Sequence[Candidate], wanted: str) -> Candidate:
    """The signal of this name, whatever its case; otherwise of this number, from 1.

    Raises:
        RecordingError: the file does not have the signal, or several signals have the name.
    """
    same = [candidate for candidate in candidates if candidate.name.strip().casefold() == wanted.strip().casefold()]
    if len(same) > 1:
        numbers = ", ".join(str(candidate.number) for candidate in same)
        raise RecordingError(f"{file}: {len(same)} {what}s are named {wanted!r}; choose one by its number: {numbers}")
    by_number = [candidate for candidate in candidates if str(candidate.number) == wanted.strip()]
    if not (same or by_number):
        raise RecordingError(
            f"{file}: no {what} {wanted[:NAME_LIMIT]!r} among {list_names(candidates)}; give a name or number with --{what}"
        )
    return (same or by_number)[0]


def list_names(candidates: Sequence[Candidate]) -> str:
    """The names for a message: at most a few, and the number of the others."""
    shown = ", ".join(str(candidate)[:40] for candidate in candidates[:_SHOWN])
    return shown if len(candidates) <= _SHOWN else f"{shown} and {len(candidates) - _SHOWN} more"


@dataclass(frozen=True, slots=True)
class Activity:
    """How much of a signal varies. `share` is the share of active windows; `trouble` says what is wrong, or is empty."""

    share: float
    trouble: str = ""


def measure_activity(parts: Iterator[Samples]) -> Activity:
    """Measure the share of windows in which a signal varies. It is read until enough samples are known, at most to its end.

    A lead whose electrode is off is flat or invalid, apart from some artefacts or the moments before it came off.
    """
    seen: list[float] = []
    windows = active = count = 0
    rest = np.empty(0)
    for part in parts:
        rest = np.concatenate((rest, part))
        full = rest.size // _WINDOW
        rows = rest[: full * _WINDOW].reshape(full, _WINDOW)
        rest = rest[full * _WINDOW :]
        windows += full
        count += part.size
        active += _count_active(rows)
        if len(seen) < _MANY_VALUES:
            seen = np.unique(np.concatenate((seen, part[np.isfinite(part)])))[:_MANY_VALUES].tolist()
        if count >= _ENOUGH and active > _ACTIVE_SHARE * windows and len(seen) == _MANY_VALUES:
            return Activity(active / windows)
    if rest.size:
        windows += 1
        active += _count_active(rest[None, :])
    return _classify_activity(seen, count, active / windows if windows else 0.0)


def _count_active(rows: Samples) -> int:
    """The number of windows in which enough samples differ from the one before."""
    changes = np.count_nonzero(np.abs(np.diff(rows, axis=1)) > 0, axis=1)
    return int(np.count_nonzero(changes > _LEAST_CHANGES * rows.shape[1]))


def _classify_activity(seen: list[float], count: int, share: float) -> Activity:
    if len(seen) < 2:
        return Activity(0.0, "is constant (flat)" if seen else "has no valid sample")
    if len(seen) < _MANY_VALUES and count >= _FEW_SAMPLES:
        return Activity(0.0, "has only two values")
    if share <= _ACTIVE_SHARE and count >= _FEW_SAMPLES:
        return Activity(share, f"is flat or invalid for {100 * (1 - share):.0f} % of its time")
    return Activity(share)
