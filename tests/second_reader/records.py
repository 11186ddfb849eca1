"""The plaintext of a block as plain dicts, and back, as `docs/records.md` describes it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from tests.second_reader import cbor
from tests.second_reader.cbor import RefusedError
from tests.second_reader.packing import (
    decode_column,
    decode_differences,
    encode_column,
    encode_differences,
    pack_integers,
    unpack_integers,
)

Record = dict[str, Any]
MAX_PLAINTEXT_BYTES: Final = 57_344
MAX_RECORDS: Final = 2000
MAX_SAMPLES: Final = 200_000
_SAMPLE_LIMIT: Final = 1 << 31


@dataclass(frozen=True)
class Group:
    """The fields of a type of reading: shared, one for each reading, and series of values for each reading."""

    shared: tuple[str, ...]
    columns: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    has_origin: bool = False
    has_times: bool = True

    def names(self) -> tuple[str, ...]:
        """Return the names of all fields of the item."""
        series = ("counts", *self.series) if self.series else ()
        origin = _ORIGIN if self.has_origin else ()
        times = (*_TIMES, *_OPTIONAL_TIMES) if self.has_times else ()
        return ("type", *self.shared, *times, *self.columns, *series, *origin)


@dataclass(frozen=True)
class Fields:
    """The fields of a map: those that it has, and those that it can have."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return all names."""
        return self.required + self.optional


_TIMES: Final = ("at_us", "arrived_us", "arrived_mono_ns")
_OPTIONAL_TIMES: Final = ("sensor_ns", "offset_ns", "drift_ppm")
_ALWAYS_IN_ORIGIN: Final = ("group", "time_source", "is_stored")
_ORIGIN: Final = (*_ALWAYS_IN_ORIGIN, "local_us", "clock", "record", "user")
_GROUPS: Final = {
    "waveform": Group(("sensor", "kind", "scale"), ("rate_hz",), ("samples",)),
    "vital": Group(("sensor", "kind", "flags"), ("value",), has_origin=True),
    "intervals": Group(("sensor", "kind"), (), ("ticks",)),
    "beats": Group(("sensor", "kind"), ("from_us", "to_us"), ("beats_ms", "classes"), has_times=False),
    "status": Group(("sensor", "kind"), ("value",), has_origin=True),
}
_OTHERS: Final = {
    "gap": Fields(("sensor", "kind", "from_us", "reason"), ("to_us", "missing", "from_sensor_ns", "to_sensor_ns")),
    "quarantined": Fields(("sensor", "characteristic", "times", "payload", "reason")),
    "finding": Fields(("sensor", "kind", "onset_us", "source"), ("end_us", "probability", "inconclusive", "measured")),
    "alert": Fields(
        ("id", "sensor", "kind", "priority", "onset_us", "decided_us", "source", "reasons"),
        ("end_us", "probability", "measured", "strip", "raised_us"),
    ),
}
_STRIP: Final = Fields(
    ("start_us", "rate_hz", "scale", "samples", "beats_us", "labels"), ("part", "mark_from_us", "mark_to_us")
)
_SINGLE_TIMES: Final = Fields(_TIMES, _OPTIONAL_TIMES)


@dataclass
class _Budget:
    """What the items that follow can still hold."""

    records: int = MAX_RECORDS
    samples: int = MAX_SAMPLES

    def take(self, records: list[Record]) -> None:
        strips = [record["strip"] for record in records if record.get("strip") is not None]
        n_samples = sum(len(holder.get(name, ())) for holder in records + strips for name in ("samples", "ticks", "beats_ms"))
        n_beats = max((len(strip["beats_us"]) for strip in strips), default=0)
        if len(records) > self.records or max(n_samples, n_beats) > self.samples:
            raise RefusedError("more records or samples than a block can have")
        self.records -= len(records)
        self.samples -= n_samples


@dataclass(frozen=True)
class _Item:
    """A decoded item. `is_one` if it is unknown or refused: one entry, however many places it has."""

    records: list[Record] = field(default_factory=list)
    is_one: bool = False


def decode_plaintext(plaintext: bytes) -> list[Record]:
    """Return the records in their order; absent fields are None.

    An item of an unknown type is `{"type": "unknown", "name", "sensor", "content"}`, with its CBOR as content; a refused
    item is `{"type": "refused", "name", "sensor", "content", "reason"}`.

    Raises:
        RefusedError: the whole plaintext is refused.
    """
    items, order = _read_frame(plaintext)
    budget = _Budget()
    decoded = [_read_item(item, budget) for item in items]
    refused = [item.records[0] for item in decoded if item.is_one and item.records[0]["type"] == "refused"]
    if any(not isinstance(entry["sensor"], str) for entry in refused):
        raise RefusedError(f"an item without a sensor: {refused[0]['reason']}")
    if refused and len(refused) == len(items):
        raise RefusedError(f"no item can be read: {refused[0]['reason']}")
    if order is None:
        return [record for item in decoded for record in item.records]
    return _put_in_order(decoded, order)


def encode_plaintext(records: list[Record]) -> bytes:
    """Return the plaintext that a writer writes for these records."""
    items: dict[bytes | int, list[Record]] = {}
    numbers: dict[bytes | int, int] = {}
    order = []
    for place, record in enumerate(records):
        group = _GROUPS.get(record["type"])
        key = cbor.encode([record["type"], *(record[name] for name in group.shared)]) if group else place
        items.setdefault(key, []).append(record)
        order.append(numbers.setdefault(key, len(numbers)))
    frame: dict[str, Any] = {"items": [_encode_item(members) for members in items.values()]}
    if order != sorted(order):
        frame["order"] = pack_integers(order)
    return cbor.encode(frame)


def _own_fields(content: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a map that this page defines, without `crit`, which is obeyed."""
    if not isinstance(content, dict):
        raise RefusedError("a value that must be a map is not one")
    crit = content.get("crit", [])
    if not isinstance(crit, list) or any(name not in names or name not in content for name in crit):
        raise RefusedError("the map has `crit`, which is damaged or names a field that is unknown or absent")
    return {name: value for name, value in content.items() if name in names}


def _require(content: dict[str, Any], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in content]
    if missing:
        raise RefusedError(f"the field {missing[0]} is missing")


def _read_frame(plaintext: bytes) -> tuple[list[dict[str, Any]], list[int] | None]:
    if len(plaintext) > MAX_PLAINTEXT_BYTES:
        raise RefusedError(f"the plaintext has more than {MAX_PLAINTEXT_BYTES} bytes")
    frame = _own_fields(cbor.decode(plaintext), ("items", "order"))
    items = frame.get("items")
    if not isinstance(items, list):
        raise RefusedError("`items` is not a list")
    if any(not isinstance(item, dict) or not isinstance(item.get("type"), str) for item in items):
        raise RefusedError("an item has no type")
    keys = [
        cbor.encode([item["type"], *(item[name] for name in group.shared)])
        for item in items
        if (group := _GROUPS.get(item["type"])) and all(name in item for name in group.shared)
    ]
    if len(set(keys)) != len(keys):
        raise RefusedError("two groups have the same shared fields")
    return items, _read_order(frame["order"], len(items)) if "order" in frame else None


def _read_order(packed: Any, n_items: int) -> list[int]:
    if not isinstance(packed, bytes):
        raise RefusedError("`order` is not packed integers")
    order = unpack_integers(packed)
    if len(order) > MAX_RECORDS or order == sorted(order):
        raise RefusedError("`order` is too long or says nothing")
    if list(dict.fromkeys(order)) != list(range(n_items)):
        raise RefusedError("the numbers of `order` do not first appear as those of the items")
    return order


def _put_in_order(items: list[_Item], order: list[int]) -> list[Record]:
    places = Counter(order)
    for number, item in enumerate(items):
        if not item.is_one and len(item.records) != places[number]:
            raise RefusedError("an item has another number of records than places")
    left = [iter(item.records) for item in items]
    return [record for number in order if (record := next(left[number], None)) is not None]


def _read_item(item: dict[str, Any], budget: _Budget) -> _Item:
    name = item["type"]
    entry = {"name": name, "sensor": item.get("sensor"), "content": cbor.encode(item)}
    if name not in _GROUPS and name not in _OTHERS:
        budget.records -= 1
        return _Item([{"type": "unknown", **entry}], is_one=True)
    try:
        records = _read_records(item)
        budget.take(records)
    except RefusedError as error:
        return _Item([{"type": "refused", **entry, "reason": str(error)}], is_one=True)
    return _Item(records)


def _read_records(item: dict[str, Any]) -> list[Record]:
    name = item["type"]
    records = _decode_group(item, _GROUPS[name]) if name in _GROUPS else [_decode_other(item, _OTHERS[name])]
    if cbor.encode(_encode_item(records)) != cbor.encode(_without_unknown(item)):
        raise RefusedError("the item is not what a writer writes")
    return records


def _without_unknown(item: dict[str, Any]) -> dict[str, Any]:
    name = item["type"]
    if name in _GROUPS:
        return _own_fields(item, _GROUPS[name].names())
    known = _own_fields(item, ("type", *_OTHERS[name].names()))
    for inner, fields in (("strip", _STRIP), ("times", _SINGLE_TIMES)):
        if inner in known:
            known[inner] = _own_fields(known[inner], fields.names())
    return known


def _decode_group(item: dict[str, Any], group: Group) -> list[Record]:
    content = _own_fields(item, group.names())
    counts = ("counts", *group.series) if group.series else ()
    _require(content, (*group.shared, *(_TIMES if group.has_times else ()), *group.columns, *counts))
    times = _decode_times(content) if group.has_times else {}
    columns = {name: decode_column(content[name]) for name in group.columns}
    n = len(times["at_us"] if group.has_times else columns[group.columns[0]])
    for name in group.series:
        columns[name] = _decode_series(content["counts"], content[name], is_samples=name == "samples")
    origins = _decode_origins(content, n) if group.has_origin else [{}] * n
    if n == 0 or any(len(column) != n for column in [*times.values(), *columns.values()]):
        raise RefusedError("the columns of a group are empty or differ in length")
    shared = {"type": item["type"], **{name: content[name] for name in group.shared}}
    return [
        {
            **shared,
            **({"times": {name: times[name][i] for name in times}} if times else {}),
            **{name: columns[name][i] for name in columns},
            **origins[i],
        }
        for i in range(n)
    ]


def _decode_times(content: dict[str, Any]) -> dict[str, list[Any]]:
    at_us = decode_column(content["at_us"])
    arrived_us = decode_differences(content["arrived_us"], at_us, 1)
    mono_ns = decode_differences(content["arrived_mono_ns"], arrived_us, 1000)
    optional = {name: decode_column(content[name]) if name in content else [None] * len(at_us) for name in _OPTIONAL_TIMES}
    return dict(zip(_TIMES, (at_us, arrived_us, mono_ns), strict=True)) | optional


def _decode_origins(content: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """For each reading `{"origin": …}`, or nothing if it was not measured on demand."""
    present = [name for name in _ORIGIN if name in content]
    if not present:
        return [{}] * n
    _require(content, _ALWAYS_IN_ORIGIN)
    columns = {name: decode_column(content[name]) if name in content else [None] * n for name in _ORIGIN}
    if any(len(column) != n for column in columns.values()):
        raise RefusedError("the columns of a group differ in length")
    rows = [{name: columns[name][i] for name in _ORIGIN} for i in range(n)]
    return [{"origin": row} if any(value is not None for value in row.values()) else {} for row in rows]


def _decode_series(packed_counts: Any, column: Any, *, is_samples: bool) -> list[list[Any]]:
    counts = decode_column(packed_counts)
    values = _decode_samples(column) if is_samples else decode_column(column)
    if any(type(count) is not int or count < 0 for count in counts) or sum(counts) != len(values):
        raise RefusedError("`counts` and its list disagree")
    series = []
    start = 0
    for count in counts:
        series.append(values[start : start + count])
        start += count
    return series


def _decode_samples(column: Any) -> list[int]:
    if not isinstance(column, bytes):
        raise RefusedError("samples that are not packed")
    samples = unpack_integers(column)
    if any(not -_SAMPLE_LIMIT <= sample < _SAMPLE_LIMIT for sample in samples):
        raise RefusedError("a sample of more than 32 bits")
    return samples


def _decode_other(item: dict[str, Any], fields: Fields) -> Record:
    content = _own_fields(item, ("type", *fields.names()))
    _require(content, fields.required)
    record = {"type": content["type"], **{name: content.get(name) for name in fields.names()}}
    if "times" in content:
        times = _own_fields(content["times"], _SINGLE_TIMES.names())
        _require(times, _SINGLE_TIMES.required)
        record["times"] = {name: times.get(name) for name in _SINGLE_TIMES.names()}
    if "strip" in content:
        strip = _own_fields(content["strip"], _STRIP.names())
        _require(strip, _STRIP.required)
        columns = {"samples": _decode_samples(strip["samples"]), "beats_us": decode_column(strip["beats_us"])}
        record["strip"] = {name: strip.get(name) for name in _STRIP.names()} | columns
    return record


def _encode_item(records: list[Record]) -> dict[str, Any]:
    name = records[0]["type"]
    if name in _GROUPS:
        return _encode_group(records, _GROUPS[name])
    if name == "unknown":
        content = cbor.decode(records[0]["content"])
        assert isinstance(content, dict)
        return content
    item = _with_values(records[0])
    if "times" in item:
        item["times"] = _with_values(item["times"])
    if "strip" in item:
        strip = item["strip"]
        columns = {"samples": pack_integers(strip["samples"]), "beats_us": encode_column(strip["beats_us"])}
        item["strip"] = _with_values(strip) | columns
    return item


def _encode_group(records: list[Record], group: Group) -> dict[str, Any]:
    item = _with_values({name: records[0][name] for name in ("type", *group.shared)})
    if group.has_times:
        item |= _encode_times(records)
    for name in group.columns:
        item[name] = encode_column([record[name] for record in records])
    for name in _ORIGIN if group.has_origin else ():
        origin = [record.get("origin", {}).get(name) for record in records]
        if any(value is not None for value in origin):
            item[name] = encode_column(origin)
    for name in group.series:
        series = [record[name] for record in records]
        item["counts"] = pack_integers([len(values) for values in series])
        item[name] = encode_column([value for values in series for value in values])
    return item


def _encode_times(records: list[Record]) -> dict[str, Any]:
    times = {name: [record["times"][name] for record in records] for name in (*_TIMES, *_OPTIONAL_TIMES)}
    columns = {
        "at_us": encode_column(times["at_us"]),
        "arrived_us": encode_differences(times["arrived_us"], times["at_us"], 1),
        "arrived_mono_ns": encode_differences(times["arrived_mono_ns"], times["arrived_us"], 1000),
    }
    return columns | {
        name: encode_column(times[name]) for name in _OPTIONAL_TIMES if any(value is not None for value in times[name])
    }


def _with_values(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}
