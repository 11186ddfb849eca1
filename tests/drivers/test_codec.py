"""Reading payload fields: known answers for SFLOAT and dates, bounds checks for all fields."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.codec import DateTime, MeasuredTime, Reader, SpecialValue
from drivers.readings import DecodeError

INTEGERS = [("u8", 1), ("u16", 2), ("u24", 3), ("u32", 4), ("u64", 8), ("i8", 1), ("i16", 2), ("i24", 3), ("i32", 4)]


@pytest.mark.parametrize(("name", "size"), INTEGERS)
@given(data=st.data())
def test_integers_are_little_endian_and_leave_the_rest_unread(name: str, size: int, data: st.DataObject) -> None:
    number = data.draw(st.binary(min_size=size, max_size=size))
    after = data.draw(st.binary(max_size=4))
    reader = Reader(number + after)
    value = getattr(reader, name)("field")
    assert value == sum(byte << 8 * i for i, byte in enumerate(number)) - (
        1 << 8 * size if name.startswith("i") and number[-1] & 0x80 else 0
    )
    assert reader.read_rest() == after
    reader.expect_end()


@pytest.mark.parametrize(("name", "size"), [*INTEGERS, ("sfloat", 2), ("float32", 4), ("measured_time", 7)])
def test_error_for_a_short_payload_names_field_offset_and_sizes(name: str, size: int) -> None:
    reader = Reader(bytes(4 + size - 1))
    reader.read_bytes("head", 4)
    with pytest.raises(DecodeError, match=rf"^pressure at byte 4: needs {size} bytes, the payload ends after {size - 1}$"):
        getattr(reader, name)("pressure")


def test_rejects_bytes_after_the_last_field() -> None:
    reader = Reader(b"\x01\x02\x03")
    reader.u8("flags")
    with pytest.raises(DecodeError, match="end at byte 1: 2 bytes follow"):
        reader.expect_end()


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("7800", 120.0),  # IEEE 11073-20601
        ("7880", 0.0000012),  # what one public library sends for 120; its exponent of -8 is decoded as sent
        ("E8F3", 100.0),  # SpeziBluetooth PLXTests.swift:24
        ("84F3", 90.0),  # SpeziBluetooth PLXTests.swift:26
        ("57F0", 8.7),  # SpeziBluetooth PLXTests.swift:41
        ("5AF5", 137.0),  # SpeziBluetooth PLXTests.swift:56
        ("7AE3", 8.9),  # SpeziBluetooth PLXTests.swift:62
        ("FF07", SpecialValue.NAN),
        ("0008", SpecialValue.NOT_AT_THIS_RESOLUTION),
        ("FE07", SpecialValue.PLUS_INFINITY),
        ("0208", SpecialValue.MINUS_INFINITY),
        ("0108", SpecialValue.RESERVED),
    ],
)
def test_sfloat_known_answers(sent: str, value: float | SpecialValue) -> None:
    assert Reader(bytes.fromhex(sent)).sfloat("value") == value


def test_every_sfloat_is_the_double_nearest_to_its_decimal_value() -> None:
    special = {0x07FE, 0x07FF, 0x0800, 0x0801, 0x0802}
    for word in range(1 << 16):
        if word in special:
            continue
        mantissa = int.from_bytes((word << 4 & 0xFFFF).to_bytes(2, "little"), "little", signed=True) >> 4
        exponent = (word >> 12 ^ 8) - 8
        assert Reader(word.to_bytes(2, "little")).sfloat("value") == float(Decimal(mantissa).scaleb(exponent))


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("680100FF", 36.0),  # a fever thermometer, stackoverflow.com/questions/54834439
        ("1C0F00FE", 38.68),  # Nordic's demonstration, b4x.com/android/forum/threads/64232
        ("93FEFFFF", -36.5),
        ("01000080", 1e-128),
        ("FDFF7F7F", 8388605e127),
        ("0300807F", -8388605e127),
        ("FFFF7FFF", 838860.7),  # a special mantissa with another exponent is a number
        ("FFFF7F00", SpecialValue.NAN),
        ("00008000", SpecialValue.NOT_AT_THIS_RESOLUTION),
        ("FEFF7F00", SpecialValue.PLUS_INFINITY),
        ("02008000", SpecialValue.MINUS_INFINITY),
        ("01008000", SpecialValue.RESERVED),
    ],
)
def test_float_known_answers(sent: str, value: float | SpecialValue) -> None:
    assert Reader(bytes.fromhex(sent)).float32("value") == value


@given(mantissa=st.integers(-(2**23) + 3, 2**23 - 3), exponent=st.integers(-128, 127))
def test_every_float_is_the_double_nearest_to_its_decimal_value(mantissa: int, exponent: int) -> None:
    sent = mantissa.to_bytes(3, "little", signed=True) + exponent.to_bytes(1, "little", signed=True)
    assert Reader(sent).float32("value") == float(Decimal(mantissa).scaleb(exponent))


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("EA070B17131E05", DateTime(2026, 11, 23, 19, 30, 5)),
        ("00000000000000", DateTime(None, None, None, 0, 0, 0)),
        ("EA070000173B3B", DateTime(2026, None, None, 23, 59, 59)),
        ("0000021D000000", DateTime(None, 2, 29, 0, 0, 0)),
    ],
)
def test_unknown_parts_of_a_date_are_none(sent: str, value: DateTime) -> None:
    assert Reader(bytes.fromhex(sent)).date_time("time stamp") == value


@pytest.mark.parametrize("sent", ["EA07021D000000", "EA070D01000000", "EA070B17180000", "EA070B17003C00", "2D060101000000"])
def test_rejects_a_date_that_does_not_exist(sent: str) -> None:
    with pytest.raises(DecodeError, match=r"^time stamp at byte 0: .* is not a valid date and time$"):
        Reader(bytes.fromhex(sent)).date_time("time stamp")


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("EA070B17131E05", MeasuredTime(datetime.fromisoformat("2026-11-23 19:30:05"), "set")),
        ("D107010100000A", MeasuredTime(datetime.fromisoformat("2001-01-01 00:00:10"), "set")),
        ("D0070C1F173B3B", MeasuredTime(datetime.fromisoformat("2000-12-31 23:59:59"), "not_set")),
        ("B2070101000500", MeasuredTime(datetime.fromisoformat("1970-01-01 00:05:00"), "not_set")),
        ("000000000D0C0C", MeasuredTime(None, "unknown")),
        ("00000000000000", MeasuredTime(None, "unknown")),
        ("E907000F081E00", MeasuredTime(None, "unknown")),
        ("E9070500081E00", MeasuredTime(None, "unknown")),
        ("E9070D0F081E00", MeasuredTime(None, "invalid")),
        ("E907021D081E00", MeasuredTime(None, "invalid")),
        ("00000000180000", MeasuredTime(None, "invalid")),
        ("FFFFFFFFFFFFFF", MeasuredTime(None, "invalid")),
    ],
)
def test_time_of_a_measurement_tells_an_unset_an_unknown_and_an_invalid_clock_apart(sent: str, value: MeasuredTime) -> None:
    reader = Reader(bytes.fromhex(sent) + b"after")
    assert reader.measured_time("time stamp") == value
    assert reader.read_rest() == b"after"


def test_text_ends_at_the_first_nul() -> None:
    assert Reader(b"H7\0\0").utf8("model") == "H7"
    assert Reader("\u00b5\0".encode() + b"\xff\xfeold").utf8("unit") == "\u00b5"
    assert Reader(b"\0H7").utf8("model") == ""


READS: list[Callable[[Reader], object]] = [
    *(lambda reader, name=name: getattr(reader, name)("x") for name, _ in INTEGERS),
    lambda reader: reader.sfloat("x"),
    lambda reader: reader.float32("x"),
    lambda reader: reader.date_time("x"),
    lambda reader: reader.measured_time("x"),
    lambda reader: reader.utf8("x"),
    lambda reader: reader.expect_end(),
]


@given(payload=st.binary(max_size=40), reads=st.lists(st.sampled_from(READS), max_size=12))
def test_any_sequence_of_reads_stays_within_the_payload_and_raises_only_decode_error(
    payload: bytes, reads: list[Callable[[Reader], object]]
) -> None:
    reader = Reader(payload)
    with suppress(DecodeError):
        for read in reads:
            read(reader)
    assert payload.endswith(reader.read_rest())
    reader.expect_end()
