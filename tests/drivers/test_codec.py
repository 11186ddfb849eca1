"""Reading payload fields: known answers for SFLOAT and dates, bounds checks for all fields."""

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.codec import DateTime, Reader, SfloatSpecial
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


@pytest.mark.parametrize(("name", "size"), [*INTEGERS, ("sfloat", 2)])
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
        ("FF07", SfloatSpecial.NAN),
        ("0008", SfloatSpecial.NOT_AT_THIS_RESOLUTION),
        ("FE07", SfloatSpecial.PLUS_INFINITY),
        ("0208", SfloatSpecial.MINUS_INFINITY),
        ("0108", SfloatSpecial.RESERVED),
    ],
)
def test_sfloat_known_answers(sent: str, value: float | SfloatSpecial) -> None:
    assert Reader(bytes.fromhex(sent)).sfloat("value") == value


def test_every_sfloat_is_the_double_nearest_to_its_decimal_value() -> None:
    special = {member.value for member in SfloatSpecial}
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
def test_unknown_parts_of_a_date_are_none(sent: str, value: DateTime) -> None:
    assert Reader(bytes.fromhex(sent)).date_time("time stamp") == value


@pytest.mark.parametrize("sent", ["EA07021D000000", "EA070D01000000", "EA070B17180000", "EA070B17003C00", "2D060101000000"])
def test_rejects_a_date_that_does_not_exist(sent: str) -> None:
    with pytest.raises(DecodeError, match=r"^time stamp at byte 0: .* is not a valid date and time$"):
        Reader(bytes.fromhex(sent)).date_time("time stamp")


def test_text_ends_at_the_first_nul() -> None:
    assert Reader(b"H7\0\0").utf8("model") == "H7"
    assert Reader("\u00b5\0".encode() + b"\xff\xfeold").utf8("unit") == "\u00b5"
    assert Reader(b"\0H7").utf8("model") == ""


READS: list[Callable[[Reader], object]] = [
    *(lambda reader, name=name: getattr(reader, name)("x") for name, _ in INTEGERS),
    lambda reader: reader.sfloat("x"),
    lambda reader: reader.date_time("x"),
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
