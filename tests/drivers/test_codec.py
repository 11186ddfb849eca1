"""Cutting payloads: known answers for SFLOAT and dates, bounds for everything."""

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.codec import DateTime, NotANumber, Reader
from drivers.readings import DecodeError

INTEGERS = [("u8", 1), ("u16", 2), ("u24", 3), ("u32", 4), ("u64", 8), ("i8", 1), ("i16", 2), ("i24", 3), ("i32", 4)]


@pytest.mark.parametrize(("name", "size"), INTEGERS)
@given(data=st.data())
def test_integers_are_little_endian_and_leave_the_rest(name: str, size: int, data: st.DataObject) -> None:
    number = data.draw(st.binary(min_size=size, max_size=size))
    after = data.draw(st.binary(max_size=4))
    reader = Reader(number + after)
    value = getattr(reader, name)("field")
    assert value == sum(byte << 8 * i for i, byte in enumerate(number)) - (
        1 << 8 * size if name.startswith("i") and number[-1] & 0x80 else 0
    )
    assert reader.rest() == after
    reader.end()


@pytest.mark.parametrize(("name", "size"), [*INTEGERS, ("sfloat", 2)])
def test_a_short_payload_names_field_place_and_what_is_missing(name: str, size: int) -> None:
    reader = Reader(bytes(4 + size - 1))
    reader.take("head", 4)
    with pytest.raises(DecodeError, match=rf"^pressure at byte 4: needs {size} bytes, the payload ends after {size - 1}$"):
        getattr(reader, name)("pressure")


def test_left_over_bytes_are_refused() -> None:
    reader = Reader(b"\x01\x02\x03")
    reader.u8("flags")
    with pytest.raises(DecodeError, match="end at byte 1: 2 bytes follow"):
        reader.end()


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("7800", 120.0),  # IEEE 11073-20601
        ("7880", 0.0000012),  # what one public library sends for 120: an exponent of -8, and read as what it is
        ("E8F3", 100.0),  # SpeziBluetooth PLXTests.swift:24
        ("84F3", 90.0),  # SpeziBluetooth PLXTests.swift:26
        ("57F0", 8.7),  # SpeziBluetooth PLXTests.swift:41
        ("5AF5", 137.0),  # SpeziBluetooth PLXTests.swift:56
        ("7AE3", 8.9),  # SpeziBluetooth PLXTests.swift:62
        ("FF07", NotANumber.NAN),
        ("0008", NotANumber.NOT_AT_THIS_RESOLUTION),
        ("FE07", NotANumber.PLUS_INFINITY),
        ("0208", NotANumber.MINUS_INFINITY),
        ("0108", NotANumber.RESERVED),
    ],
)
def test_sfloat_known_answers(sent: str, value: float | NotANumber) -> None:
    assert Reader(bytes.fromhex(sent)).sfloat("value") == value


def test_sfloat_is_the_double_nearest_to_its_decimal_for_all_words() -> None:
    special = {member.value for member in NotANumber}
    for word in range(1 << 16):
        if word in special:
            continue
        mantissa = int.from_bytes((word << 4 & 0xFFFF).to_bytes(2, "little"), "little", signed=True) >> 4
        exponent = (word >> 12 ^ 8) - 8
        assert Reader(word.to_bytes(2, "little")).sfloat("value") == float(Decimal(mantissa).scaleb(exponent))


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("EA070B17131E05", DateTime(2026, 11, 23, 19, 30, 5)),
        ("00000000000000", DateTime(None, None, None, 0, 0, 0)),
        ("EA070000173B3B", DateTime(2026, None, None, 23, 59, 59)),
        ("0000021D000000", DateTime(None, 2, 29, 0, 0, 0)),
    ],
)
def test_date_time_keeps_unknown_parts_unknown(sent: str, value: DateTime) -> None:
    assert Reader(bytes.fromhex(sent)).date_time("time stamp") == value


@pytest.mark.parametrize("sent", ["EA07021D000000", "EA070D01000000", "EA070B17180000", "EA070B17003C00", "2D060101000000"])
def test_a_date_that_does_not_exist_is_refused(sent: str) -> None:
    with pytest.raises(DecodeError, match=r"^time stamp at byte 0: .* is no date and time$"):
        Reader(bytes.fromhex(sent)).date_time("time stamp")


def test_text_loses_its_trailing_nuls_only() -> None:
    assert Reader(b"H7\0\0").utf8("model") == "H7"
    assert Reader("\u00b5\0V".encode()).utf8("unit") == "\u00b5\0V"


READS: list[Callable[[Reader], object]] = [
    *(lambda reader, name=name: getattr(reader, name)("x") for name, _ in INTEGERS),
    lambda reader: reader.sfloat("x"),
    lambda reader: reader.date_time("x"),
    lambda reader: reader.utf8("x"),
    lambda reader: reader.end(),
]


@given(payload=st.binary(max_size=40), reads=st.lists(st.sampled_from(READS), max_size=12))
def test_no_sequence_of_reads_leaves_the_payload_or_raises_anything_but_decode_error(
    payload: bytes, reads: list[Callable[[Reader], object]]
) -> None:
    reader = Reader(payload)
    with suppress(DecodeError):
        for read in reads:
            read(reader)
    assert payload.endswith(reader.rest())
    reader.end()
