"""Whether a decoded record holds what its class declares: a hub may be newer, damaged or hostile."""

import math
import types
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import numpy as np

from sync.records import Record, RecordError, Strip, Times, type_name

_LARGEST: Final = 2**62
"""Of an integer: a time in nanoseconds until 2116, with room in 64 bits to add a duration."""
_RATE_HZ: Final = (1e-3, 1e6)
_LARGEST_SCALE: Final = 1e6
"""Units in one step of a sample; beyond rates and scales like these a product may be infinite."""
_FORMS: Final[Mapping[type, Mapping[str, Any]]] = {cls: get_type_hints(cls) for cls in (*get_args(Record), Times, Strip)}
"""Of each class, its fields' declared types."""


def check(record: Record) -> None:
    """Refuse a record with a field of another type than declared, a number that is not finite, or an impossible rate.

    Raises:
        RecordError: names the type of record and the field, never its value.
    """
    for name, form in _FORMS[type(record)].items():
        if not _conforms(getattr(record, name), form):
            raise RecordError(f"{type_name(record)}.{name} is not of its declared type")
    for holder in (record, getattr(record, "strip", None)):
        if not _RATE_HZ[0] <= getattr(holder, "rate_hz", 1.0) <= _RATE_HZ[1]:
            raise RecordError(f"{type_name(record)}.rate_hz is no rate")
        if abs(getattr(holder, "scale", 1.0)) > _LARGEST_SCALE:
            raise RecordError(f"{type_name(record)}.scale is no scale")


def _conforms(value: Any, form: Any) -> bool:
    origin = get_origin(form)
    if origin in {Union, types.UnionType}:
        return any(_conforms(value, option) for option in get_args(form))
    if origin is tuple:
        return isinstance(value, tuple) and all(_conforms(item, get_args(form)[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        key_form, value_form = get_args(form)
        return isinstance(value, dict) and all(_conforms(k, key_form) and _conforms(v, value_form) for k, v in value.items())
    if origin is np.ndarray:
        return isinstance(value, np.ndarray)
    if form in _FORMS:
        return type(value) is form and all(_conforms(getattr(value, name), part) for name, part in _FORMS[form].items())
    return _is_plain(value, form)


def _is_plain(value: Any, form: Any) -> bool:
    if form is float:
        return type(value) in {int, float} and math.isfinite(value)
    if form is int:
        return type(value) is int and abs(value) <= _LARGEST
    return type(value) is form
