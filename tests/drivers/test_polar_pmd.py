"""PMD's control point: what is written, and how its answers are read."""

import pytest

from drivers.polar_pmd import CONTROL_POINT, DRIVER
from drivers.readings import DecodeError
from drivers.spec import SetupRefusedError, Write

(START,) = DRIVER.setup
(STOP,) = DRIVER.teardown


def check(write: Write, answer: str) -> bool:
    """True where the answer is the awaited one and good."""
    assert write.expect is not None
    write.expect(bytes.fromhex(answer))
    return True


def test_the_ecg_is_started_at_130_hz_and_14_bits_and_stopped() -> None:
    # The request that every public H10 client writes; settings of two bytes: 0x0082 Hz, 0x000E bits.
    assert START.payload == bytes.fromhex("02 00 00 01 82 00 01 01 0E 00")
    assert STOP.payload == bytes.fromhex("03 00")
    assert DRIVER.control_points == (CONTROL_POINT,)


@pytest.mark.parametrize("answer", ["F002000000", "F0020000", "F00200000001FF", "F002000600", "F0020006"])
def test_success_and_already_streaming_are_what_was_wanted(answer: str) -> None:
    assert check(START, answer)


@pytest.mark.parametrize("answer", ["F003000000", "F003000600"])
def test_stopped_and_already_stopped_too(answer: str) -> None:
    assert check(STOP, answer)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("01", "does not know this request"),
        ("03", "does not support this measurement"),
        ("08", "does not offer this sample rate"),
        ("0A", "MTU is too small"),
        ("0D", "in its charger"),
        ("0E", "memory is full"),
        ("0F", "its code is not published"),
        ("FF", "its code is not published"),
    ],
)
def test_a_refusal_says_what_was_refused_and_why(status: str, reason: str) -> None:
    with pytest.raises(
        SetupRefusedError, match=rf"^the sensor refuses to start its ECG: .*{reason}.* \(status {int(status, 16)}\)$"
    ):
        check(START, f"F00200{status}00")


@pytest.mark.parametrize(
    "answer",
    [
        "F00102000000FFFFFF",  # settings of the accelerometer: polar-ble-sdk BlePmdClientControlPointResponseTest.kt
        "F001060700",  # a failure for the magnetometer, from the same
        "F003000000",  # the answer to a stop
        "0100",  # the strap tells that it stopped measuring
        "0F05000000000000000000000000000000",  # the feature bits: polar-ble-sdk issue 281
        "F002",
        "F00200",
        "",
    ],
)
def test_what_does_not_answer_the_start_is_not_taken_for_it(answer: str) -> None:
    with pytest.raises(DecodeError):
        check(START, answer)
