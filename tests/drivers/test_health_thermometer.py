"""Temperatures: both units, values that are no numbers, values before the final one, and the site."""

import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.date_time import ClockConversation
from drivers.device import DeviceInformation
from drivers.health_thermometer import DRIVER, decode_intermediate, decode_measurement
from drivers.readings import DecodeError, Status, Vital

SPECIAL = (0x007FFFFF, 0x00800000, 0x007FFFFE, 0x00800002, 0x00800001)
"""FLOAT words that are not numbers: IEEE 11073-20601, annex F.6."""


def encode(flags: int, mantissa: int, exponent: int, rest: bytes = b"") -> bytes:
    return bytes((flags,)) + mantissa.to_bytes(3, "little", signed=True) + exponent.to_bytes(1, "little", signed=True) + rest


@given(hundredths=st.integers(1100, 4700), site=st.integers(0, 255), hour=st.integers(0, 23))
def test_fields_are_read_in_the_order_of_the_specification(hundredths: int, site: int, hour: int) -> None:
    time = struct.pack("<H5B", 2025, 5, 20, hour, 30, 0)
    readings = decode_measurement(encode(0x06, hundredths, -2, time + bytes((site,))))
    result = readings[0]
    assert isinstance(result, Vital)
    assert (result.kind, result.value, result.flags) == ("temperature", hundredths / 100, ())
    assert result.origin is not None
    assert result.origin.measured is not None
    assert result.origin.measured.isoformat() == f"2025-05-20T{hour:02}:30:00"
    assert [(r.kind, r.origin) for r in readings[1:] if isinstance(r, Status)] == [("temperature_site", result.origin)] * (
        1 <= site <= 9
    )
    assert len(readings) == (2 if 1 <= site <= 9 else 1)


@given(tenths=st.integers(520, 1160))
def test_fahrenheit_is_converted_to_hundredths_of_a_degree(tenths: int) -> None:
    (reading,) = decode_measurement(encode(0x01, tenths, -1))
    assert isinstance(reading, Vital)
    exact = (Decimal(tenths) / 10 - 32) * 5 / 9
    assert abs(Decimal(reading.value) - exact) <= Decimal("0.0050001")
    assert reading.value == round(reading.value, 2)
    assert reading.flags == ("sent_in_fahrenheit",)


@pytest.mark.parametrize("word", SPECIAL)
@pytest.mark.parametrize("flags", [0x00, 0x01])
def test_a_special_value_is_a_failed_measurement_and_no_intermediate_value(word: int, flags: int) -> None:
    payload = bytes((flags,)) + word.to_bytes(4, "little")
    (status,) = decode_measurement(payload)
    assert isinstance(status, Status)
    assert (status.kind, status.value) == ("failed_measurement", "temperature")
    assert decode_intermediate(payload) == ()


@pytest.mark.parametrize(
    ("tenths", "flags"), [(109, ("implausible",)), (110, ()), (470, ()), (471, ("implausible",)), (-365, ("implausible",))]
)
def test_a_temperature_that_nobody_survives_keeps_its_number_and_is_flagged(tenths: int, flags: tuple[str, ...]) -> None:
    (final,) = decode_measurement(encode(0x00, tenths, -1))
    assert isinstance(final, Vital)
    assert (final.value, final.flags) == (tenths / 10, flags)
    assert decode_intermediate(encode(0x00, tenths, -1)) == (Vital("temperature_intermediate", tenths / 10, flags),)


@pytest.mark.parametrize("bit", range(3, 8))
def test_a_reserved_flag_changes_nothing_but_is_kept(bit: int) -> None:
    (reading,) = decode_measurement(encode(1 << bit, 365, -1))
    assert isinstance(reading, Vital)
    assert (reading.kind, reading.value, reading.flags) == ("temperature", 36.5, ("reserved_flags",))


@given(payload=st.binary(max_size=14))
def test_an_intermediate_value_is_never_a_result(payload: bytes) -> None:
    try:
        readings = decode_intermediate(payload)
    except DecodeError:
        return
    kinds = {"temperature_intermediate", "temperature_intermediate_details"}
    assert all(isinstance(reading, Vital | Status) and reading.origin is None and reading.kind in kinds for reading in readings)


def test_a_thermometer_of_a_and_d_is_bonded_first_and_its_clock_is_set() -> None:
    device = DeviceInformation(name="A&D_UT201BLE_A1B2C3")
    assert any(quirk.bonds_first for quirk in DRIVER.quirks if quirk.applies_to(device))
    assert DRIVER.converse is ClockConversation
