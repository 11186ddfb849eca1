"""Validates that a decoded record holds what its class declares: a hub may be newer, damaged or hostile."""

import math
import types
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import numpy as np

from sync.records import Record, RecordError, Strip, Times, type_name

_MAX_INTEGER: Final = 2**62
"""A time in nanoseconds until 2116, with room in 64 bits to add a duration."""
_RATE_RANGE_HZ: Final = (1e-3, 1e6)
_MAX_SCALE: Final = 1e6
"""Units per step of a sample. With a scale or rate beyond these limits a product could be infinite."""
_FIELD_TYPES: Final[Mapping[type, Mapping[str, Any]]] = {cls: get_type_hints(cls) for cls in (*get_args(Record), Times, Strip)}
"""The declared field types of each class."""


def validate_record(record: Record) -> None:
    """Reject a record with a field of another type than declared, a number that is not finite, or an impossible rate.

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
    return type(value) is declared
