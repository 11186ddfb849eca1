"""Control point and frames, byte for byte as in Polar's specification."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulate import pmd

START_ECG = "02 00 00 01 82 00 01 01 0e 00"
"""Polar's own example: start ECG, sample rate 130 Hz, resolution 14 bits."""


def running(streaming: bool) -> frozenset[int]:
    return frozenset({pmd.ECG}) if streaming else frozenset()


@pytest.mark.parametrize(
    ("request_hex", "streaming", "response_hex", "streaming_after"),
    [
        ("01 00", False, "f0 01 00 00 00 00 01 82 00 01 01 0e 00", False),
        ("01 00", True, "f0 01 00 00 00 00 01 82 00 01 01 0e 00", True),
        (START_ECG, False, "f0 02 00 00 00", True),
        ("02 00 01 01 0e 00 00 01 82 00", False, "f0 02 00 00 00", True),
        (START_ECG, True, "f0 02 00 06", True),
        ("03 00", True, "f0 03 00 00 00", False),
        ("03 00", False, "f0 03 00 06", False),
        ("", False, "f0 00 00 04", False),
        ("02", True, "f0 02 00 04", True),
        ("07 00", True, "f0 07 00 01", True),
        ("02 04 00 01 82 00", False, "f0 02 04 02", False),
        ("02 01 00 01 82 00", False, "f0 02 01 03", False),
        ("02 02 00 01 82 00", False, "f0 02 02 04", False),
        ("01 02", True, "f0 01 02 00 00 00 04 19 00 32 00 64 00 c8 00 01 01 10 00 02 03 02 00 04 00 08 00", True),
        ("02 02 00 01 1a 00 01 01 10 00 02 01 04 00", True, "f0 02 02 08", True),
        ("02 02 00 01 19 00 01 01 10 00 02 01 10 00", True, "f0 02 02 09", True),
        ("02 00", False, "f0 02 00 04", False),
        ("02 00 00 01 82 00 01 01 0e", False, "f0 02 00 04", False),
        ("03 00 00", True, "f0 03 00 04", True),
        ("02 00 00 01 82 00 02 01 0e 00", False, "f0 02 00 05", False),
        ("02 00 00 01 82 00 00 01 82 00", False, "f0 02 00 05", False),
        ("02 00 00 02 82 00 01 01 0e 00", False, "f0 02 00 05", False),
        ("02 00 00 01 82 00 01 01 10 00", False, "f0 02 00 07", False),
        ("02 00 00 01 c8 00 01 01 0e 00", False, "f0 02 00 08", False),
    ],
)
def test_the_control_point_responds(request_hex: str, streaming: bool, response_hex: str, streaming_after: bool) -> None:
    response = pmd.handle_request(bytes.fromhex(request_hex), pmd.H10, running(streaming))
    assert response == pmd.ControlResponse(bytes.fromhex(response_hex), running(streaming_after))


@given(st.binary(max_size=20), st.booleans())
def test_any_request_gets_a_response_and_only_success_changes_the_state(request: bytes, streaming: bool) -> None:
    response = pmd.handle_request(request, pmd.H10, running(streaming))
    assert response.indication[0] == 0xF0
    assert response.indication[3] <= 9
    assert response.indication[3] == 0 or response.running == running(streaming)


def test_a_frame_is_type_time_frame_type_and_three_bytes_per_sample() -> None:
    frame = pmd.encode_frame(0x0102030405060708, np.array([1, -1, 8_388_607, -8_388_608, -150], np.int32))
    assert frame.hex(" ") == "00 08 07 06 05 04 03 02 01 00 01 00 00 ff ff ff ff ff 7f 00 00 80 6a ff ff"


def test_the_acceleration_is_started_beside_the_ecg_by_the_settings_in_any_order() -> None:
    """The bytes of polar-ble-sdk issues/360, and the answer of Polar's specification, which ends with a reserved byte."""
    request = bytes.fromhex("02 02 02 01 08 00 00 01 c8 00 01 01 10 00")
    response = pmd.handle_request(request, pmd.H10, running(True))
    assert response == pmd.ControlResponse(bytes.fromhex("f0 02 02 00 00 01"), frozenset({pmd.ECG, pmd.ACCELERATION}))
    assert (pmd.setting_of(request, pmd.SAMPLE_RATE), pmd.setting_of(request, pmd.RANGE)) == (200, 8)


def test_a_frame_of_the_acceleration_is_that_of_polars_own_test() -> None:
    """AccDataTest.kt, raw type 1: the first two samples."""
    frame = pmd.encode_acceleration(2_000_000_000, np.array([[-9, -1, 999], [-8, -2, 997]]))
    assert frame.hex().upper() == "02009435770000000001F7FFFFFFE703F8FFFEFFE503"


@pytest.mark.parametrize(("mtu", "samples"), [(23, 3), (100, 29), (231, 72), (232, 73), (517, 73)])
def test_a_frame_fills_the_mtu_up_to_73_samples(mtu: int, samples: int) -> None:
    assert pmd.samples_per_frame(mtu) == samples
    assert len(pmd.encode_frame(0, np.zeros(samples, np.int32))) <= mtu - 3
