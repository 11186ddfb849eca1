"""Encodes the records of a block's plaintext, and decodes them.

The plaintext is a map in deterministic CBOR: `items` are the groups of readings and the other records, and `order` is the order
of the records across them. `docs/records.md` is the reference. An older clinic reads what it knows of a newer hub's blocks: it
ignores unknown fields that `crit` does not list, and returns a record of an unknown type as an `UnknownRecord`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final

import numpy as np

from sync.cbor import CborError, decode_cbor, encode_cbor
from sync.packing import MAX_SAMPLES, pack_integers, unpack_integers
from sync.record_items import Item, count_samples, decode_item, encode_item, group_key, key_of, select_known
from sync.records import RECORD_TYPES, Record, RecordError, UnknownRecord, is_set_aside, set_aside
from sync.wire import PLAINTEXT_LIMIT_BYTES

MAX_RECORDS: Final = 2_000
"""Records in one block: those of a strap in ten minutes. A record can take less than a byte, and its object takes 500."""

DecodeItem = Callable[[Item, int, int], Sequence[Record]]


def encode_records(records: Iterable[Record]) -> bytes:
    """Encode records as the plaintext of a block."""
    groups, order = _group(records)
    return _encode_frame([_encode_item(group) for group in groups], order)


def encode_blocks(records: Sequence[Record], limit_bytes: int) -> Iterator[bytes]:
    """Encode records as the plaintexts of blocks of at most `limit_bytes` and `MAX_RECORDS`; a longer record has its own.

    What does not fit is divided by sensor, and what is of one sensor by time. The records of a sensor keep their order.
    """
    groups, order = _group(records)
    items = [_encode_item(group) for group in groups]
    parts = _divide(groups, items, limit_bytes)
    for part in parts:
        places = [number for number in order if number in part] if len(parts) > 1 else order
        plaintext = _encode_frame([items[number] for number in part], [part[number] for number in places])
        if (len(plaintext) <= limit_bytes and len(places) <= MAX_RECORDS) or len(places) <= 1:
            yield plaintext
            continue
        chosen = [record for record, number in zip(records, order, strict=True) if number in part]
        blocks = -(-len(plaintext) * 4 // (limit_bytes * 3))  # of about three quarters of the limit: most fit at once
        size = -(-len(chosen) // max(2, blocks, -(-len(chosen) // MAX_RECORDS)))
        for first in range(0, len(chosen), size):
            yield from encode_blocks(chosen[first : first + size], limit_bytes)


def decode_records(data: bytes) -> list[Record]:
    """The inverse of `encode_records`.

    Raises:
        RecordError: the bytes are more than a block may hold, or not what `encode_records` writes; or they have more than
            `MAX_RECORDS` records or `MAX_SAMPLES` samples.
    """
    return _decode(data, _decode_item)


def decode_readable_records(data: bytes, validate: Callable[[Record], None]) -> list[Record]:
    """The inverse of `encode_records` for a block of which some records may be damaged.

    A record that `validate` rejects by a `RecordError`, and a group or record that cannot be decoded, costs only itself: it is
    returned as a `QuarantinedRecord` of its sensor, with its CBOR and the reason.

    Raises:
        RecordError: as for `decode_records`, if not one of the records can be read or a damaged one names no sensor.
    """
    records = _decode(data, partial(_decode_or_set_aside, validate))
    if records and all(is_set_aside(record) for record in records):
        raise RecordError("none of the records can be read")
    return records


def _group(records: Iterable[Record]) -> tuple[list[list[Record]], list[int]]:
    """Return the records of each item, and the number of its item for each record."""
    numbers: dict[Any, int] = {}
    groups: list[list[Record]] = []
    order: list[int] = []
    for place, record in enumerate(records):
        number = numbers.setdefault(key_of(record) or place, len(groups))
        if number == len(groups):
            groups.append([])
        groups[number].append(record)
        order.append(number)
    return groups, order


def _divide(groups: Sequence[Sequence[Record]], items: Sequence[Item], limit_bytes: int) -> list[dict[int, int]]:
    """Return the numbers of the items of each block, with their numbers in it; a sensor's items are in one block."""
    of_sensor: dict[str | None, list[int]] = {}
    for number, group in enumerate(groups):
        of_sensor.setdefault(group[0].sensor, []).append(number)
    parts: list[list[int]] = [[]]
    part_bytes = 0
    for numbers in of_sensor.values():
        size = sum(len(encode_cbor(items[number])) + len(groups[number]) for number in numbers)  # a byte each for `order`
        if parts[-1] and part_bytes + size > limit_bytes:
            parts.append([])
            part_bytes = 0
        parts[-1] += numbers
        part_bytes += size
    return [{number: place for place, number in enumerate(sorted(part))} for part in parts]


def _encode_frame(items: list[Item], order: Sequence[int]) -> bytes:
    plaintext: dict[str, Any] = {"items": items}
    if order != sorted(order):
        plaintext["order"] = pack_integers(np.array(order, np.int64))
    return encode_cbor(plaintext)


def _encode_item(records: Sequence[Record]) -> Item:
    if isinstance(records[0], UnknownRecord):
        item: Item = decode_cbor(records[0].content, limit_bytes=PLAINTEXT_LIMIT_BYTES)
        return item
    return encode_item(records)


def _decode(data: bytes, decode: DecodeItem) -> list[Record]:
    items, order = _decode_frame(data)
    groups: list[Sequence[Record]] = []
    records_left, samples_left = MAX_RECORDS, MAX_SAMPLES
    for item in items:
        groups.append(decode(item, records_left, samples_left))
        records_left -= len(groups[-1])
        samples_left -= sum(count_samples(record) for record in groups[-1])
    return list(chain.from_iterable(groups)) if order is None else _restore_order(groups, order)


def _decode_frame(data: bytes) -> tuple[list[Item], list[int] | None]:
    """Return the items, each of which has a type, and the number of the item to which each record belongs."""
    try:
        content = decode_cbor(data, limit_bytes=PLAINTEXT_LIMIT_BYTES)
    except CborError as error:
        raise RecordError(f"not valid CBOR: {error}") from error
    if not isinstance(content, dict) or encode_cbor(content) != data:
        raise RecordError("not a map in deterministic CBOR")
    frame = select_known(content, {"items", "order"})
    items, order = frame.get("items"), frame.get("order")
    if not isinstance(items, list):
        raise RecordError("items is not a list")
    if not all(isinstance(item, dict) and isinstance(item.get("type"), str) for item in items):
        raise RecordError("a record is not a map with a type")
    keys = [key for item in items if (key := group_key(item)) is not None]
    if len(set(keys)) < len(keys):
        raise RecordError("two groups have the same sensor and kind")
    return items, None if order is None else _unpack_order(order)


def _unpack_order(packed: Any) -> list[int]:
    if not isinstance(packed, bytes):
        raise RecordError("order is not packed")
    order = unpack_integers(packed, MAX_RECORDS)
    if pack_integers(order) != packed or np.all(np.diff(order) >= 0):
        raise RecordError("order is not encoded as this version encodes it")
    return [int(number) for number in order]


def _restore_order(groups: Sequence[Sequence[Record]], order: Sequence[int]) -> list[Record]:
    """Return the records in the order in which they were encoded.

    What stands for a group that cannot be read is one record, at the place of the first.
    """
    if list(dict.fromkeys(order)) != list(range(len(groups))):
        raise RecordError("order does not number the items as they first appear")
    places = Counter(order)
    for number, group in enumerate(groups):
        if places[number] != len(group) and not _stands_for_group(group):
            raise RecordError("order does not agree with the number of records")
    remaining = [iter(group) for group in groups]
    return [record for number in order if (record := next(remaining[number], None)) is not None]


def _stands_for_group(records: Sequence[Record]) -> bool:
    return len(records) == 1 and (isinstance(records[0], UnknownRecord) or is_set_aside(records[0]))


def _decode_item(item: Item, records_left: int, samples_left: int) -> Sequence[Record]:
    if item["type"] in RECORD_TYPES:
        return decode_item(item, records_left, samples_left)
    if records_left < 1:
        raise RecordError(f"there are more than {MAX_RECORDS} records")
    sensor = item.get("sensor")
    return [UnknownRecord(item["type"], sensor if isinstance(sensor, str) else None, encode_cbor(item))]


def _decode_or_set_aside(
    validate: Callable[[Record], None], item: Item, records_left: int, samples_left: int
) -> Sequence[Record]:
    try:
        records = _decode_item(item, records_left, samples_left)
    except RecordError as error:
        return [_set_aside(validate, item, error)]
    return [_validate_or_set_aside(validate, record) for record in records]


def _validate_or_set_aside(validate: Callable[[Record], None], record: Record) -> Record:
    try:
        validate(record)
    except RecordError as error:
        return _set_aside(validate, _encode_item([record]), error)
    return record


def _set_aside(validate: Callable[[Record], None], item: Item, error: RecordError) -> Record:
    if not isinstance(sensor := item.get("sensor"), str):
        raise error
    record = set_aside(sensor, encode_cbor(item), str(error))
    validate(record)
    return record
