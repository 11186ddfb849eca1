"""Converts records to the maps of a block's plaintext and back: readings in groups of columns, every other record alone.

The readings of one sensor and kind follow each other steadily, so their times and numbers are packed as differences.
`docs/records.md` is the reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import accumulate, chain, pairwise
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_type_hints

import numpy as np

from sync.cbor import encode_cbor
from sync.packing import pack_column, pack_samples, unpack_column, unpack_samples
from sync.records import (
    RECORD_TYPES,
    AlertRecord,
    BeatsRecord,
    FindingRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    RecordError,
    SpotOrigin,
    StatusRecord,
    Strip,
    Times,
    UnknownRecord,
    VitalRecord,
    WaveformRecord,
    type_name,
)

Item = dict[str, Any]
Reading = WaveformRecord | VitalRecord | IntervalsRecord | BeatsRecord | StatusRecord
Row = GapRecord | QuarantinedRecord | FindingRecord | AlertRecord
T = TypeVar("T")

_SHARED: Final[Mapping[type[Record], tuple[str, ...]]] = {
    WaveformRecord: ("sensor", "kind", "scale"),
    VitalRecord: ("sensor", "kind", "flags"),
    IntervalsRecord: ("sensor", "kind"),
    BeatsRecord: ("sensor", "kind"),
    StatusRecord: ("sensor", "kind"),
}
"""The fields in which all readings of a group are equal."""
_COLUMNS: Final[Mapping[type[Record], tuple[str, ...]]] = {
    WaveformRecord: ("rate_hz",),
    VitalRecord: ("value",),
    IntervalsRecord: (),
    BeatsRecord: ("from_us", "to_us"),
    StatusRecord: ("value",),
}
"""The fields of which a group has a column with one value for each reading, besides the times."""
_LISTS: Final[Mapping[type[Record], tuple[str, ...]]] = {
    WaveformRecord: ("samples",),
    IntervalsRecord: ("ticks",),
    BeatsRecord: ("beats_ms", "classes"),
}
"""The fields with several values for each reading. Those of a group follow each other; `counts` says how many each has."""
_PACKED: Final = frozenset({"beats_us", "ticks", "beats_ms", "classes"})
"""The lists of integers that are packed as columns."""
_TIMES: Final = tuple(field.name for field in fields(Times))
_ORIGIN: Final = tuple(field.name for field in fields(SpotOrigin))
"""The columns of the readings that a person measured on demand. A group without such a reading has none of them."""
_HAVE_TIMES: Final = frozenset({WaveformRecord, VitalRecord, IntervalsRecord, StatusRecord})
_FIRST_COLUMN: Final[Mapping[type[Record], str]] = {BeatsRecord: "from_us"}
"""The column whose length is the number of readings, of a group without times."""
_HAVE_ORIGIN: Final = frozenset({VitalRecord, StatusRecord})
_RELATIVE_TO: Final[Mapping[str, tuple[str, int]]] = {"arrived_us": ("at_us", 1), "arrived_mono_ns": ("arrived_us", 1000)}
"""A packed column of these times holds the difference from another time, which is multiplied by the factor."""
_PARTS: Final[Mapping[str, type[Times | Strip]]] = {"times": Times, "strip": Strip}
"""Fields that are maps themselves."""
_ROW_CLASSES: Final = (*get_args(Row), *_PARTS.values())
_ROW_FIELDS: Final = {cls: frozenset(field.name for field in fields(cls)) for cls in _ROW_CLASSES}
_REQUIRED: Final = {
    cls: frozenset(name for name, hint in get_type_hints(cls).items() if NoneType not in get_args(hint))
    for cls in (*_ROW_CLASSES, *_SHARED, SpotOrigin)
}
"""The fields that are never None. A None is not written."""


def encode_item(records: Sequence[Record]) -> Item:
    """Return the map of the readings of one group, or of one other record."""
    return _encode_group(records) if isinstance(records[0], Reading) else _encode_row(records[0])


def decode_item(item: Item, records_left: int, samples_left: int) -> Sequence[Record]:
    """The inverse of `encode_item`. Unknown fields are ignored unless they are critical.

    Raises:
        RecordError: a field is missing, damaged, encoded in another way than `encode_item` does, or unknown and critical; or
            there are more records or samples than may be left.
    """
    cls = RECORD_TYPES[item["type"]]
    if cls in _SHARED:
        origin = _ORIGIN if cls in _HAVE_ORIGIN else ()
        times = _TIMES if cls in _HAVE_TIMES else ()
        known = select_known(item, {"type", *_SHARED[cls], *_COLUMNS[cls], *times, *_list_fields(cls), *origin})
        records = _decode_group(cls, known, records_left, samples_left)
    else:
        known = select_known(item, {"type"} | _ROW_FIELDS[cls])
        if records_left < 1:
            raise RecordError("there are too many records in this block")
        records = [_decode_map(cls, known, samples_left)]
    if encode_item(records) != known:
        raise RecordError(f"{item['type']}: not encoded as this version encodes it")
    return records


def select_known(item: Mapping[str, Any], names: set[str]) -> Item:
    """Return the fields with these names, in the maps inside it too.

    Raises:
        RecordError: `crit` names another field, or is not a list of names of its map's fields.
    """
    critical = item.get("crit", [])
    if not isinstance(critical, list) or not all(isinstance(name, str) and name in item for name in critical):
        raise RecordError("crit is not a list of fields of its map")
    if not names.issuperset(critical):
        raise RecordError("a field that this version does not know must be understood")
    known = {name: value for name, value in item.items() if name in names}
    for name, part in _PARTS.items():
        if isinstance(known.get(name), dict):
            known[name] = select_known(known[name], set(_ROW_FIELDS[part]))
    return known


def group_key(item: Mapping[str, Any]) -> bytes | None:
    """Return what is equal in all readings of a group and in no other group; None if the item is not a group."""
    shared = _SHARED.get(RECORD_TYPES.get(item["type"], UnknownRecord))
    return None if shared is None else encode_cbor([item["type"], *(item.get(name) for name in shared)])


def key_of(record: Record) -> tuple[Any, ...] | None:
    """Return what is equal in all readings of a group and in no other group; None if the record is not a reading."""
    match record:
        case VitalRecord(sensor, kind, _, _, flags):
            return VitalRecord, sensor, kind, flags
        case IntervalsRecord(sensor, kind) | BeatsRecord(sensor, kind) | StatusRecord(sensor, kind):
            return type(record), sensor, kind
        case WaveformRecord(sensor, kind, scale=scale):
            return WaveformRecord, sensor, kind, encode_cbor(scale)  # 1 and 1.0 are not the same
        case _:
            return None


def count_samples(record: Record) -> int:
    """Return how many samples or intervals a record has."""
    match record:
        case WaveformRecord():
            return len(record.samples)
        case IntervalsRecord():
            return len(record.ticks)
        case BeatsRecord():
            return len(record.beats_ms)
        case AlertRecord(strip=Strip() as strip):
            return len(strip.samples)
        case _:
            return 0


def _list_fields(cls: type[Record]) -> tuple[str, ...]:
    return ("counts", *_LISTS[cls]) if cls in _LISTS else ()


def _shared_fields(record: Record) -> Item:
    shared = {name: _to_cbor(name, getattr(record, name)) for name in _SHARED[type(record)]}
    return {"type": type_name(record), **shared}


def _encode_group(records: Sequence[Any]) -> Item:
    cls = type(records[0])
    item = _shared_fields(records[0])
    if cls in _HAVE_TIMES:
        item |= _pack_times([record.times for record in records])
    for name in _COLUMNS[cls]:
        item[name] = pack_column([getattr(record, name) for record in records])
    if cls in _HAVE_ORIGIN:
        item |= _pack_origins([record.origin for record in records])
    for name in _LISTS.get(cls, ()):
        values = [getattr(record, name) for record in records]
        item["counts"] = pack_column([len(one) for one in values])
        item[name] = _to_cbor(name, np.concatenate(values) if cls is WaveformRecord else tuple(chain.from_iterable(values)))
    return item


def _pack_times(times: Sequence[Times]) -> Item:
    columns = {name: [getattr(one, name) for one in times] for name in _TIMES}
    packed = {}
    for name, column in columns.items():
        if all(value is None for value in column):
            continue
        base, factor = _RELATIVE_TO.get(name, ("", 0))
        packed[name] = _pack_differences(column, columns[base], factor) if base else pack_column(column)
    return packed


def _pack_origins(origins: Sequence[SpotOrigin | None]) -> Item:
    if not any(origins):
        return {}
    columns = {name: [getattr(one, name, None) for one in origins] for name in _ORIGIN}
    return {name: pack_column(column) for name, column in columns.items() if any(value is not None for value in column)}


def _pack_differences(column: list[Any], base: list[Any], factor: int) -> bytes | list[Any]:
    """Return the packed differences, or the column itself if one of them is not a 64-bit integer."""
    if set(map(type, [*column, *base])) != {int}:
        return column
    packed = pack_column([value - factor * other for value, other in zip(column, base, strict=True)])
    return packed if isinstance(packed, bytes) else column


def _decode_group(cls: type[Any], item: Item, records_left: int, samples_left: int) -> Sequence[Record]:
    n = _count_readings(item, _FIRST_COLUMN.get(cls, _TIMES[0]), records_left)
    columns: dict[str, Sequence[Any]] = {name: _unpack_exactly(item, name, n) for name in _COLUMNS[cls]}
    if cls in _HAVE_TIMES:
        columns["times"] = _unpack_times(item, n)
    if cls in _HAVE_ORIGIN:
        columns["origin"] = _unpack_origins(item, n)
    for name in _LISTS.get(cls, ()):
        columns[name] = _unpack_lists(item, name, n, samples_left)
    if missing := [name for name in _SHARED[cls] if name not in item]:
        raise RecordError(f"{item['type']}: {', '.join(missing)} missing")
    shared = {name: _from_cbor(name, item[name], 0) for name in _SHARED[cls]}
    return [cls(**shared, **dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _count_readings(item: Item, first_column: str, records_left: int) -> int:
    n = len(unpack_column(item.get(first_column), records_left))
    if n == 0:
        raise RecordError(f"{item['type']}: a group without a record")
    return n


def _unpack_times(item: Item, n: int) -> list[Times]:
    columns: dict[str, list[Any]] = {}
    for name in _TIMES:
        if name not in item and name not in _REQUIRED[Times]:
            columns[name] = [None] * n
            continue
        columns[name] = _unpack_exactly(item, name, n)
        if name in _RELATIVE_TO and isinstance(item[name], bytes):
            base, factor = _RELATIVE_TO[name]
            columns[name] = _add_base(columns[name], columns[base], factor)
    return [Times(*row) for row in zip(*columns.values(), strict=True)]


def _unpack_origins(item: Item, n: int) -> list[SpotOrigin | None]:
    """Return the origin of each of `n` readings."""
    columns: dict[str, list[Any]] = {name: _unpack_exactly(item, name, n) for name in _ORIGIN if name in item}
    if not columns:
        return [None] * n
    if missing := sorted(_REQUIRED[SpotOrigin] - columns.keys()):
        raise RecordError(f"{item['type']}: {', '.join(missing)} missing")
    rows = zip(*(columns.get(name, [None] * n) for name in _ORIGIN), strict=True)
    return [None if row.count(None) == len(row) else SpotOrigin(*row) for row in rows]


def _add_base(differences: list[Any], base: list[Any], factor: int) -> list[int]:
    if set(map(type, base)) != {int}:
        raise RecordError("the times from which others differ are not integers")
    return [difference + factor * other for difference, other in zip(differences, base, strict=True)]


def _unpack_lists(item: Item, name: str, n: int, samples_left: int) -> list[Any]:
    """Return the values of each of `n` readings."""
    values = _from_cbor(name, item.get(name), samples_left)
    counts = _unpack_exactly(item, "counts", n)
    if set(map(type, counts)) != {int}:
        raise RecordError("counts are not integers")
    return [values[first:last] for first, last in pairwise(accumulate(counts, initial=0))]


def _unpack_exactly(item: Item, name: str, n: int) -> list[Any]:
    column = unpack_column(item.get(name), n)
    if len(column) != n:
        raise RecordError(f"{name} has fewer values than there are records")
    return column


def _encode_row(record: Record) -> Item:
    return {"type": type_name(record), **_encode_map(record)}


def _encode_map(value: Any) -> Item:
    present = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: _to_cbor(name, one) for name, one in present.items() if one is not None}


def _decode_map(cls: type[T], item: Item, samples_left: int) -> T:
    if missing := sorted(_REQUIRED[cls] - item.keys()):
        raise RecordError(f"{cls.__name__}: {', '.join(missing)} missing")
    return cls(**{name: _from_cbor(name, item.get(name), samples_left) for name in _ROW_FIELDS[cls]})


def _to_cbor(name: str, value: Any) -> Any:
    match value:
        case np.ndarray():
            return pack_samples(value)
        case Times() | Strip():
            return _encode_map(value)
        case tuple():
            return pack_column(value) if name in _PACKED else list(value)
        case _:
            return value


def _from_cbor(name: str, value: Any, samples_left: int) -> Any:
    match name, value:
        case (("times" | "strip"), dict()):
            return _decode_map(_PARTS[name], value, samples_left)
        case "samples", bytes():
            return unpack_samples(value, samples_left)
        case _ if name in _PACKED:
            return tuple(unpack_column(value, samples_left))
        case (("flags" | "reasons"), list()):
            return tuple(value)
        case (("times" | "samples"), _):
            raise RecordError(f"{name} has the type {type(value).__name__}")
        case _:
            return value
