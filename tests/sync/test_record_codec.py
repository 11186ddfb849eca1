"""Every record comes back as it was encoded, and the decoder refuses what the encoder would not have written."""

import struct
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sync.record_codec import decode_records, encode_records
from sync.records import (
    AlertRecord,
    FindingRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    StatusRecord,
    Strip,
    Times,
    VitalRecord,
    WaveformRecord,
)
from sync.wire import PLAINTEXT_LIMIT_BYTES

LIMIT = PLAINTEXT_LIMIT_BYTES

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
int32s = st.integers(-(2**31), 2**31 - 1)
samples = st.lists(int32s, max_size=20).map(lambda values: np.array(values, np.int32))
measured = st.none() | st.dictionaries(texts, numbers, max_size=3)
strips = st.builds(Strip, integers, floats, floats, samples, st.lists(int64s, max_size=4).map(tuple), texts)
tuples_of_texts = st.lists(texts, max_size=2).map(tuple)
records = st.one_of(
    st.builds(WaveformRecord, names, kinds, times, floats, st.sampled_from([0.001, 1.0, 1]), samples),
    st.builds(VitalRecord, names, kinds, times, numbers, st.sampled_from([(), ("no_pulse_found",)])),
    st.builds(IntervalsRecord, names, kinds, times, st.lists(integers, max_size=3).map(tuple)),
    st.builds(StatusRecord, names, kinds, times, texts | numbers | st.booleans()),
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


@given(st.lists(records, max_size=12))
def test_every_record_comes_back_in_its_place(given_records: list[Record]) -> None:
    assert same(decode_records(encode_records(given_records))) == same(given_records)
