"""Every record comes back as it was encoded, and the decoder refuses what the encoder would not have written."""

import contextlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync.cbor import decode_cbor, encode_cbor
from sync.packing import pack_column, pack_integers
from sync.record_codec import decode_records, encode_blocks, encode_records
from sync.records import (
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
    VitalRecord,
    WaveformRecord,
)
from sync.wire import PLAINTEXT_LIMIT_BYTES

int64s = st.integers(-(2**63), 2**63 - 1)
integers = st.integers(-(2**40), 2**40) | int64s
floats = st.floats() | st.integers(-1000, 1000).map(float)
numbers = integers | floats
texts = st.text(st.characters(codec="utf-8"), max_size=6)
names = st.sampled_from(["strap", "watch"])
kinds = st.sampled_from(["ecg", "ppg"])
times = st.builds(
    Times, integers, st.integers(-(2**50), 2**50), integers, st.none() | int64s, st.none() | int64s, st.none() | floats
)
clocks = st.none() | st.sampled_from(["set", "unknown"])
origins = st.builds(
    SpotOrigin, integers, texts, st.booleans(), st.none() | integers, clocks, st.none() | integers, st.none() | int64s
)
int32s = st.integers(-(2**31), 2**31 - 1)
samples = st.lists(int32s, max_size=20).map(lambda values: np.array(values, np.int32))
measured = st.none() | st.dictionaries(texts, numbers, max_size=3)
strips = st.builds(
    Strip,
    integers,
    floats,
    floats,
    samples,
    st.lists(int64s, max_size=4).map(tuple),
    texts,
    st.none() | texts,
    st.none() | int64s,
    st.none() | int64s,
)
tuples_of_texts = st.lists(texts, max_size=2).map(tuple)
records = st.one_of(
    st.builds(WaveformRecord, names, kinds, times, floats, st.sampled_from([0.001, 1.0, 1]), samples),
    st.builds(VitalRecord, names, kinds, times, numbers, st.sampled_from([(), ("no_pulse_found",)]), st.none() | origins),
    st.builds(IntervalsRecord, names, kinds, times, st.lists(integers, max_size=3).map(tuple)),
    st.lists(st.tuples(int64s, st.integers(0, 4)), max_size=3).flatmap(
        lambda beats: st.builds(
            BeatsRecord, names, kinds, integers, integers, *(st.just(tuple(one[i] for one in beats)) for i in (0, 1))
        )
    ),
    st.builds(StatusRecord, names, kinds, times, texts | numbers | st.booleans(), st.none() | origins),
    st.builds(GapRecord, names, kinds, integers, st.none() | integers, st.none() | integers, texts),
    st.builds(QuarantinedRecord, names, texts, times, st.binary(max_size=5), texts),
    st.builds(
        FindingRecord, names, kinds, integers, st.none() | integers, texts, st.none() | floats, st.none() | texts, measured
    ),
    st.builds(
        AlertRecord,
        *(texts, names, kinds, texts, integers, st.none() | integers, integers, texts, tuples_of_texts),
        *(st.none() | floats, measured, st.none() | strips),
    ),
)


def same(value: Any) -> Any:
    """Equal for values that are equal in type, sign and every bit."""
    match value:
        case float():
            return "NaN" if value != value else struct.pack("<d", value)  # noqa: PLR0124 - CBOR has one NaN only
        case np.ndarray():
            return value.dtype.str, value.tolist()
        case tuple() | list():
            return [same(one) for one in value]
        case dict():
            return {key: same(one) for key, one in value.items()}
        case _ if hasattr(value, "__slots__"):
            return type(value), [same(getattr(value, name)) for name in value.__slots__]
        case _:
            return type(value), value


@settings(deadline=None)
@given(st.lists(records, max_size=12))
def test_every_record_comes_back_in_its_place(given_records: list[Record]) -> None:
    assert same(decode_records(encode_records(given_records))) == same(given_records)


WAVE = WaveformRecord("strap", "ecg", Times(5, 6, 7, 8, 9, 0.25), 130.25, 0.001, np.array([1, 5, 4, 4, 2, 90], np.int32))
VITAL = VitalRecord("strap", "heart_rate", Times(5, 6, 7), 61)
BLOCK = [WAVE, VITAL, WAVE, VITAL, WAVE]


def decode_map(plaintext: bytes) -> dict[str, Any]:
    content: dict[str, Any] = decode_cbor(plaintext, limit_bytes=PLAINTEXT_LIMIT_BYTES)
    return content


@settings(deadline=None)
@given(st.data())
def test_a_changed_column_is_refused_or_the_only_form_of_other_records(data: st.DataObject) -> None:
    content = decode_map(encode_records(BLOCK))
    place = data.draw(st.sampled_from([0, 1, None]))
    changed = content if place is None else content["items"][place]
    name = data.draw(st.sampled_from([name for name, value in changed.items() if isinstance(value, bytes)]))
    packed = bytearray(changed[name])
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    changed[name] = bytes(packed)
    accepts_only_canonical(encode_cbor(content))


@settings(deadline=None)
@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_changed_byte_is_refused_or_the_only_form_of_other_records(given_records: list[Record], data: st.DataObject) -> None:
    plaintext = bytearray(encode_records(given_records))
    place = data.draw(st.integers(0, len(plaintext) - 1))
    plaintext[place] ^= 1 << data.draw(st.integers(0, 7))
    accepts_only_canonical(bytes(plaintext), has_new_names=True)


def accepts_only_canonical(plaintext: bytes, *, has_new_names: bool = False) -> None:
    try:
        decoded = decode_records(plaintext)
    except RecordError:
        return
    again = encode_records(decoded)
    if has_new_names and again != plaintext:
        assert has_unknown(decode_map(plaintext), decode_map(again))
    else:
        assert again == plaintext


def has_unknown(content: Any, again: Any) -> bool:
    """Whether a map has a field that is not in the map that this version wrote again."""
    if isinstance(content, dict) and isinstance(again, dict):
        return bool(content.keys() - again.keys()) or any(has_unknown(content[name], again[name]) for name in again)
    if isinstance(content, list) and isinstance(again, list):
        return any(has_unknown(*pair) for pair in zip(content, again, strict=True))
    return False


NOT_WRITTEN: dict[str, dict[str, Any]] = {
    "an order that is that of the items": {"order": pack_integers(np.array([0, 0, 0, 1, 1]))},
    "an order that begins with the second item": {"order": pack_integers(np.array([1, 0, 0, 1, 0]))},
    "an order with an item that is not there": {"order": pack_integers(np.array([0, 1, 0, 1, 2]))},
    "an order with a negative number": {"order": pack_integers(np.array([0, 1, -1, 1, 0]))},
    "an order with fewer records": {"order": pack_integers(np.array([0, 1, 0, 1]))},
    "an order with more records": {"order": pack_integers(np.array([0, 1, 0, 1, 0, 1]))},
    "an order without an item": {"order": pack_integers(np.array([0, 0, 0]))},
    "an empty order": {"order": pack_integers(np.array([], np.int64))},
    "an order as a list": {"order": [0, 1, 0, 1, 0]},
    "an order in a longer form": {"order": bytes.fromhex("3f05" + "f8" + "00" * 40)},
    "items that are a map": {"items": {}},
    "no items": {"items": None},
}


@pytest.mark.parametrize("changes", NOT_WRITTEN.values(), ids=NOT_WRITTEN)
def test_refuses_a_block_that_no_hub_writes(changes: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        decode_records(encode_cbor(decode_map(encode_records(BLOCK)) | changes))


def test_refuses_a_second_group_of_the_same_sensor_and_kind() -> None:
    first, second = (decode_map(encode_records([record]))["items"][0] for record in (VITAL, VITAL))
    with pytest.raises(RecordError, match="two groups"):
        decode_records(encode_cbor({"items": [first, second]}))


def test_refuses_a_group_without_a_record() -> None:
    item = decode_map(encode_records([VITAL]))["items"][0]
    empty = pack_column([])
    with pytest.raises(RecordError, match="without a record"):
        decode_records(
            encode_cbor({"items": [item | dict.fromkeys(("at_us", "arrived_us", "arrived_mono_ns", "value"), empty)]})
        )


@pytest.mark.parametrize(
    "plaintext",
    [
        "a1656974656d73f6",  # items: null
        "bf656974656d7380ff",  # a map of indefinite length
        "a1656974656d739fff",  # a list of indefinite length
        "a1656974656d739800",  # a length that is not the shortest
        "a2656974656d7380656974656d7380",  # the same key twice
        "a2656f7264657242000065" + "6974656d7380",  # keys out of order
        "a1656974656d738000",  # a byte after it
        "80",  # a list, as in format 1
        "",
    ],
)
def test_refuses_other_cbor(plaintext: str) -> None:
    with pytest.raises(RecordError):
        decode_records(bytes.fromhex(plaintext))


def test_an_empty_block() -> None:
    assert encode_records([]).hex() == "a1656974656d7380"
    assert decode_records(bytes.fromhex("a1656974656d7380")) == []


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes_raise_only_record_error(data: bytes) -> None:
    with contextlib.suppress(RecordError):
        decode_records(data)


def test_a_continuous_vital_has_no_field_for_an_origin() -> None:
    (item,) = decode_map(encode_records([VITAL]))["items"]
    assert set(item) == {"type", "sensor", "kind", "flags", "value", "at_us", "arrived_us", "arrived_mono_ns"}


def test_unstamped_frames_among_others_come_back() -> None:
    unstamped = WaveformRecord("strap", "ecg", Times(5, 6, 7), 130.25, 0.001, WAVE.samples)
    frames: Sequence[Record] = [WAVE, unstamped, WAVE]
    assert same(decode_records(encode_records(frames))) == same(frames)


@pytest.mark.parametrize("sensor_ns", [2**63, 2**64 - 1])
def test_a_sensor_clock_beyond_63_bits_comes_back(sensor_ns: int) -> None:
    frames = [WaveformRecord("strap", "ecg", Times(5, 6, 7, sensor_ns, 9 - sensor_ns), 130.0, 0.001, WAVE.samples)]
    assert same(decode_records(encode_records(frames))) == same(frames)


def arrived(sensor: str, second: int) -> list[Record]:
    times = Times(second * 1_000_000, second * 1_000_000, second * 10**9)
    return [VitalRecord(sensor, "heart_rate", times, 60 + second), IntervalsRecord(sensor, "rr", times, (1000 + second,))]


def test_records_of_many_sensors_are_divided_by_sensor() -> None:
    sensors = [f"sensor-{number}" for number in range(20)]
    given_records = [record for second in range(10) for sensor in sensors for record in arrived(sensor, second)]
    blocks = [decode_records(plaintext) for plaintext in encode_blocks(given_records, limit_bytes=2_000)]
    assert len(blocks) > 2
    for sensor in sensors:
        (block,) = [block for block in blocks if sensor in {record.sensor for record in block}]
        assert [record for record in block if record.sensor == sensor] == [r for r in given_records if r.sensor == sensor]
    assert all(len(plaintext) <= 2_000 for plaintext in encode_blocks(given_records, limit_bytes=2_000))


@settings(deadline=None)
@given(st.lists(records, min_size=1, max_size=12), st.integers(1, 600))
def test_blocks_hold_every_record_once_in_the_order_of_its_sensor(given_records: list[Record], limit_bytes: int) -> None:
    blocks = list(encode_blocks(given_records, limit_bytes))
    decoded = [record for plaintext in blocks for record in decode_records(plaintext)]
    for sensor in {record.sensor for record in given_records}:
        theirs = [[record for record in some if record.sensor == sensor] for some in (decoded, given_records)]
        assert same(theirs[0]) == same(theirs[1])
    assert len(decoded) == len(given_records)
    assert all(len(plaintext) <= limit_bytes or len(decode_records(plaintext)) == 1 for plaintext in blocks)
