"""Reads one signal of an EDF, EDF+, BDF or BDF+ file as a recording, in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import numpy as np

from captures.choice import IMPLAUSIBLE_MV, Candidate, Choice, choose_signal, note_rate, typical_amplitude
from captures.edf.header import FIXED_BYTES, Header, Signal, count_signals, parse_header
from captures.edf.records import Records, decode_samples, read_blocks
from captures.edf.times import Times, read_times
from captures.leads import millivolts_per_unit
from captures.recording import CHUNK_SAMPLES, LONGEST_S, Chunk, ReadOptions, Recording, RecordingError, Samples
from captures.streams import open_stream

_MEASURED_S: Final = 60.0
"""Length of the start of a signal whose amplitude is measured."""
_MEASURED_SAMPLES: Final = 4 * CHUNK_SAMPLES
"""Most samples that are measured: one minute at 4 kHz."""
_HIGHEST_HZ: Final = 1e6
_SMALLEST_MV: Final = 0.05
"""A QRS complex on the skin is larger. A smaller signal is in the wrong unit, or was recorded without a patient."""
_UNIT_HINT: Final = "give the unit with --unit (V, mV, uV, nV, or counts per millivolt such as 200/mV)"


@dataclass(frozen=True, slots=True)
class _Channel:
    """A signal with its scale: a stored number times `gain` plus `offset`."""

    signal: Signal
    gain: float
    offset: float


def read_edf(path: Path, options: ReadOptions) -> Recording:
    """Open a file of the EDF family, plain or gzipped. It stays closed until its chunks are read.

    Raises:
        RecordingError: the file is damaged, has no ECG, or leaves open what `options` must state.
        OSError: the file cannot be read.
    """
    header = _read_header(path)
    records, notes = _find_records(path, header)
    choice = _choose(path, header, records, options)
    signal = header.signals[choice.candidate.number - 1]
    rate_hz, record_s = _find_rate(path, header, records.count, signal, options)
    channel = _find_scale(path, signal, choice.kind, options)
    times = _find_times(header, records, record_s, rate_hz)
    start_us, late_notes = _find_start(header, times)
    unit = (options.unit if choice.kind == "ecg" else None) or signal.unit or "an unknown unit"
    shown = (
        f"signal {signal.number} of {len(header.signals)} ({signal.label[:40] or 'unnamed'}) in {unit[:40]}, {rate_hz:.6g} Hz"
    )
    recording = Recording(
        name=Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem,
        rate_hz=rate_hz,
        start_us=start_us,
        notes=(
            shown,
            *_stated(header, signal, options),
            *choice.notes,
            *header.notes,
            *notes,
            *times.notes,
            *late_notes,
            *_note_inversion(channel),
        ),
        read_chunks=lambda: _read_chunks(records, channel, header.sample_bytes, rate_hz, times),
        kind=choice.kind,
    )
    return recording if choice.kind == "ppg" else _check_amplitude(path, recording, signal, options)


def _read_header(path: Path) -> Header:
    with open_stream(path) as stream:
        fixed = stream.read(FIXED_BYTES)
        return parse_header(path, fixed, stream.read(FIXED_BYTES * count_signals(path, fixed)))


def _find_records(path: Path, header: Header) -> tuple[Records, list[str]]:
    """Find the data records. Their number follows from the length of the file; notes report differences from the header."""
    size = header.record_bytes
    if not size:
        raise RecordingError(f"{path}: its signals have no samples; give a recording with an ECG")
    with open_stream(path) as stream:
        length = stream.measure()
        notes = ["the gzip file ends too early: what it holds is read"] if stream.is_cut else []
    stated = header.records
    exact = (start for start in header.data_starts if stated and start + stated * size == length)
    start = next(exact, header.data_starts[0])
    count, rest = divmod(max(0, length - start), size)
    if not count:
        raise RecordingError(f"{path}: holds no complete data record ({length} bytes); fetch the file again")
    if stated is None:
        notes.append(f"the header leaves the number of data records open: the file holds {count}")
    elif count < stated:
        notes.append(f"cut: holds {count} of {stated} data records")
    elif count > stated:
        notes.append(f"the header states {stated} data records, the file holds {count}: all are read")
    if rest:
        notes.append(f"the {rest} bytes after the last complete data record are not read")
    return Records(path, start, size, count), notes


def _choose(path: Path, header: Header, records: Records, options: ReadOptions) -> Choice:
    candidates = [
        Candidate(
            number=signal.number,
            name=signal.label,
            unit=signal.unit if signal.scale else "",
            read=partial(_read_raw, records, signal, header.sample_bytes),
        )
        for signal in header.signals
        if signal.samples and not signal.is_annotations
    ]
    if not candidates:
        raise RecordingError(f"{path}: holds only annotations, no signals; give the recording that they belong to")
    return choose_signal(str(path), "signal", candidates, options)


def _read_raw(records: Records, signal: Signal, sample_bytes: int) -> Iterator[Samples]:
    for block in read_blocks(records, signal.start * sample_bytes, signal.samples * sample_bytes, sample_bytes):
        yield decode_samples(block.rows, sample_bytes).astype(np.float64)


def _find_rate(path: Path, header: Header, count: int, signal: Signal, options: ReadOptions) -> tuple[float, float]:
    """The sampling rate and the duration of a data record.

    Raises:
        RecordingError: the header states no rate and the user does not either, or the rate or duration is impossible.
    """
    if options.rate_hz is None and not header.record_s:
        raise RecordingError(f"{path}: its header states no duration of a data record; give the sampling rate with --rate")
    rate_hz = options.rate_hz or signal.samples / header.record_s
    record_s = header.record_s if options.rate_hz is None else signal.samples / options.rate_hz
    if not 0 < rate_hz < _HIGHEST_HZ:
        raise RecordingError(f"{path}: a sampling rate of {rate_hz:.4g} Hz is not possible; give it with --rate")
    if count * record_s > LONGEST_S:
        raise RecordingError(f"{path}: a recording of {count * record_s:.3g} s is not possible; give the rate with --rate")
    return rate_hz, record_s


def _find_scale(path: Path, signal: Signal, kind: Literal["ecg", "ppg"], options: ReadOptions) -> _Channel:
    """The scale to millivolts; for a pulse wave, to the unit of the file.

    Counts per millivolt that the user states replace the scale in the header.
    """
    unit = signal.unit if options.unit is None else options.unit
    factor = 1.0 if kind == "ppg" else millivolts_per_unit(unit)
    shown = f"signal {signal.number} ({signal.label[:40]!r})"
    if not factor:
        named = f"unit {unit[:40]!r}, which is not a unit of voltage" if unit else "no unit"
        raise RecordingError(f"{path}: {shown} has {named}; {_UNIT_HINT}")
    if kind == "ecg" and options.unit and "/" in options.unit:
        return _Channel(signal, factor, 0.0)
    if signal.scale is None:
        raise RecordingError(
            f"{path}: the header does not define the scale of {shown}: physical {_limits(signal.physical)}, digital"
            f" {_limits(signal.digital)}; give counts per millivolt with --unit, such as --unit 200/mV"
        )
    gain, offset = signal.scale
    return _Channel(signal, gain * factor, offset * factor)


def _stated(header: Header, signal: Signal, options: ReadOptions) -> list[str]:
    """Notes on what the user states in place of the header."""
    notes = note_rate(options, signal.samples / header.record_s if header.record_s else None)
    if options.unit is not None and options.unit != signal.unit and millivolts_per_unit(signal.unit):
        notes.append(f"unit {options.unit[:20]} as stated, not {signal.unit[:20]!r} as in the header")
    return notes


def _note_inversion(channel: _Channel) -> tuple[str, ...]:
    low, high = channel.signal.physical
    is_inverted = channel.gain < 0 and low is not None and high is not None and low > high
    return (f"the physical minimum {low:g} is above the maximum {high:g}: the signal is inverted",) if is_inverted else ()


def _limits(pair: tuple[float | None, float | None]) -> str:
    return " to ".join("unknown" if value is None else f"{value:g}" for value in pair)


def _find_times(header: Header, records: Records, record_s: float, rate_hz: float) -> Times:
    annotations = next((signal for signal in header.signals if signal.is_annotations and signal.samples), None)
    if annotations is None:
        note = "a discontinuous file without times (no annotations): its data records are assumed to follow without a gap"
        return Times(notes=(note,) if header.has_gaps else ())
    span = (annotations.start * header.sample_bytes, annotations.samples * header.sample_bytes)
    return read_times(records, span, record_s, rate_hz, has_gaps=header.has_gaps)


def _find_start(header: Header, times: Times) -> tuple[int | None, tuple[str, ...]]:
    notes = (
        (f"the first data record starts {times.offset_s:g} s after the start in the header",)
        if abs(times.offset_s) >= 1
        else ()
    )
    return None if header.start_us is None else header.start_us + round(times.offset_s * 1e6), notes


def _read_chunks(records: Records, channel: _Channel, sample_bytes: int, rate_hz: float, times: Times) -> Iterator[Chunk]:
    samples = channel.signal.samples
    base_s, base = 0.0, 0
    starts_s = dict(zip(times.gaps, times.starts_s, strict=True))
    for block in read_blocks(records, channel.signal.start * sample_bytes, samples * sample_bytes, sample_bytes):
        values = decode_samples(block.rows, sample_bytes).astype(np.float64) * channel.gain + channel.offset
        first = block.first * samples + block.at // sample_bytes
        rows = range(block.first, block.first + len(block.rows)) if block.at == 0 else ()
        cuts = [0, *((row - block.first) * samples for row in rows if row in starts_s and row > block.first), values.size]
        for begin, stop in pairwise(cuts):
            row, inside = divmod(first + begin, samples)
            gap = inside == 0 and row in starts_s
            if gap:
                base_s, base = starts_s[row], first + begin
            yield Chunk(base_s + (first + begin - base) / rate_hz, values[begin:stop], continues=not gap)


def _check_amplitude(path: Path, recording: Recording, signal: Signal, options: ReadOptions) -> Recording:
    """Refuse a unit that makes the signal larger than any ECG, unless the user stated it; add a note if it is too small."""
    if options.unit is not None:
        return recording
    found_mv = typical_amplitude(_read_start(recording), recording.rate_hz)
    if found_mv > IMPLAUSIBLE_MV:
        raise RecordingError(
            f"{path}: signal {signal.number} ({signal.label[:40]!r}) in {signal.unit[:8]!r} spans {found_mv:.4g} mV, too large"
            f" for an ECG; {_UNIT_HINT}"
        )
    if 0 < found_mv < _SMALLEST_MV:
        note = f"the signal spans only {found_mv:.2g} mV; if its unit {signal.unit[:8]!r} is wrong, {_UNIT_HINT}"
        return replace(recording, notes=(*recording.notes, note))
    return recording


def _read_start(recording: Recording) -> Samples:
    parts: list[Samples] = []
    count = 0
    for chunk in recording.read_chunks():
        parts.append(chunk.values)
        count += chunk.values.size
        if count >= min(_MEASURED_S * recording.rate_hz, _MEASURED_SAMPLES):
            break
    return np.concatenate(parts)
