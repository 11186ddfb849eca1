"""The heart rate decoder compared with Bumble's independent one, and the filler constant."""

import pytest
from bumble.profiles.heart_rate_service import HeartRateService
from hypothesis import given
from hypothesis import strategies as st

from drivers.heart_rate import decode_measurement
from drivers.readings import TICKS_PER_SECOND, DecodeError, Intervals, Status, Vital

frames = st.binary(min_size=2, max_size=24)


@given(frame=frames)
def test_bumble_decodes_every_accepted_frame_to_the_same_values(frame: bytes) -> None:
    try:
        readings = decode_measurement(frame)
    except DecodeError:
        return
    theirs = HeartRateService.HeartRateMeasurement.from_bytes(frame)
    values = {reading.kind: reading.value for reading in readings if isinstance(reading, Vital | Status)}
    assert values["heart_rate"] == theirs.heart_rate
    assert values.get("skin_contact") == theirs.sensor_contact_detected
    assert values.get("energy") == theirs.energy_expended
    ticks = next((reading.ticks for reading in readings if isinstance(reading, Intervals)), ())
    assert [t / TICKS_PER_SECOND for t in ticks] == list(theirs.rr_intervals or ())


@given(
    rate=st.integers(0, 0xFFFF),
    contact=st.none() | st.booleans(),
    energy=st.none() | st.integers(0, 0xFFFF),
    ticks=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=9).filter(lambda ticks: set(ticks) != {512}),
)
def test_decodes_frames_that_bumble_encodes(rate: int, contact: bool | None, energy: int | None, ticks: list[int]) -> None:
    sent = HeartRateService.HeartRateMeasurement(rate, contact, energy, [t / TICKS_PER_SECOND for t in ticks])
    readings = decode_measurement(bytes(sent))
    assert readings[0] == Vital("heart_rate", rate, () if rate else ("no_pulse_found",))
    assert (contact is None) or Status("skin_contact", contact) in readings
    assert (energy is None) or Vital("energy", energy) in readings
    assert readings[-1] == Intervals("rr", tuple(ticks))


@pytest.mark.parametrize(
    ("frame", "kind", "flags"),
    [
        ("104800020002", "rr_filler", ("rr_filler",)),  # 72/min, but 500 ms twice
        ("10480002", "rr", ("rr_filler",)),  # only once: may be a premature beat
        ("10000002", "rr_filler", ("no_pulse_found", "rr_filler")),  # without a pulse it cannot be a beat
        ("100000020002", "rr_filler", ("no_pulse_found", "rr_filler")),
        ("107800020002", "rr", ()),  # 500 ms fits 120/min
        ("104800020102", "rr", ()),  # not constant
    ],
)
def test_500_ms_intervals_are_filler_unless_they_may_be_beats(frame: str, kind: str, flags: tuple[str, ...]) -> None:
    readings = decode_measurement(bytes.fromhex(frame))
    rate, intervals = readings
    assert isinstance(rate, Vital)
    assert rate.flags == flags
    assert isinstance(intervals, Intervals)
    assert intervals.kind == kind


def test_keeps_all_intervals_of_a_frame_with_a_larger_mtu() -> None:
    frame = bytes.fromhex("1048") + b"".join((800 + i).to_bytes(2, "little") for i in range(20))
    assert decode_measurement(frame)[-1] == Intervals("rr", tuple(range(800, 820)))
