"""The records in the plaintext of a block: readings with their times, gaps, findings and alerts, and their CBOR encoding.

Each record is one CBOR map. `type` names the class; the other keys are its fields. Unknown keys are ignored, so an older
clinic can read blocks of a newer hub. Sample arrays are stored as first differences, byte-shuffled and deflated: 1.3 bytes a
sample for a 130 Hz ECG, where plain int16 takes 2.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final, TypeVar

import cbor2
import numpy as np
from numpy.typing import NDArray

from sync.cbor import CborError, decode_cbor
from sync.wire import PLAINTEXT_LIMIT_BYTES


class RecordError(ValueError):
    """Bytes are not a valid list of records."""


@dataclass(frozen=True, slots=True)
class Times:
    """The time of a measurement by all available clocks.

    `at_us` is the hub's best estimate in UTC, microseconds since 1970; for a waveform, of the first sample. `arrived_us` is the
    hub's wall clock and `arrived_mono_ns` its monotonic clock when the bytes arrived. `sensor_ns` is the sensor's clock at that
    sample, in its own epoch; `offset_ns` was added to it; `drift_ppm` is how much faster it runs than the hub's clock.
    """

    at_us: int
    arrived_us: int
    arrived_mono_ns: int
    sensor_ns: int | None = None
    offset_ns: int | None = None
    drift_ppm: float | None = None


@dataclass(frozen=True, slots=True)
class WaveformRecord:
    """Gap-free samples; sample i was taken at `times.at_us` + i / `rate_hz` and is `samples[i]` * `scale` units of `kind`."""

    sensor: str
    kind: str
    times: Times
    rate_hz: float
    scale: float
    samples: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class VitalRecord:
    """One measured number, in the unit of its kind."""

    sensor: str
    kind: str
    times: Times
    value: float
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IntervalsRecord:
    """RR or PP intervals in ticks of 1/1024 s, oldest first."""

    sensor: str
    kind: str
    times: Times
    ticks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StatusRecord:
    """Information that the sensor reported about itself."""

    sensor: str
    kind: str
    times: Times
    value: str | int | float | bool


@dataclass(frozen=True, slots=True)
class GapRecord:
    """A stretch of a signal without samples, and the reason. `missing` is the number of samples, None if it is not known.

    `to_us` is None while the gap is open; the record that closes it repeats `from_us`. The sensor times are those of the
    last sample before and the first sample after the gap, if the sensor's clock kept running.
    """

    sensor: str
    kind: str
    from_us: int
    to_us: int | None
    missing: int | None
    reason: str
    from_sensor_ns: int | None = None
    to_sensor_ns: int | None = None


@dataclass(frozen=True, slots=True)
class QuarantinedRecord:
    """A payload that no driver could decode, kept unchanged."""

    sensor: str
    characteristic: str
    times: Times
    payload: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class FindingRecord:
    """A result of a rule or model about an interval of readings. If it has no result, `inconclusive` gives the reason.

    `source` names the rule or model. `end_us` is None while the episode lasts. `measured` holds the underlying
    numbers, in the units named by their keys (`rate_bpm`, `rr_ms`, `limit_bpm`).
    """

    sensor: str
    kind: str
    onset_us: int
    end_us: int | None
    source: str
    probability: float | None = None
    inconclusive: str | None = None
    measured: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Strip:
    """The ECG evidence of an alert: `samples[i]` * `scale` mV at `start_us` + i / `rate_hz`; `beats_us` are its R peaks.

    `labels` has one letter per beat: N, S, V, F or ?. It is empty if the hub does not label beats.
    """

    start_us: int
    rate_hz: float
    scale: float
    samples: NDArray[np.int32]
    beats_us: tuple[int, ...]
    labels: str = ""


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """A finding that a person must see. A record with the same `id` follows when the episode ends or its priority rises.

    `priority` is high, medium or low (IEC 60601-1-8). `decided_us` is the hub's wall clock at the arrival of the notification
    that triggered the alert. `reasons` are message keys; their numbers are in `measured`, and the page translates them.
    """

    id: str
    sensor: str
    kind: str
    priority: str
    onset_us: int
    end_us: int | None
    decided_us: int
    source: str
    reasons: tuple[str, ...]
    probability: float | None = None
    measured: Mapping[str, float] | None = None
    strip: Strip | None = None


Record = (
    WaveformRecord | VitalRecord | IntervalsRecord | StatusRecord | GapRecord | QuarantinedRecord | FindingRecord | AlertRecord
)

_TYPES: Final[Mapping[str, type[Record]]] = {
    "waveform": WaveformRecord,
    "vital": VitalRecord,
    "intervals": IntervalsRecord,
    "status": StatusRecord,
    "gap": GapRecord,
    "quarantined": QuarantinedRecord,
    "finding": FindingRecord,
    "alert": AlertRecord,
}
_NAMES: Final[Mapping[type[Record], str]] = {cls: name for name, cls in _TYPES.items()}
T = TypeVar("T")
SET_ASIDE: Final = "a record of the hub"
"""The `characteristic` of a record that could not be read: it is not known of which characteristic its payload was."""
MAX_SAMPLES: Final = 200_000
"""Samples in one block, strips included: ten times those in a full block of a strap's frames. The limit prevents forged lengths
from exhausting memory: 56 kB of deflated zeros would otherwise be 14 million samples."""


def type_name(record: Record) -> str:
    """The record's name on the wire."""
    return _NAMES[type(record)]


def pack_samples(samples: NDArray[np.int32]) -> bytes:
    """First differences (int32, little-endian), bytes grouped by significance, deflated."""
    deltas = np.diff(samples.astype("<i8"), prepend=0).astype("<i4")
    return zlib.compress(deltas.view(np.uint8).reshape(-1, 4).T.tobytes(), 6)


def unpack_samples(packed: bytes, limit: int = MAX_SAMPLES) -> NDArray[np.int32]:
    """The inverse of `pack_samples`.

    Raises:
        RecordError: the bytes are damaged or hold more than `limit` samples.
    """
    inflate = zlib.decompressobj()
    try:
        inflated = inflate.decompress(packed, 4 * limit + 1)  # 0 would mean no limit
    except zlib.error as error:
        raise RecordError(f"cannot inflate the samples: {error}") from error
    if not inflate.eof or len(inflated) % 4 or len(inflated) > 4 * limit:
        raise RecordError(f"the samples are truncated, or those of the block more than {MAX_SAMPLES}")
    deltas = np.frombuffer(inflated, np.uint8).reshape(4, -1).T.copy().view("<i4").reshape(-1)
    return np.cumsum(deltas, dtype=np.int32)


def encode_records(records: Iterable[Record]) -> bytes:
    """Encode records as one CBOR array."""
    return cbor2.dumps([{"type": type_name(record), **_to_map(record)} for record in records])


def decode_readable_records(data: bytes, validate: Callable[[Record], None]) -> list[Record]:
    """The inverse of `encode_records` for a block of which some records may be damaged.

    A record that cannot be parsed, or that `validate` rejects by a `RecordError`, costs only itself: it is returned as a
    `QuarantinedRecord` of its sensor, with its CBOR bytes and the reason.

    Raises:
        RecordError: as for `decode_records`, if not one of the records can be read or a damaged one names no sensor.
    """
    records = decode_records(data, partial(_parse_or_set_aside, validate))
    if records and all(_is_set_aside(record) for record in records):
        raise RecordError("none of the records can be read")
    return records


def decode_records(data: bytes, parse: Callable[[Any, int], Record] | None = None) -> list[Record]:
    """The inverse of `encode_records`.

    Args:
        data: the plaintext of a block.
        parse: converts a decoded CBOR map that may have so many samples, by default strictly.

    Raises:
        RecordError: the bytes are more than a block may hold, not CBOR without tags, not a list of records, or have more than
            `MAX_SAMPLES` samples; or a record has missing fields or fields of the wrong type.
    """
    try:
        items = decode_cbor(data, limit_bytes=PLAINTEXT_LIMIT_BYTES)
    except CborError as error:
        raise RecordError(f"not valid CBOR: {error}") from error
    if not isinstance(items, list):
        raise RecordError(f"expected a list of records, found {type(items).__name__}")
    records: list[Record] = []
    samples_left = MAX_SAMPLES
    for item in items:
        record = (parse or _parse_record)(item, samples_left)
        samples_left -= _count_samples(record)
        records.append(record)
    return records


def _to_map(value: Any) -> dict[str, Any]:
    return {field.name: _to_cbor_value(getattr(value, field.name)) for field in fields(value)}


def _to_cbor_value(value: Any) -> Any:
    match value:
        case np.ndarray():
            return pack_samples(value)
        case Times() | Strip():
            return _to_map(value)
        case _:
            return value


def _count_samples(record: Record) -> int:
    match record:
        case WaveformRecord():
            return len(record.samples)
        case AlertRecord(strip=Strip() as strip):
            return len(strip.samples)
        case _:
            return 0


def _parse_or_set_aside(validate: Callable[[Record], None], item: Any, samples_left: int) -> Record:
    try:
        record = _parse_record(item, samples_left)
        validate(record)
    except RecordError as error:
        sensor = item.get("sensor") if isinstance(item, dict) else None
        if not isinstance(sensor, str):
            raise
        set_aside = QuarantinedRecord(sensor, SET_ASIDE, Times(0, 0, 0), cbor2.dumps(item), str(error))
        validate(set_aside)
        return set_aside
    return record


def _is_set_aside(record: Record) -> bool:
    return isinstance(record, QuarantinedRecord) and record.characteristic == SET_ASIDE


def _parse_record(item: Any, samples_left: int) -> Record:
    if not isinstance(item, dict):
        raise RecordError("a record is not a map")
    name = item.get("type")
    if not isinstance(name, str) or name not in _TYPES:
        raise RecordError("a record has an unknown type")
    return _build(_TYPES[name], item, samples_left)


def _build(cls: type[T], item: Mapping[str, Any], samples_left: int) -> T:
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    values = {name: _parse_field(name, value, samples_left) for name, value in item.items() if name in known}
    try:
        return cls(**values)
    except TypeError as error:
        raise RecordError(f"{cls.__name__}: {error}") from error


def _parse_field(name: str, value: Any, samples_left: int) -> Any:
    match name, value:
        case "times", dict():
            return _build(Times, value, samples_left)
        case "strip", dict():
            return _build(Strip, value, samples_left)
        case "samples", bytes():
            return unpack_samples(value, samples_left)
        case (("flags" | "ticks" | "reasons" | "beats_us"), list()):
            return tuple(value)
        case (("times" | "samples"), _):
            raise RecordError(f"{name} has the type {type(value).__name__}")
        case _:
            return value
