"""Reads WFDB records: a text header `.hea` and binary signal files (WFDB Applications Guide, header(5) and signal(5))."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.files import read_file
from captures.leads import is_ecg_name, millivolts_per_unit
from captures.recording import Recording, RecordingError, split_chunks

_DEFAULT_GAIN: Final = 200.0
"""ADC units per mV if the header gives none, or 0: header(5)."""

_DEFAULT_RATE_HZ: Final = 250.0
"""Sampling rate if the header gives none: header(5)."""

_HEADER_LIMIT_BYTES: Final = 1 << 20
"""A signal line has some 80 characters, so this is a record of thousands of signals, comments included."""

_RECORD_LINE: Final = re.compile(
    r"(?P<name>[\w./-]+?)(?P<parts>/\d+)?\s+(?P<signals>\d+)"
    r"(?:\s+(?P<rate>[\d.eE+-]+)(?:/\S+)?(?:\s+(?P<length>\d+)(?:\s+(?P<time>[\d:.]+)(?:\s+(?P<date>\d+/\d+/\d+))?)?)?)?\s*"
)
_SIGNAL_LINE: Final = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?"
    r"(?:\s+(?P<gain>[\d.eE+-]+)(?:\((?P<baseline>-?\d+)\))?(?:/(?P<unit>\S+))?"
    r"(?:\s+(?P<resolution>\d+)(?:\s+(?P<zero>-?\d+)(?:\s+(?P<initial>-?\d+)(?:\s+(?P<checksum>-?\d+)"
    r"(?:\s+(?P<block>\d+)(?:\s+(?P<description>.*))?)?)?)?)?)?)?\s*"
)


@dataclass(frozen=True, slots=True)
class _Signal:
    file: str
    format: int
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    unit: str
    checksum: int | None
    description: str


@dataclass(frozen=True, slots=True)
class _Header:
    rate_hz: float
    length: int | None
    start_us: int | None
    signals: tuple[_Signal, ...]


@dataclass(frozen=True, slots=True)
class _Format:
    """A signal format: `unpack` turns bytes into samples, `bits` is the size of a sample, `invalid` marks a missing sample."""

    unpack: Callable[[bytes], NDArray[np.int16]]
    bits: int
    invalid: int


def read_wfdb(header_path: Path) -> Recording:
    """Reads the first ECG signal of a record, in mV.

    Raises:
        RecordingError: the header or its signal file is damaged, truncated, missing or not supported.
        OSError: the header cannot be opened.
    """
    header = _parse_header(header_path)
    chosen = _first_ecg(header_path, header.signals)
    signal = header.signals[chosen]
    adc, notes = _samples(header_path, header, chosen)
    mv = (adc.astype(np.float64) - signal.baseline) * (millivolts_per_unit(signal.unit) / signal.gain)
    mv[adc == _FORMATS[signal.format].invalid] = np.nan
    rate_hz = header.rate_hz * signal.per_frame
    if len(header.signals) > 1:
        notes.append(f"signal {chosen} ({signal.description or 'unnamed'}) of {len(header.signals)}")
    return Recording(
        name=header_path.stem,
        rate_hz=rate_hz,
        start_us=header.start_us,
        notes=tuple(notes),
        read_chunks=lambda: split_chunks(None, mv, rate_hz),
    )


def _parse_header(path: Path) -> _Header:
    try:
        text = read_file(path, _HEADER_LIMIT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: not a WFDB header (it is not text); give the record's .hea file") from error
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    record = _RECORD_LINE.fullmatch(lines[0]) if lines else None
    if record is None:
        raise RecordingError(f"{path}: not a WFDB header; its first line must be: name, number of signals, rate, length")
    if record["parts"]:
        raise RecordingError(f"{path}: multi-segment records are not supported; give the header of one of its segments")
    if not record["signals"].strip("0"):
        raise RecordingError(f"{path}: the record has no signals, only annotations; give a record with an ECG signal")
    try:
        count = int(record["signals"])
        if count > len(lines) - 1:
            raise RecordingError(
                f"{path}: the header states {count} signals but describes {len(lines) - 1}; fetch the header again"
            )
        rate_hz = float(record["rate"] or _DEFAULT_RATE_HZ)
        signals = tuple(_parse_signal(path, line) for line in lines[1 : count + 1])
    except ValueError as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(f"{path}: invalid number in the header ({error}); fetch the header again") from error
    if not 0 < rate_hz < 1e6:
        raise RecordingError(f"{path}: invalid sampling rate of {rate_hz} Hz; correct the header")
    return _Header(
        rate_hz=rate_hz,
        length=int(record["length"] or 0) or None,
        start_us=_start_us(record["time"], record["date"]),
        signals=signals,
    )


def _parse_signal(path: Path, line: str) -> _Signal:
    match = _SIGNAL_LINE.fullmatch(line)
    if match is None:
        raise RecordingError(f"{path}: invalid signal line {line!r}; correct the header")
    zero = int(match["zero"] or 0)
    gain = float(match["gain"] or 0) or _DEFAULT_GAIN
    baseline = zero if match["baseline"] is None else int(match["baseline"])
    if not 1e-9 < abs(gain) < 1e9 or abs(baseline) > 1 << 31:
        raise RecordingError(f"{path}: invalid gain or baseline in signal line {line[:80]!r}; correct the header")
    return _Signal(
        file=match["file"],
        format=int(match["format"]),
        per_frame=int(match["per_frame"] or 1) or 1,
        skew=int(match["skew"] or 0),
        offset=int(match["offset"] or 0),
        gain=gain,
        baseline=baseline,
        unit=match["unit"] or "mV",
        checksum=None if match["checksum"] is None else int(match["checksum"]),
        description=(match["description"] or "").strip(),
    )


def _start_us(time: str | None, date: str | None) -> int | None:
    """Returns base time and date as UTC, since WFDB has no time zone; None if one of them is missing or invalid."""
    if time is None or date is None:
        return None
    clock = f"{time}{'' if '.' in time else '.0'}"
    try:
        start = datetime.strptime(f"{date} {clock}", "%d/%m/%Y %H:%M:%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None
    return round(start.timestamp() * 1_000_000)


def _first_ecg(path: Path, signals: tuple[_Signal, ...]) -> int:
    """Returns the first signal with the name of an ECG lead, else the first in a unit of voltage."""
    voltages = [i for i, signal in enumerate(signals) if millivolts_per_unit(signal.unit)]
    named = [i for i in voltages if is_ecg_name(signals[i].description)]
    if not voltages:
        listed = ", ".join(f"{signal.description} [{signal.unit}]" for signal in signals)
        raise RecordingError(f"{path}: no ECG among its signals ({listed}); give a record with a signal in mV")
    return (named or voltages)[0]


def _samples(path: Path, header: _Header, chosen: int) -> tuple[NDArray[np.int16], list[str]]:
    """Returns the ADC values of one signal, and notes."""
    signal = header.signals[chosen]
    kind = _FORMATS.get(signal.format)
    if kind is None:
        known = ", ".join(map(str, _FORMATS))
        raise RecordingError(
            f"{path}: signal format {signal.format} is not supported (only {known}); convert it with WFDB's xform"
        )
    if Path(signal.file).name != signal.file:
        raise RecordingError(f"{path}: signal file {signal.file!r} is not a plain file name; correct the header")
    file = path.with_name(signal.file)
    try:
        raw = read_file(file)[signal.offset :]
    except FileNotFoundError as error:
        raise RecordingError(f"{path}: its signal file {signal.file} is missing; put it beside the header") from error
    frame = [other.per_frame for other in header.signals if other.file == signal.file]
    position = sum(other.per_frame for other in header.signals[:chosen] if other.file == signal.file)
    stored = len(raw) * 8 // (kind.bits * sum(frame))
    length = stored if header.length is None else header.length
    if stored < length:
        raise RecordingError(f"{file}: truncated: holds {stored} of {length} samples per signal; fetch the file again")
    if length == 0:
        raise RecordingError(f"{file}: holds no samples; fetch the file again")
    needed = -(-length * sum(frame) * kind.bits // 8)
    frames = kind.unpack(raw[:needed])[: length * sum(frame)].reshape(length, sum(frame))
    samples = frames[:, position : position + signal.per_frame].reshape(-1)
    notes = []
    if stored > length + 1:
        notes.append(f"{signal.file} holds {stored} samples per signal, the header states {length}: the rest is left out")
    if signal.checksum and (int(samples.sum(dtype=np.int64)) - signal.checksum) % 65536:
        notes.append(f"the checksum of {signal.file} does not match the header: samples may be damaged")
    return samples[signal.skew * signal.per_frame :], notes


def _unpack_212(raw: bytes) -> NDArray[np.int16]:
    """Unpacks pairs of 12-bit two's complement samples from three bytes; the middle byte holds both high nibbles."""
    padded = raw + bytes(-len(raw) % 3)
    low, middle, high = np.frombuffer(padded, np.uint8).reshape(-1, 3).T.astype(np.int16)
    pairs = np.empty((low.size, 2), np.int16)
    pairs[:, 0] = low | (middle & 0x0F) << 8
    pairs[:, 1] = high | (middle & 0xF0) << 4
    return ((pairs ^ 0x800) - 0x800).reshape(-1)


_FORMATS: Final[Mapping[int, _Format]] = {
    16: _Format(lambda raw: np.frombuffer(raw, "<i2").astype(np.int16), 16, -32768),
    61: _Format(lambda raw: np.frombuffer(raw, ">i2").astype(np.int16), 16, -32768),
    80: _Format(lambda raw: np.frombuffer(raw, np.uint8).astype(np.int16) - 128, 8, -128),
    212: _Format(_unpack_212, 12, -2048),
}
