"""Reads one signal of a WFDB record: chooses it, states what was assumed, and yields its samples in millivolts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np

from captures.choice import IMPLAUSIBLE_MV, Candidate, Choice, choose_signal, note_rate, typical_amplitude
from captures.leads import is_ecg_name, millivolts_per_unit
from captures.recording import Chunk, ReadOptions, Recording, RecordingError, Samples
from captures.wfdb.formats import FLAC_BITS, Adc, invalid_value
from captures.wfdb.header import DEFAULT_GAIN, Signal
from captures.wfdb.segments import Key, Part, Record, find_parts, load_record
from captures.wfdb.stored import UNKNOWN_LENGTH, StoredSignal

_UNKNOWN_UNITS: Final = frozenset(
    (
        *("nu", "n.u.", "adu", "adus", "adc", "count", "counts", "raw", "lsb", "bit", "bits", "digit", "digits"),
        *("unit", "units", "a.u.", "au", "none", "n/a", "na", "unknown", "1", "-", "?"),
    )
)
"""Units in use where the scale is not known; `NU` are the normalized units of MIMIC."""
_SMALL_MV: Final = 0.05
"""QRS complexes of a surface ECG are larger."""
_SHOWN_NOTES: Final = 3


@dataclass(frozen=True, slots=True)
class _Scale:
    """Turns ADC values into the samples of a recording. `unit` is what the user states, in place of the unit in the header."""

    kind: Literal["ecg", "ppg"]
    unit: str | None

    def factor(self, signal: Signal) -> float | None:
        """The value of one ADC unit, in mV for an ECG; None if an ECG cannot have the unit."""
        if self.unit is not None and "/" in self.unit:
            return millivolts_per_unit(self.unit)
        if self.unit is not None or self.kind == "ecg":
            known = millivolts_per_unit(self.unit or signal.unit)
            if known:
                return known / signal.gain
            return 1.0 / signal.gain if signal.unit.lower() in _UNKNOWN_UNITS else None
        return 1.0 / signal.gain

    def convert(self, adc: Adc, signal: Signal) -> Samples:
        """The samples; NaN where an ADC value marks an invalid one."""
        values = (adc.astype(np.float64) - signal.baseline) * (self.factor(signal) or 1.0)
        invalid = invalid_value(signal.format)
        if invalid is not None:
            values[adc == invalid] = np.nan
        return values


_PHYSICAL: Final = _Scale("ppg", None)
"""Leaves the samples in the unit of the header."""


def read_wfdb(path: Path, options: ReadOptions) -> Recording:
    """Read the ECG of the record with this header, or the signal that the options name.

    Raises:
        RecordingError: a file of the record is damaged, missing or not supported, or leaves open what the options must state.
        OSError: a file cannot be read.
    """
    record = load_record(path, options.rate_hz)
    keys = tuple(record.signals)
    candidates = [
        Candidate(number, signal.name.strip(" ,."), signal.unit, partial(_read_physical, record, key))
        for number, (key, signal) in enumerate(record.signals.items(), start=1)
    ]
    if not candidates:
        raise RecordingError(f"{path}: the record has no signals, only gaps; give another record")
    choice = _choose(path, candidates, options)
    key = keys[choice.candidate.number - 1]
    parts, notes = _measure(find_parts(record, key))
    scale = _Scale(choice.kind, options.unit)
    per_frame = record.signals[key].per_frame if not parts else parts[0].stored.signal.per_frame
    rate_hz = options.rate_hz or record.rate_hz * per_frame
    notes += note_rate(options, record.rate_hz * per_frame)
    notes.append(_describe_choice(choice, len(candidates), scale, rate_hz))
    if record.length is not None:
        held = len(parts)
        notes.append(f"{held} of {len(record.placed)} segments hold {choice.candidate.name or 'the signal'}")
    notes += [*choice.notes, *_describe_scale(path, choice.candidate, scale, parts, rate_hz)]
    total = None if record.length is None else record.length * per_frame
    return Recording(
        name=path.stem,
        rate_hz=rate_hz,
        start_us=record.start_us,
        notes=(*record.notes, *notes),
        read_chunks=partial(_read_chunks, parts, scale, rate_hz, total),
        kind=choice.kind,
        is_truncated=any(part.stored.missing for part in parts),
    )


def _choose(path: Path, candidates: Sequence[Candidate], options: ReadOptions) -> Choice:
    """Choose the signal. In a record where none has a name, the first one in a unit of voltage is taken for an ECG."""
    if options.signal is None and not any(candidate.name for candidate in candidates):
        first = next((candidate for candidate in candidates if millivolts_per_unit(candidate.unit)), None)
        if first is not None:
            note = f"no signal has a name: signal {first.number} is taken for an ECG; if it is not, name one with --signal"
            return Choice(first, "ecg", (note,))
    choice = choose_signal(str(path), "signal", candidates, options)
    if choice.kind == "ecg" and not is_ecg_name(choice.candidate.name):
        name = choice.candidate.name[:40] or "the signal"
        return replace(choice, notes=(*choice.notes, f"{name} is not named like an ECG, but read as one, as stated"))
    return choice


def _measure(parts: Sequence[Part]) -> tuple[tuple[Part, ...], list[str]]:
    """Compare the signal files with their headers: length and checksum. Returns the parts that the files hold, and notes."""
    measured: dict[StoredSignal, tuple[StoredSignal, list[str]]] = {}
    for part in parts:
        if part.stored not in measured:
            measured[part.stored] = _measure_stored(part.stored)
    found = [note for _, notes in measured.values() for note in notes]
    if len(found) > _SHOWN_NOTES:
        found = [*found[:_SHOWN_NOTES], f"{len(found) - _SHOWN_NOTES} more such notes on other segments"]
    held = (replace(part, stored=measured[part.stored][0]) for part in parts)
    return tuple(replace(part, frames=min(part.frames, part.stored.usable)) for part in held), found


def _measure_stored(stored: StoredSignal) -> tuple[StoredSignal, list[str]]:
    signal, frames, missing, total = stored.signal, stored.frames, stored.missing, None
    if signal.format in FLAC_BITS or (signal.checksum and not missing):
        frames, total = stored.measure()
        missing += 0 if stored.frames == UNKNOWN_LENGTH else stored.frames - frames
    if not frames:
        raise RecordingError(f"{stored.file}: truncated or damaged: no sample can be read; fetch the file again")
    notes = []
    if missing:
        held, stated = frames * signal.per_frame, (frames + missing) * signal.per_frame
        notes.append(
            f"{stored.file.name} is truncated: it holds {held} of {stated} samples per signal, {stated - held} are missing"
        )
    elif stored.surplus > 1:
        held, stated = (frames + stored.surplus) * signal.per_frame, frames * signal.per_frame
        notes.append(
            f"{stored.file.name} holds {held} samples per signal, the header states {stated}: the rest is left out;"
            " if the format in the header is wrong, correct it"
        )
    if total is not None and signal.checksum and not missing and (total - signal.checksum) % 65536:
        notes.append(f"the checksum of {stored.file.name} does not match the header: samples may be damaged")
    return replace(stored, frames=frames, missing=missing), notes


def _describe_choice(choice: Choice, count: int, scale: _Scale, rate_hz: float) -> str:
    """Which signal is read, with its number from 1 as in `--signal`, its unit as the header states it, and its rate."""
    name, unit = choice.candidate.name[:40] or "unnamed", choice.candidate.unit[:20]
    states_unit = unit and choice.kind == "ecg" and scale.unit is None
    return f"signal {choice.candidate.number} of {count} ({name}){f' in {unit}' if states_unit else ''}, {rate_hz:g} Hz"


def _describe_scale(path: Path, candidate: Candidate, scale: _Scale, parts: Sequence[Part], rate_hz: float) -> list[str]:
    """Notes on what is assumed about the unit.

    Raises:
        RecordingError: the unit is not a voltage, or it is not known and the values are not those of millivolts.
    """
    signals = [part.stored.signal for part in parts]
    wrong = next((signal for signal in signals if scale.factor(signal) is None), None)
    name = candidate.name[:40] or f"signal {candidate.number}"
    if wrong is not None:
        raise RecordingError(f"{path}: the unit of {name} is {wrong.unit[:20]!r}, not a voltage; state it with --unit")
    if scale.unit is not None:
        return [f"unit {scale.unit[:20]} as stated"]
    if scale.kind == "ppg":
        return []
    notes = []
    if not all(signal.is_calibrated for signal in signals):
        notes.append(f"{name} is not calibrated: the default of {DEFAULT_GAIN:g} units per mV is assumed")
    amplitude_mv = _find_amplitude(parts, scale, rate_hz)
    unknown = next((signal.unit for signal in signals if not millivolts_per_unit(signal.unit)), None)
    is_usual = not (amplitude_mv > IMPLAUSIBLE_MV or amplitude_mv < _SMALL_MV)
    if unknown is not None and not is_usual:
        raise RecordingError(
            f"{path}: the unit of {name} is {unknown[:20]!r}, whose scale is not known, and its amplitude of"
            f" {amplitude_mv:.3g} is not that of millivolts; state it with --unit, such as 200/mV"
        )
    if unknown is not None:
        notes.append(
            f"the unit of {name} is {unknown[:20]!r}: its scale is unknown, and mV are assumed; if that is wrong, give --unit"
        )
    elif not is_usual:
        notes.append(f"{name} has an amplitude of {amplitude_mv:.3g} mV, unusual for an ECG; if the gain is wrong, give --unit")
    return notes


def _find_amplitude(parts: Sequence[Part], scale: _Scale, rate_hz: float) -> float:
    """The typical amplitude of the first samples that are valid; NaN if it is unknown."""
    for part in parts:
        for values in _read_part(part, scale):
            amplitude = typical_amplitude(values, rate_hz)
            if not np.isnan(amplitude):
                return amplitude
    return float("nan")


def _read_part(part: Part, scale: _Scale) -> Iterator[Samples]:
    left = part.frames * part.stored.signal.per_frame
    for adc in part.stored.read():
        if left <= 0:
            return
        yield scale.convert(adc[:left], part.stored.signal)
        left -= adc.size


def _read_physical(record: Record, key: Key) -> Iterator[Samples]:
    for part in find_parts(record, key):
        yield from _read_part(part, _PHYSICAL)


def _read_chunks(parts: Sequence[Part], scale: _Scale, rate_hz: float, total: int | None) -> Iterator[Chunk]:
    """Yield the samples with their times. `total` are the samples of a record of segments, which may end with a gap."""
    end = 0
    for part in parts:
        at = part.first * part.stored.signal.per_frame
        stop = at + part.frames * part.stored.signal.per_frame
        for values in _read_part(part, scale):
            yield Chunk(at / rate_hz, values, continues=0 < at == end)
            at += values.size
            end = at
        if at < stop:
            raise RecordingError(f"{part.stored.file}: became shorter while it was read; fetch the file again")
    if total is not None and end < total:
        yield Chunk(total / rate_hz, np.empty(0), continues=False)
