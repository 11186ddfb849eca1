"""Validates that a decoded record holds what its class declares: a hub may be newer, damaged or hostile."""

import math
import types
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import numpy as np

from sync.records import (
    AlertRecord,
    BeatsRecord,
    GapRecord,
    Record,
    RecordError,
    SpotOrigin,
    Strip,
    Times,
    WaveformRecord,
    type_name,
)

MAX_NAME_CHARS: Final = 64
"""Length of the name of a sensor, kind or alert: the hub's own limit on names in its settings."""
MAX_TEXT_CHARS: Final = 1000
"""Length of any other text, such as the reason of a gap: several lines on the page."""
MAX_WAVEFORM_US: Final = 600_000_000
"""Length of one waveform: ten minutes. A sensor sends some seconds at once at most; queries by time rely on this limit."""
MAX_STRIP_SAMPLES: Final = 30_000
"""Samples in a strip: one minute at 500 Hz. A hub cuts thirty seconds."""
MAX_TIME_US: Final = 2**52
"""Times until 2112, in integers that JavaScript still represents exactly after a duration was added."""

_MAX_INTEGER: Final = 2**62
"""A time in nanoseconds until 2116, with room in 64 bits to add a duration."""
_MAX_MISSING: Final = 2**40
"""Missing samples of one gap: thirty-five years at 1 kHz. The sum over a block's gaps remains exact in JavaScript."""
_RATE_RANGE_HZ: Final = (1e-3, 1e4)
"""Up to ten times the rate of the fastest ECG recorders: the page keeps half a minute of samples of each sensor."""
_MAX_SCALE: Final = 1e6
"""Units per step of a sample. With a scale beyond this limit a product could be infinite."""
_NAMES: Final = frozenset({"id", "sensor", "kind"})
_FIELD_TYPES: Final[Mapping[type, Mapping[str, Any]]] = {
    cls: get_type_hints(cls) for cls in (*get_args(Record), Times, Strip, SpotOrigin)
}
"""The declared field types of each class."""


def validate_record(record: Record) -> None:
    """Reject a record with a field of another type than declared, or a number or text beyond its limits.

    Raises:
        RecordError: names the type of record and the field, never its value.
    """
    for name, declared in _FIELD_TYPES[type(record)].items():
        if not _has_type(getattr(record, name), declared):
            raise RecordError(f"{type_name(record)}.{name} is not of its declared type")
    for holder in (record, getattr(record, "strip", None)):
        if not _RATE_RANGE_HZ[0] <= getattr(holder, "rate_hz", 1.0) <= _RATE_RANGE_HZ[1]:
            raise RecordError(f"{type_name(record)}.rate_hz is out of range")
        if abs(getattr(holder, "scale", 1.0)) > _MAX_SCALE:
            raise RecordError(f"{type_name(record)}.scale is out of range")
    for holder in (record, *(getattr(record, name, None) for name in ("strip", "times", "origin"))):
        if holder is not None:
            _check_times_and_names(record, holder)
    _check_sizes(record)


def _check_times_and_names(record: Record, holder: Record | Strip | Times | SpotOrigin) -> None:
    for name in _FIELD_TYPES[type(holder)]:
        value = getattr(holder, name)
        if name.endswith("_us") and not _are_times_us(value):
            raise RecordError(f"{type_name(record)}.{name} is out of range")
        if name in _NAMES and value is not None and not 1 <= len(value) <= MAX_NAME_CHARS:
            raise RecordError(f"{type_name(record)}.{name} is not a name of 1 to {MAX_NAME_CHARS} characters")


def _are_times_us(value: int | tuple[int, ...] | None) -> bool:
    times = value if isinstance(value, tuple) else (value or 0,)
    return all(abs(time) <= MAX_TIME_US for time in times)


def _check_sizes(record: Record) -> None:
    match record:
        case WaveformRecord() if len(record.samples) / record.rate_hz * 1e6 > MAX_WAVEFORM_US:
            raise RecordError(f"waveform.samples are longer than {MAX_WAVEFORM_US // 60_000_000} minutes")
        case AlertRecord(strip=Strip(samples=samples)) if len(samples) > MAX_STRIP_SAMPLES:
            raise RecordError(f"alert.strip has more than {MAX_STRIP_SAMPLES} samples")
        case BeatsRecord() if len(record.beats_ms) != len(record.classes):
            raise RecordError("beats.classes are not as many as its beats")
        case BeatsRecord() if not 0 <= record.to_us - record.from_us <= MAX_WAVEFORM_US:
            raise RecordError("beats.to_us is out of range")
        case BeatsRecord() if any(abs(time) > MAX_TIME_US // 1000 for time in record.beats_ms):
            raise RecordError("beats.beats_ms are out of range")
        case GapRecord(missing=int(missing)) if not 0 <= missing <= _MAX_MISSING:
            raise RecordError("gap.missing is out of range")
        case _:
            pass


def _has_type(value: Any, declared: Any) -> bool:
    origin = get_origin(declared)
    if origin in {Union, types.UnionType}:
        return any(_has_type(value, option) for option in get_args(declared))
    if origin is tuple:
        return isinstance(value, tuple) and all(_has_type(item, get_args(declared)[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        key_type, value_type = get_args(declared)
        return isinstance(value, dict) and all(_has_type(k, key_type) and _has_type(v, value_type) for k, v in value.items())
    if origin is np.ndarray:
        return isinstance(value, np.ndarray)
    if declared in _FIELD_TYPES:
        fields = _FIELD_TYPES[declared]
        return type(value) is declared and all(_has_type(getattr(value, name), part) for name, part in fields.items())
    return _has_scalar_type(value, declared)


def _has_scalar_type(value: Any, declared: Any) -> bool:
    if declared is float and type(value) is float:
        return math.isfinite(value)
    if declared in {int, float}:
        return type(value) is int and abs(value) <= _MAX_INTEGER
    if declared is str:
        return type(value) is str and len(value) <= MAX_TEXT_CHARS
    return type(value) is declared
