"""Packed integers: examples that were worked out by hand, every range, and no second form of the same values."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync.packing import pack_column, pack_integers, pack_samples, unpack_column, unpack_integers, unpack_samples
from sync.records import RecordError
from sync.short_columns import pack_short

int64s = st.integers(-(2**63), 2**63 - 1)
BY_HAND: dict[str, tuple[list[int], str]] = {
    # order 0, k 0, no value
    "nothing": ([], "0000"),
    # order 0, k 0, 1 value; code 0: quotient 0 is the bit 1
    "a zero": ([0], "0001 80"),
    # order 0, k 2, 1 value; code 10 = 2 * 4 + 2: bits 001 10
    "one value": ([5], "0201 30"),
    # order 0, k 0, 3 values; codes 1, 0, 2: bits 01 1 001
    "small values": ([-1, 0, 1], "0003 64"),
    # order 1, k 0, 4 values, first 1000 (code 2000); codes 0, 0, 0: bits 1 1 1
    "a constant": ([1000] * 4, "4004 d00f e0"),
    # order 2, k 0, 8 values, first 1000, first difference 7 (code 14); six codes 0: bits 1 1 1 1 1 1
    "a slope": ([1000 + 7 * i for i in range(8)], "8008 d00f 0e fc"),
    # order 0, k 4, 4 values; codes 20, 22, 24, 20: bits 01 01 01 01, then 0100 0110 1000 0100.
    # With k 5 it takes 24 bits too; with order 1 and k 1 it takes 5 bytes too.
    "two forms of one length": ([10, 11, 12, 10], "0404 554684"),
    # order 0, k 63: code 2^64 - 1 = 1 * 2^63 + 63 ones: bits 01, then 63 ones
    "the least integer": ([-(2**63)], "3f01 7fffffffffffffff80"),
}


@pytest.mark.parametrize(("values", "packed"), BY_HAND.values(), ids=BY_HAND)
def test_examples_by_hand(values: list[int], packed: str) -> None:
    assert pack_integers(np.array(values, np.int64)).hex() == packed.replace(" ", "")
    assert unpack_integers(bytes.fromhex(packed), 10).tolist() == values


@given(values=st.lists(int64s | st.integers(-50, 50) | st.integers(1_800_000_000_000_000, 1_800_000_100_000_000), max_size=40))
@example([-(2**63), 2**63 - 1, 0])
@example([1000] * 9)
def test_a_short_column_has_the_same_bytes_as_an_array(values: list[int]) -> None:
    expected = pack_integers(np.array(values, np.int64))
    assert pack_short(tuple(values), 2, 6) == expected
    assert pack_column(values) == (expected if values else pack_short((), 2, 6))


NUMBERS_BY_HAND: dict[str, tuple[list[Any], str]] = {
    "integers": ([5], "0201 30"),
    # 0 decimals, order 0, k 6, 2 values; codes 120, 122: bits 01 01, then 111000 111010
    "whole numbers": ([60.0, 61.0], "c0 0602 5e3a"),
    # 2 decimals, order 0, k 11, 1 value; code 5570 = 2 * 2048 + 1474: bits 001 10111000010
    "two decimals": ([27.85], "c2 0b01 3708"),
    # the bits of 1/3 are 0x3fd5555555555555; twice that is 1 * 2^62 + 0x3faaaaaaaaaaaaaa: bits 01, then 62 of them
    "no short decimal": ([1 / 3], "ff 3e01 7faaaaaaaaaaaaaa"),
    # the bits of -0.0 are -(2^63), whose code is 2^64 - 1
    "minus zero": ([-0.0], "ff 3f01 7fffffffffffffff80"),
}


@pytest.mark.parametrize(("values", "packed"), NUMBERS_BY_HAND.values(), ids=NUMBERS_BY_HAND)
def test_columns_by_hand(values: list[Any], packed: str) -> None:
    column = pack_column(values)
    assert isinstance(column, bytes)
    assert column.hex() == packed.replace(" ", "")
    assert str(unpack_column(bytes.fromhex(packed), 10)) == str(values)


@pytest.mark.parametrize(("value", "form"), [(2.0**53 - 1, 0xC0), (2.0**53, 0xFF), (0.5, 0xC1), (0.0005, 0xFF)])
def test_only_short_decimals_are_packed_as_such(value: float, form: int) -> None:
    column = pack_column([value])
    assert column[0] == form
    assert unpack_column(column, 1) == [value]


@pytest.mark.parametrize("values", [[2**63], [-(2**63) - 1, 0], [1, 1.0], [True], [None, 1], ["a"]])
def test_other_values_stay_a_list(values: list[Any]) -> None:
    assert pack_column(values) == values
    assert unpack_column(values, len(values)) == values


@settings(deadline=None)
@given(st.lists(int64s | st.integers(-100, 100), max_size=40))
@example([2**63 - 1, -(2**63), 2**63 - 1, -(2**63)])
def test_all_64_bit_integers_come_back(values: list[int]) -> None:
    packed = pack_integers(np.array(values, np.int64))
    assert unpack_integers(packed, 40).tolist() == values
    assert len(packed) <= 2 + 9 * len(values) + 1


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1300])
def test_all_32_bit_samples_come_back(n: int) -> None:
    samples = np.random.default_rng(n).integers(-(2**31), 2**31, n).astype(np.int32)
    packed = pack_samples(samples)
    assert np.array_equal(unpack_samples(packed), samples)
    assert unpack_samples(packed).dtype == np.int32
    assert len(packed) <= 4 + 4.1 * n  # what cannot be compressed takes 2 % more


@pytest.mark.parametrize("value", [0, -1, 2**31 - 1, -(2**31)])
def test_a_constant_signal_takes_a_bit_a_sample(value: int) -> None:
    samples = np.full(1300, value, np.int32)
    packed = pack_samples(samples)
    assert np.array_equal(unpack_samples(packed), samples)
    assert len(packed) <= 1300 / 8 + 10


DAMAGED = {
    "nothing": "",
    "no number of values": "00",
    "an endless number of values": "00" + "ff" * 12,
    "more than 64 bits": "00" + "ff" * 9 + "02",
    "order 3": "c00180",
    "more orders than values": "400080",
    "no first value": "4001",
    "no codes": "0001",
    "half of the codes": "000280",
    "no remainders": "080180",
    "a byte more": "00018000",
    "a byte after nothing": "000000",
    "more values than allowed": "000bffe0",
    "2^60 values": "00" + "80" * 8 + "10" + "ff" * 40,
}


@pytest.mark.parametrize("packed", DAMAGED.values(), ids=DAMAGED)
def test_damaged_bytes_are_refused(packed: str) -> None:
    with pytest.raises(RecordError):
        unpack_integers(bytes.fromhex(packed), 10)


@pytest.mark.parametrize("packed", ["", "c4000180", "fe000180", "c0", 7, None, [0] * 11])
def test_damaged_columns_are_refused(packed: Any) -> None:
    with pytest.raises(RecordError):
        unpack_column(bytes.fromhex(packed) if isinstance(packed, str) else packed, 10)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_a_sample_beyond_32_bits_is_refused(value: int) -> None:
    with pytest.raises(RecordError, match="32 bits"):
        unpack_samples(pack_integers(np.array([value], np.int64)))


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_random_bytes_raise_only_record_error(packed: bytes) -> None:
    with contextlib.suppress(RecordError):
        assert len(unpack_column(packed, 1000)) <= 8 * len(packed)
