"""The heart rate decoder compared with Bumble's independent one, and the filler constant."""

import pytest
from bumble.profiles.heart_rate_service import HeartRateService
from hypothesis import given
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from drivers.device import DeviceInformation
from drivers.heart_rate import DRIVER, decode_measurement
from drivers.readings import TICKS_PER_SECOND, DecodeError, Intervals, Reading, Status, Vital
from drivers.registry import build_registry
from drivers.spec import uuid16
from models.rules.vitals import VitalRules

frames = st.binary(min_size=2, max_size=24)


def intervals_of(readings: tuple[Reading, ...]) -> list[int]:
    return [tick for reading in readings if isinstance(reading, Intervals) for tick in reading.ticks]


def flags_of(frame: str) -> tuple[str, ...]:
    rate = decode_measurement(bytes.fromhex(frame))[0]
    assert isinstance(rate, Vital)
    return rate.flags


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
    assert [t / TICKS_PER_SECOND for t in intervals_of(readings)] == list(theirs.rr_intervals or ())


@given(
    rate=st.integers(1, 250),
    contact=st.none() | st.just(True),
    energy=st.none() | st.integers(0, 0xFFFF),
    ticks=st.lists(st.integers(205, 4096), min_size=1, max_size=9).filter(lambda ticks: set(ticks) != {512}),
)
def test_decodes_frames_that_bumble_encodes(rate: int, contact: bool | None, energy: int | None, ticks: list[int]) -> None:
    sent = HeartRateService.HeartRateMeasurement(rate, contact, energy, [t / TICKS_PER_SECOND for t in ticks])
    readings = decode_measurement(bytes(sent))
    assert readings[0] == Vital("heart_rate", rate)
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


@pytest.mark.parametrize(
    ("frame", "flags"),
    [
        ("00FA", ()),  # 250/min
        ("00FF", ("implausible",)),
        ("01FFFF", ("implausible",)),
        ("0000", ("no_pulse_found",)),
        ("0448", ("no_contact",)),  # supported and lost
        ("0648", ()),  # supported and there
        ("0248", ()),  # "detected" without "supported" means nothing
        ("1048", ("rr_flag_without_interval",)),
        ("164820030000", ("zero_interval",)),
        ("14FF0000", ("implausible", "no_contact", "zero_interval")),
    ],
)
def test_flags_of_the_rate(frame: str, flags: tuple[str, ...]) -> None:
    assert flags_of(frame) == flags


@pytest.mark.parametrize(
    ("ticks", "kinds"),
    [
        ((800, 0), [("rr", (800,)), ("rr_padding", (0,))]),
        ((1069, 53), [("rr", (1069,)), ("rr_implausible", (53,))]),  # a Garmin strap lost an octet
        ((65535, 32895), [("rr_implausible", (65535, 32895))]),
        ((204, 205, 4096, 4097), [("rr_implausible", (204,)), ("rr", (205, 4096)), ("rr_implausible", (4097,))]),
        ((800, 0, 0, 810, 820), [("rr", (800,)), ("rr_padding", (0, 0)), ("rr", (810, 820))]),
    ],
)
def test_padding_and_implausible_intervals_keep_their_place_and_are_not_beats(
    ticks: tuple[int, ...], kinds: list[tuple[str, tuple[int, ...]]]
) -> None:
    frame = bytes.fromhex("1048") + b"".join(tick.to_bytes(2, "little") for tick in ticks)
    assert list(decode_measurement(frame)[1:]) == [Intervals(kind, run) for kind, run in kinds]


@given(frame=frames)
def test_every_interval_that_is_sent_appears_once_in_order(frame: bytes) -> None:
    try:
        readings = decode_measurement(bytes((frame[0] | 0x10,)) + frame[1:])
    except DecodeError:
        return
    start = 2 + (frame[0] & 1) + 2 * (frame[0] >> 3 & 1)
    sent = [int.from_bytes(frame[i : i + 2], "little") for i in range(start, len(frame), 2)]
    assert intervals_of(readings) == sent


@pytest.mark.parametrize("odd_octet", range(256))
def test_half_an_interval_is_refused_whatever_it_would_mean(odd_octet: int) -> None:
    with pytest.raises(DecodeError, match="R-R intervals: 3 bytes"):
        decode_measurement(bytes.fromhex("103EB103") + bytes((odd_octet,)))


@pytest.mark.parametrize(
    ("model", "ticks"), [("WHOOP 5.0", (616, 628)), ("WHOOP 4.0", (602, 613)), ("WHOOP 50", (602, 613)), ("H10", (602, 613))]
)
def test_one_model_sends_milliseconds(model: str, ticks: tuple[int, ...]) -> None:
    readings = build_registry([DRIVER]).decode(uuid16(0x2A37), bytes.fromhex("10665A026502"), DeviceInformation(name=model))
    assert readings == (Vital("heart_rate", 102), Intervals("rr", ticks))


@pytest.mark.parametrize("frame", ["01FFFF", "00FF", "0000", "0448", "01C800"])
def test_no_rule_reports_the_rate_of_a_heart_rate_sensor(frame: str) -> None:
    """The rules on the rate need the beats of an ECG."""
    rate = decode_measurement(bytes.fromhex(frame))[0]
    assert isinstance(rate, Vital)
    rules = VitalRules(DEFAULT_LIMITS)
    assert [
        finding for second in range(60) for finding in rules.feed(rate.kind, rate.value, second * 1_000_000, rate.flags)
    ] == []
