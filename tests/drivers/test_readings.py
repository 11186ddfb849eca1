"""Values that later stages cannot represent are refused at the drivers' door."""

from typing import Any

import pytest

from drivers.readings import DecodeError, Intervals, Reading, Status, Vital, Waveform, check_reading

NAN: Any = float("nan")


@pytest.mark.parametrize(
    "reading",
    [
        Waveform("ecg", (), 130.0, 0.001),
        Waveform("ecg", (2**31,), 130.0, 0.001),
        Waveform("ecg", (-(2**31) - 1,), 130.0, 0.001),
        Waveform("ecg", (1, NAN), 130.0, 0.001),
        Waveform("ecg", (1,), 0.0, 0.001),
        Waveform("ecg", (1,), -130.0, 0.001),
        Waveform("ecg", (1,), NAN, 0.001),
        Waveform("ecg", (1,), 130.0, NAN),
        Waveform("ecg", (1,), 130.0, 0.001, -1),
        Waveform("ecg", (1,), 130.0, 0.001, 2**62),
        Vital("heart_rate", NAN),
        Status("battery", float("inf")),
        Intervals("rr", (2**16,)),
    ],
)
def test_refuses_a_value_that_later_stages_cannot_represent(reading: Reading) -> None:
    with pytest.raises(DecodeError):
        check_reading(reading)


@pytest.mark.parametrize(
    "reading",
    [
        Waveform("ecg", (2**31 - 1, -(2**31)), 130.0, 0.001, 2**62 - 1),
        Waveform("ecg", (0,), 10_000.0, 0.001, 0),
        Vital("heart_rate", 0.0),
        Status("contact", True),
        Status("model", "H10"),
        Intervals("rr", (0, 2**16 - 1)),
    ],
)
def test_accepts_the_largest_values(reading: Reading) -> None:
    check_reading(reading)
