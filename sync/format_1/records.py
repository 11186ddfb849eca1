"""Decodes the plaintext of blocks of format 1. Nothing writes this format any more; `sync.record_codec` writes format 2.

The plaintext is a CBOR list of one map for each record. `type` names the class; the other keys are its fields, unknown ones are
ignored. Samples are first differences (int32, little-endian), their bytes grouped by significance, deflated.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

import cbor2
import numpy as np
from numpy.typing import NDArray

from sync.cbor import CborError, decode_cbor
from sync.packing import MAX_SAMPLES
from sync.record_items import count_samples
from sync.records import RECORD_TYPES, Record, RecordError, Strip, Times, is_set_aside, set_aside
from sync.wire import PLAINTEXT_LIMIT_BYTES

T = TypeVar("T")


def decode_readable_records(data: bytes, validate: Callable[[Record], None]) -> list[Record]:
    """Decode the records of a block of which some may be damaged.

    A record that cannot be parsed, or that `validate` rejects by a `RecordError`, costs only itself: it is returned as a
    `QuarantinedRecord` of its sensor, with its CBOR bytes and the reason.

    Raises:
        RecordError: as for `decode_records`, if not one of the records can be read or a damaged one names no sensor.
    """
    records = decode_records(data, partial(_parse_or_set_aside, validate))
    if records and all(is_set_aside(record) for record in records):
        raise RecordError("none of the records can be read")
    return records


def decode_records(data: bytes, parse: Callable[[Any, int], Record] | None = None) -> list[Record]:
    """Decode the records of a block.

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
        samples_left -= count_samples(record)
        records.append(record)
    return records


def _inflate_samples(packed: bytes, limit: int) -> NDArray[np.int32]:
    """Inflate samples.

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


def _parse_or_set_aside(validate: Callable[[Record], None], item: Any, samples_left: int) -> Record:
    try:
        record = _parse_record(item, samples_left)
        validate(record)
    except RecordError as error:
        sensor = item.get("sensor") if isinstance(item, dict) else None
        if not isinstance(sensor, str):
            raise
        aside = set_aside(sensor, cbor2.dumps(item), str(error))
        validate(aside)
        return aside
    return record


def _parse_record(item: Any, samples_left: int) -> Record:
    if not isinstance(item, dict):
        raise RecordError("a record is not a map")
    name = item.get("type")
    if not isinstance(name, str) or name not in RECORD_TYPES:
        raise RecordError("a record has an unknown type")
    return _build(RECORD_TYPES[name], item, samples_left)


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
            return _inflate_samples(value, samples_left)
        case (("flags" | "ticks" | "reasons" | "beats_us"), list()):
            return tuple(value)
        case (("times" | "samples"), _):
            raise RecordError(f"{name} has the type {type(value).__name__}")
        case _:
            return value
