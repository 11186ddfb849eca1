"""Reads a recording from JSON: a document, or JSON lines of packets."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from captures.choice import Candidate, Choice, choose_signal
from captures.exports.loading import is_cut, load_document, read_objects, starts_json_lines
from captures.exports.packets import (
    Packet,
    PacketOrderError,
    choose_name,
    parse_packet,
    parse_sample,
    period_of,
    scale_samples,
    sort_packets,
)
from captures.exports.signals import Signal, find_signals
from captures.leads import is_ecg_name, is_ppg_name, millivolts_per_unit
from captures.recording import CHUNK_SAMPLES, Chunk, ReadOptions, Recording, RecordingError, Samples, split_chunks

_READ: Final = (
    "give a capture of pulsegate, or an export with a list of samples: Fitbit, Withings, Kardia, Health Auto Export,"
    " Polar Recorder, Movesense, FHIR"
)
_FIRST_PACKETS: Final = 2_000
"""Packets whose times give the sampling rate: 19 minutes of a Polar H10."""
_LONG_STEP: Final = 1.5
"""A packet follows a gap if it begins later than the end of the one before by this many samples."""
_RATE_TOLERANCE: Final = 0.05


def read_json(path: Path, options: ReadOptions) -> Recording:
    """Open a JSON export of one or several recordings; see `captures.exports.signals` for the shapes.

    Raises:
        RecordingError: the file is damaged, too long or of another kind, or leaves open what `options` must state.
        OSError: the file cannot be read.
    """
    if starts_json_lines(path):
        return _read_lines(path, options)
    try:
        signals = find_signals(load_document(path))
    except PacketOrderError as error:
        raise RecordingError(f"{path}: {error}; split the recordings") from None
    if not signals:
        raise RecordingError(f"{path}: JSON without a list of samples; {_READ}")
    return recording_of(path, signals, options)


def recording_of(path: Path, signals: list[Signal], options: ReadOptions) -> Recording:
    """The recording of the first ECG of an export, or of the signal that `options` name.

    Raises:
        RecordingError: no signal is an ECG, or the file leaves open what `options` must state.
    """
    candidates = [
        Candidate(number, signal.name, signal.unit, lambda signal=signal: iter((signal.values,)))  # type: ignore[misc]
        for number, signal in enumerate(signals, 1)
    ]
    choice = _choose(path, candidates, signals, options)
    signal = signals[choice.candidate.number - 1]
    rate_hz = options.rate_hz or signal.rate_hz
    factor = _check_known(path, choice.kind, choice.candidate, options, rate_hz)
    assert rate_hz is not None
    times_s, times_note = _check_times(path, signal, rate_hz, stated=options.rate_hz is not None)
    values = signal.values * factor
    others = sum(1 for other in candidates if is_ecg_name(other.name)) - 1
    notes = [f"signal {choice.candidate.number} ({_describe(choice.candidate, options)}) at {rate_hz:g} Hz is read"]
    if others > 0 and options.signal is None:
        notes.append(f"the file holds {others} more ECG signal{'s' * (others > 1)}; choose one with --signal N")
    return Recording(
        name=path.name.split(".")[0],
        rate_hz=rate_hz,
        start_us=signal.start_us,
        notes=(*choice.notes, *notes, *times_note),
        read_chunks=lambda: split_chunks(times_s, values, rate_hz),
        kind=choice.kind,
    )


def _choose(path: Path, candidates: list[Candidate], signals: list[Signal], options: ReadOptions) -> Choice:
    """Choose the signal to read. If none is an ECG, the message names all options that are needed to read one."""
    try:
        return choose_signal(str(path), "signal", candidates, options)
    except RecordingError as error:
        rate = "" if options.rate_hz or any(signal.rate_hz for signal in signals) else ", and the sampling rate with --rate"
        is_known = options.unit or any(millivolts_per_unit(signal.unit) for signal in signals)
        unit = "" if is_known or "pulse wave" in str(error) else ", and its unit with --unit"
        raise RecordingError(f"{error}{rate}{unit}") from None


def _describe(candidate: Candidate, options: ReadOptions) -> str:
    """Name and unit of a signal for a note."""
    unit = options.unit or candidate.unit
    return f"{candidate.name[:40] or 'unnamed'} in {unit}" if unit else candidate.name[:40] or "unnamed"


def _check_known(path: Path, kind: str, candidate: Candidate, options: ReadOptions, rate_hz: float | None) -> float:
    """The millivolts in one unit of the samples.

    Raises:
        RecordingError: the unit or the rate is not known.
    """
    factor = millivolts_per_unit(options.unit or candidate.unit) if kind == "ecg" else 1.0
    missing = [
        *([] if rate_hz else ["its sampling rate (--rate HZ)"]),
        *([] if factor else ["the unit of its samples (--unit V|mV|uV|nV|N/mV)"]),
    ]
    if missing:
        raise RecordingError(f"{path}: signal {candidate!s:.40}: the file does not state {' and '.join(missing)}; give it")
    return factor


def _check_times(path: Path, signal: Signal, rate_hz: float, *, stated: bool) -> tuple[Samples | None, tuple[str, ...]]:
    """The times of the samples, None where they count as evenly spaced, and a note on times that are not used."""
    if signal.times_s is None or stated:
        return None, ()
    span_s = float(np.median(np.diff(signal.times_s))) * rate_hz
    if abs(span_s - 1) <= _RATE_TOLERANCE or span_s == 0:
        return signal.times_s, ()
    raise RecordingError(
        f"{path}: the times of the samples give {rate_hz / span_s:.4g} Hz, the file states {rate_hz:g} Hz; give the right one"
        " with --rate HZ"
    )


def _read_lines(path: Path, options: ReadOptions) -> Recording:
    cut = is_cut(path)
    head = list(islice(_packets(path, cut=cut), _FIRST_PACKETS))
    if not head:
        raise RecordingError(f"{path}: JSON lines without samples of an ECG; {_READ}")
    name = choose_name(head)
    if options.signal is None and not is_ecg_name(name):
        kind = "a pulse wave" if is_ppg_name(name) else "not an ECG"
        raise RecordingError(f"{path}: its packets ({name:.40}) are {kind}; to read them nevertheless, give --signal 1")
    mine = [packet for packet in head if packet.name == name]
    unit_s, start_us = scale_samples(mine) if all(packet.values.size == 1 for packet in mine) else (1.0, mine[0].start_us)
    period_s = period_of([packet._replace(t_s=packet.t_s * unit_s) for packet in mine])
    rate_hz = options.rate_hz or (1 / period_s if period_s else None)
    candidate = Candidate(1, name, mine[0].unit, lambda: iter(()))
    kind_of = "ppg" if is_ppg_name(name) else "ecg"
    factor = _check_known(path, kind_of, candidate, options, rate_hz)
    assert rate_hz is not None
    notes = [
        f"{candidate} at {rate_hz:.6g} Hz by the times of its packets" if options.rate_hz is None else f"{candidate} is read"
    ]
    if cut:
        notes.append("the last line is cut and left out; the lines before it are complete")
    return Recording(
        name=path.name.split(".")[0],
        rate_hz=rate_hz,
        start_us=start_us,
        notes=tuple(notes),
        read_chunks=lambda: _chunks(path, _packets(path, name, unit_s, cut=cut), rate_hz, factor),
        kind="ppg" if kind_of == "ppg" else "ecg",
    )


def _packets(path: Path, name: str | None = None, unit_s: float = 1.0, *, cut: bool) -> Iterator[Packet]:
    """The packets of a file, their times in units of `unit_s` seconds; those of this name, if one is given."""
    for _, item in read_objects(path, cut=cut):
        packet = parse_packet(item) or parse_sample(item)
        if packet is not None and name in (None, packet.name):
            yield packet._replace(t_s=packet.t_s * unit_s)


def _chunks(path: Path, packets: Iterator[Packet], rate_hz: float, factor: float) -> Iterator[Chunk]:
    """Join packets into chunks."""
    first_s, end_s, begin_s, size, continues = None, 0.0, 0.0, 0, True
    parts: list[Samples] = []
    for packet in _sort(path, packets):
        first_s = packet.t_s if first_s is None else first_s
        t_s = packet.t_s - first_s
        late = t_s - end_s > _LONG_STEP / rate_hz
        if parts and (late or size + packet.values.size > CHUNK_SAMPLES):
            yield from _split(Chunk(begin_s, np.concatenate(parts) * factor, continues), rate_hz)
            parts, size, continues, begin_s = [], 0, not late, t_s
        parts.append(packet.values)
        size += packet.values.size
        end_s = t_s + packet.values.size / rate_hz
    if parts:
        yield from _split(Chunk(begin_s, np.concatenate(parts) * factor, continues), rate_hz)


def _sort(path: Path, packets: Iterator[Packet]) -> Iterator[Packet]:
    try:
        yield from sort_packets(packets)
    except PacketOrderError as error:
        raise RecordingError(f"{path}: {error}; split the recordings") from None


def _split(chunk: Chunk, rate_hz: float) -> Iterator[Chunk]:
    for at in range(0, chunk.values.size, CHUNK_SAMPLES):
        yield Chunk(chunk.start_s + at / rate_hz, chunk.values[at : at + CHUNK_SAMPLES], chunk.continues or at > 0)
