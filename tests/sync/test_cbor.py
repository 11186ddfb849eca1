"""CBOR from outside: what could take much memory or time is refused before it is decoded."""

import contextlib
import struct
import zlib

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.cbor import MAX_DEPTH, CborError, decode_cbor, encode_cbor
from sync.records import MAX_SAMPLES, Record, RecordError, Times, WaveformRecord, decode_records, encode_records
from sync.wire import PLAINTEXT_LIMIT_BYTES, WireError, decode_cbor_map

LIMIT = 1000
TIMES = Times(1, 1, 1)


@given(st.integers(0, 2**64 - 1) | st.integers(0, 300), st.sampled_from([b"\x80", b"\x40", b"\x00", b"\x60"]))
def test_every_tag_is_refused(tag: int, content: bytes) -> None:
    for data in (b"\xdb" + struct.pack(">Q", tag) + content, cbor2.dumps([1])[:1] + b"\xdb" + struct.pack(">Q", tag) + content):
        with pytest.raises(CborError, match=f"tag {tag} is not allowed"):
            decode_cbor(data, limit_bytes=LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x82\x01",
        b"\x80\x00",
        b"\xa1\x01\x01",
        b"\x61\xff",
        b"\x9b" + b"\xff" * 8,
        b"\x5b" + b"\x7f" * 8,
        b"\x81" * (MAX_DEPTH + 1) + b"\x00",
        encode_cbor([0] * LIMIT),
        encode_cbor(2**64),
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CborError):
        decode_cbor(data, limit_bytes=LIMIT)


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_cbor_error(data: bytes) -> None:
    with contextlib.suppress(CborError):
        decode_cbor(data, limit_bytes=LIMIT)


def test_a_shared_value_is_refused_in_messages_and_in_plaintexts() -> None:
    """Nested sharing doubles the value with each 7 bytes."""
    shared_list = b"\x82\xd8\x1c\x80\xd8\x1d\x00"
    with pytest.raises(WireError, match="tag 28"):
        decode_cbor_map(b"\xa1\x61a" + shared_list, limit_bytes=LIMIT, fields=(), what="message")
    record = encode_records([WaveformRecord("s", "ecg", TIMES, 130.0, 1.0, np.zeros(9, np.int32))])[1:]
    with pytest.raises(RecordError, match="tag 28"):
        decode_records(b"\x82\xd8\x1c" + record + b"\xd8\x1d\x00")


def test_the_samples_of_a_block_are_limited_together() -> None:
    half = np.zeros(MAX_SAMPLES // 2, np.int32)
    allowed: list[Record] = [WaveformRecord("s", "ecg", TIMES, 130.0, 1.0, half)] * 2
    assert len(decode_records(encode_records(allowed))) == 2
    with pytest.raises(RecordError, match="more than"):
        decode_records(encode_records([*allowed, WaveformRecord("s", "ecg", TIMES, 130.0, 1.0, np.zeros(1, np.int32))]))


def test_a_plaintext_over_the_limit_is_refused() -> None:
    with pytest.raises(RecordError, match="over the limit"):
        decode_records(encode_cbor([bytes(PLAINTEXT_LIMIT_BYTES)]))


@pytest.mark.parametrize("name", [[1], {"a": 1}, None, 10**18, "CANARY-4711"])
def test_a_record_of_an_unknown_type_is_refused_without_quoting_it(name: object) -> None:
    with pytest.raises(RecordError, match=r"^a record has an unknown type$"):
        decode_records(encode_cbor([{"type": name}]))


def test_a_forged_sample_length_is_refused() -> None:
    record = {"type": "waveform", "samples": zlib.compress(bytes(4 * MAX_SAMPLES + 4), 9)}
    with pytest.raises(RecordError, match="more than"):
        decode_records(encode_cbor([record]))
