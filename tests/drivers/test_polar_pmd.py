"""The PMD control point: the requests, and the checks of its responses."""

import pytest

from drivers.polar_pmd import CONTROL_POINT, DRIVER
from drivers.readings import DecodeError
from drivers.spec import SetupRefusedError, Write

(START,) = DRIVER.setup
(STOP,) = DRIVER.teardown


def check(write: Write, response: str) -> None:
    """Pass a response, in hexadecimal, to the check of `write`."""
    assert write.expect is not None
    write.expect(bytes.fromhex(response))


def test_requests_start_the_ecg_at_130_hz_and_14_bits_and_stop_it() -> None:
    # The request that every public H10 client writes, with 2-byte settings: 0x0082 Hz, 0x000E bits.
    assert START.payload == bytes.fromhex("02 00 00 01 82 00 01 01 0E 00")
    assert STOP.payload == bytes.fromhex("03 00")
    assert DRIVER.control_points == (CONTROL_POINT,)


@pytest.mark.parametrize("response", ["F002000000", "F0020000", "F00200000001FF", "F002000600", "F0020006"])
def test_start_succeeds_also_where_the_ecg_already_runs(response: str) -> None:
    check(START, response)


@pytest.mark.parametrize("response", ["F003000000", "F003000600"])
def test_stop_succeeds_also_where_the_ecg_is_already_stopped(response: str) -> None:
    check(STOP, response)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("01", "does not know this request"),
        ("03", "does not support this measurement"),
        ("08", "does not offer this sample rate"),
        ("0A", "MTU is too small"),
        ("0D", "in its charger"),
        ("0E", "memory is full"),
        ("0F", "does not publish the meaning of this code"),
        ("FF", "does not publish the meaning of this code"),
    ],
)
def test_refusal_names_the_request_and_the_reason(status: str, reason: str) -> None:
    with pytest.raises(
        SetupRefusedError, match=rf"^the sensor refuses to start its ECG: .*{reason}.* \(status {int(status, 16)}\)$"
    ):
        check(START, f"F00200{status}00")


@pytest.mark.parametrize(
    "response",
    [
        "F00102000000FFFFFF",  # settings of the accelerometer: polar-ble-sdk BlePmdClientControlPointResponseTest.kt
        "F001060700",  # a failure for the magnetometer, same source
        "F003000000",  # the response to a stop
        "0100",  # the strap reports that it stopped measuring
        "0F05000000000000000000000000000000",  # the feature bits: polar-ble-sdk issue 281
        "F002",
        "F00200",
        "",
    ],
)
def test_rejects_a_payload_that_does_not_answer_the_start_request(response: str) -> None:
    with pytest.raises(DecodeError):
        check(START, response)
