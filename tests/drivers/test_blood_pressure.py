"""Blood pressure: fields against their layout, byte-swapped models, bursts, and stored results in segments."""

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.blood_pressure import CUFF_PRESSURE, DRIVER, FEATURE, MEASUREMENT, RECORD, decode_cuff_pressure, decode_measurement
from drivers.conversation import Context, Moment, Read, Write
from drivers.date_time import DATE_TIME
from drivers.decoding import ServiceDecoder
from drivers.device import DeviceInformation
from drivers.readings import DecodeError, Quarantined, Reading, Status, Vital

SPECIAL = (0x07FF, 0x0800, 0x07FE, 0x0802, 0x0801)
"""SFLOAT words that are not numbers: IEEE 11073-20601, annex F.7."""
PRESSURES = ("systolic", "diastolic", "mean_pressure")
STATUS_NAMES = {
    0x01: "body_movement",
    0x02: "cuff_too_loose",
    0x04: "irregular_pulse",
    0x08: "pulse_above_range",
    0x10: "pulse_below_range",
    0x20: "improper_position",
}
"""Measurement Status: GATT Specification Supplement. Bits 3 and 4 together are reserved."""


@dataclass(frozen=True)
class Sent:
    """The fields of a measurement as whole numbers, which are their own SFLOAT words up to 2045."""

    systolic: int
    diastolic: int
    mean: int
    time: tuple[int, int, int, int, int, int]
    pulse: int
    user: int
    status: int

    def encode(self) -> bytes:
        return struct.pack(
            "<B3HH5BHBH", 0x1E, self.systolic, self.diastolic, self.mean, *self.time, self.pulse, self.user, self.status
        )

    def encode_byte_swapped(self) -> bytes:
        """The layout of the BM85: flags 0x56, pulse rate and status with the high octet first."""
        head = struct.pack("<B3HH5B", 0x56, self.systolic, self.diastolic, self.mean, *self.time)
        return head + struct.pack(">HBH", self.pulse, self.user, self.status)


times = st.tuples(
    st.integers(2001, 2099), st.integers(1, 12), st.integers(1, 28), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59)
)
results = st.builds(
    Sent,
    systolic=st.integers(101, 300),
    diastolic=st.integers(20, 100),
    mean=st.integers(20, 300),
    time=times,
    pulse=st.integers(20, 300),
    user=st.integers(0, 254),
    status=st.integers(0, 0x07),
)


def vitals(readings: Sequence[object]) -> dict[str, float]:
    return {reading.kind: reading.value for reading in readings if isinstance(reading, Vital)}


def named(kind: str, readings: Sequence[object]) -> list[object]:
    return [reading.value for reading in readings if isinstance(reading, Status) and reading.kind == kind]


def service(model: str = "", name: str = "") -> ServiceDecoder:
    return ServiceDecoder(DRIVER, Context(DeviceInformation(model=model, name=name)))


@given(sent=results)
def test_fields_are_read_in_the_order_of_the_specification(sent: Sent) -> None:
    readings = decode_measurement(sent.encode())
    assert vitals(readings) == {
        "systolic": sent.systolic,
        "diastolic": sent.diastolic,
        "mean_pressure": sent.mean,
        "pulse_rate_cuff": sent.pulse,
    }
    origins = {reading.origin for reading in readings if isinstance(reading, Vital | Status)}
    assert len(origins) == 1, "the readings of one result have one origin"
    origin = origins.pop()
    assert origin is not None
    assert origin.measured is not None
    assert (*origin.measured.timetuple()[:6], origin.user) == (*sent.time, sent.user)
    assert (origin.clock, origin.record, origin.is_stored) == ("set", None, False)


@given(status=st.integers(0, 0xFFFF))
def test_every_status_bit_has_one_name_and_reserved_bits_are_kept(status: int) -> None:
    readings = decode_measurement(bytes.fromhex("10780050005D00") + status.to_bytes(2, "little"))
    names = {name for bit, name in STATUS_NAMES.items() if status & bit}
    if status & 0x18 == 0x18:
        names = names - {"pulse_above_range", "pulse_below_range"} | {"pulse_range_reserved"}
    if status > 0x3F:
        names.add("reserved_bits")
    assert [sorted(reading.flags) for reading in readings if isinstance(reading, Vital)] == [sorted(names)] * 3
    assert named("blood_pressure_status", readings) == ([status] if status > 0x3F else [])
    failed = decode_measurement(bytes.fromhex("10FF07FF07FF07") + status.to_bytes(2, "little"))
    reasons = [sorted(str(value).split(", ")) for value in named("cuff_status", failed)]
    assert reasons == ([sorted(names)] if names else []), "a failed measurement says why"


@pytest.mark.parametrize("high", range(8))
def test_reserved_flag_bits_change_no_field_and_are_kept(high: int) -> None:
    flags = high << 5 | 0x1E
    plain = Sent(120, 80, 93, (2025, 5, 20, 8, 30, 0), 72, 1, 0).encode()
    readings = decode_measurement(bytes((flags,)) + plain[1:])
    assert vitals(readings) == vitals(decode_measurement(plain))
    assert named("blood_pressure_flags", readings) == ([flags] if high else [])
    assert {reading.flags for reading in readings if isinstance(reading, Vital)} == {("reserved_flags",) if high else ()}


@given(words=st.lists(st.sampled_from(SPECIAL) | st.integers(20, 300), min_size=4, max_size=4))
def test_a_special_value_is_never_a_number_and_no_pressure_at_all_is_a_failed_measurement(words: list[int]) -> None:
    readings = decode_measurement(struct.pack("<B4H", 0x04, *words))
    kinds = (*PRESSURES, "pulse_rate_cuff")
    assert vitals(readings) == {kind: word for kind, word in zip(kinds, words, strict=True) if word not in SPECIAL}
    assert named("failed_measurement", readings) == (["blood_pressure"] if set(words[:3]) <= set(SPECIAL) else [])
    is_incomplete = bool({words[0], words[1]} & set(SPECIAL))
    for reading in readings:
        if isinstance(reading, Vital) and reading.kind in PRESSURES:
            assert ("incomplete_pressure" in reading.flags) == is_incomplete


@pytest.mark.parametrize(
    ("sent", "flags"),
    [
        ("00 2C01 5000 5D00", [(), (), ()]),  # 300 mmHg, the highest pressure of a cuff
        ("00 2D01 5000 5D00", [("implausible",), (), ()]),
        ("00 7800 1300 5D00", [(), ("implausible",), ()]),
        ("00 5000 5000 5000", [("implausible",)] * 3),  # systolic and diastolic are equal
        ("01 7800 5000 5D00", [("sent_in_kpa", "implausible")] * 3),  # 120 kPa
    ],
)
def test_a_pressure_that_no_cuff_measures_keeps_its_number_and_is_flagged(sent: str, flags: list[tuple[str, ...]]) -> None:
    readings = decode_measurement(bytes.fromhex(sent))
    assert [reading.flags for reading in readings if isinstance(reading, Vital)] == flags
    assert len(readings) == len(flags)


@pytest.mark.parametrize(
    ("pulse", "flags"), [(0, ("no_pulse_found",)), (19, ("implausible",)), (20, ()), (300, ()), (301, ("implausible",))]
)
def test_a_pulse_that_no_cuff_counts_keeps_its_number_and_is_flagged(pulse: int, flags: tuple[str, ...]) -> None:
    *pressures, last = decode_measurement(struct.pack("<B4H", 0x04, 120, 80, 93, pulse))
    assert isinstance(last, Vital)
    assert (last.kind, last.value, last.flags) == ("pulse_rate_cuff", pulse, flags)
    assert {reading.flags for reading in pressures if isinstance(reading, Vital)} == {()}


@given(payload=st.binary(max_size=24) | results.map(Sent.encode))
def test_the_pressure_in_the_cuff_is_never_a_result(payload: bytes) -> None:
    try:
        readings = decode_cuff_pressure(payload)
    except DecodeError:
        return
    assert {reading.kind for reading in readings if isinstance(reading, Vital)} <= {"cuff_pressure"}
    assert all(isinstance(reading, Vital | Status) and reading.origin is None for reading in readings)


# Models


@given(sent=results)
def test_a_byte_swapped_payload_means_what_the_same_values_mean_in_the_standard_layout(sent: Sent) -> None:
    swapped = service("BM85").decode(MEASUREMENT, sent.encode_byte_swapped()).readings
    standard = service("").decode(MEASUREMENT, sent.encode()).readings
    assert [(r.kind, r.value, r.flags) for r in swapped if isinstance(r, Vital)] == [
        (r.kind, r.value, r.flags) for r in standard if isinstance(r, Vital)
    ]
    (first, *_), (other, *_) = swapped, standard
    assert isinstance(first, Vital)
    assert isinstance(other, Vital)
    assert first.origin is not None
    assert other.origin is not None
    assert (first.origin.measured, first.origin.user) == (other.origin.measured, other.origin.user)


@given(payload=st.binary(max_size=24))
def test_a_byte_swapped_model_yields_readings_or_is_quarantined(payload: bytes) -> None:
    readings = service("BM85").decode(MEASUREMENT, payload).readings
    assert readings
    assert readings == (readings[0],) or not any(isinstance(reading, Quarantined) for reading in readings)


@pytest.mark.parametrize(
    ("model", "name", "is_swapped"),
    [
        ("BM85", "", True),
        ("Beurer BM85", "", True),
        ("", "BM48", True),
        ("bm59", "", True),
        ("", "ELITE 900", True),
        ("BM850", "", False),
        ("BM96", "", False),
        ("", "boso medicus 1A2B", False),
        ("", "", False),
    ],
)
def test_only_the_listed_models_are_read_byte_swapped(model: str, name: str, is_swapped: bool) -> None:
    captured = bytes.fromhex("566A0047000000EA07080B121F00003F000000")  # a BM85, derdilla/blood-pressure-monitor-fl, pull 735
    readings = service(model, name).decode(MEASUREMENT, captured).readings
    assert vitals(readings) == ({"systolic": 106, "diastolic": 71, "pulse_rate_cuff": 63} if is_swapped else {})
    assert any(isinstance(reading, Quarantined) for reading in readings) != is_swapped


@pytest.mark.parametrize(
    ("name", "bonds_first"), [("A&D_UA-651BLE_A1B2C3", True), ("A&D_UT201BLE_A1B2C3", True), ("BM85", False), ("", False)]
)
def test_a_sensor_of_a_and_d_is_bonded_before_its_services_are_discovered(name: str, bonds_first: bool) -> None:
    device = DeviceInformation(name=name)
    assert any(quirk.bonds_first for quirk in DRIVER.quirks if quirk.applies_to(device)) == bonds_first


@given(burst=st.lists(results, min_size=2, max_size=12, unique_by=lambda sent: sent.time))
def test_a_burst_in_any_order_gives_each_result_its_own_group_and_time(burst: list[Sent]) -> None:
    """Medisana cuffs send their whole memory, and the newest result is not always the last."""
    decoder = service()
    found = [decoder.decode(MEASUREMENT, sent.encode()).readings for sent in burst]
    vitals_found = [reading for readings in found for reading in readings if isinstance(reading, Vital)]
    assert len({reading.origin.group for reading in vitals_found if reading.origin}) == len(burst)
    systolic = {
        reading.origin.measured.timetuple()[:6]: reading.value
        for reading in vitals_found
        if reading.kind == "systolic" and reading.origin and reading.origin.measured
    }
    assert systolic == {sent.time: sent.systolic for sent in burst}


# Stored results


def split(value: bytes, record: int, cuts: Sequence[int] = (), counter: int = 0) -> list[bytes]:
    """The segments of a stored measurement, cut at these places."""
    edges = [0, *sorted(cuts), len(value)]
    parts = [value[start:end] for start, end in pairwise(edges)]
    segments = []
    for index, part in enumerate(parts):
        header = (counter + index) % 64 << 2 | (index == len(parts) - 1) << 1 | (index == 0)
        segments.append(struct.pack("<BHH", header, record, 0x2A35) + part)
    return segments


def feed(decoder: ServiceDecoder, segments: Sequence[bytes]) -> list[Reading]:
    """The readings, without the descriptions of the segments."""
    readings = [reading for segment in segments for reading in decoder.decode(RECORD, segment).readings]
    return [reading for reading in readings if getattr(reading, "kind", "") != "blood_pressure_record"]


STORED = Sent(120, 80, 93, (2025, 5, 20, 8, 30, 0), 72, 1, 0)
NEXT = Sent(131, 84, 100, (2025, 5, 21, 8, 30, 0), 66, 1, 0)


@given(
    sent=results,
    record=st.integers(0, 0xFFFF),
    cuts=st.sets(st.integers(1, 18), max_size=5),
    counter=st.integers(0, 63),
    repeats=st.lists(st.integers(1, 3), min_size=6, max_size=6),
)
def test_a_stored_result_is_joined_from_any_segments_and_repeats(
    sent: Sent, record: int, cuts: set[int], counter: int, repeats: list[int]
) -> None:
    segments = split(sent.encode(), record, sorted(cuts), counter)
    readings = feed(service(), [segment for segment, count in zip(segments, repeats, strict=False) for _ in range(count)])
    indicated = decode_measurement(sent.encode())
    assert vitals(readings) == vitals(indicated)
    for reading, live in zip(readings, indicated, strict=True):
        assert isinstance(reading, Vital)
        assert isinstance(live, Vital)
        assert reading.origin is not None
        assert live.origin is not None
        assert (reading.origin.record, reading.origin.is_stored) == (record, True)
        assert reading.origin.group == live.origin.group, "the same result, once indicated and once stored"


def test_equal_results_without_a_time_are_told_apart_by_their_numbers() -> None:
    value = bytes.fromhex("00780050005D00")
    readings = feed(service(), [*split(value, 1), *split(value, 2)])
    assert len({reading.origin.group for reading in readings if isinstance(reading, Vital) and reading.origin}) == 2


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_segment_costs_its_record_only_and_every_other_segment_is_kept(lost: int) -> None:
    segments = split(STORED.encode(), 7, [6, 12])
    received = segments[:lost] + segments[lost + 1 :]
    readings = feed(service(), [*received, *split(NEXT.encode(), 8)])
    assert vitals(readings) == vitals(decode_measurement(NEXT.encode()))
    assert sorted(reading.payload for reading in readings if isinstance(reading, Quarantined)) == sorted(received)


def test_a_segment_out_of_order_is_refused_and_its_record_completed_when_it_is_sent_again() -> None:
    first, second, third = split(STORED.encode(), 7, [6, 12])
    decoder = service()
    assert [type(reading) for reading in feed(decoder, [first, third])] == [Quarantined]
    assert vitals(feed(decoder, [second, third])) == vitals(decode_measurement(STORED.encode()))


def test_a_segment_of_another_record_does_not_complete_this_one() -> None:
    first, _ = split(STORED.encode(), 7, [9])
    _, other = split(NEXT.encode(), 8, [9])
    assert vitals(feed(service(), [first, other])) == {}


def test_the_segments_of_a_record_that_does_not_decode_are_all_kept() -> None:
    segments = split(STORED.encode()[:-1], 7, [6, 12])
    readings = feed(service(), segments)
    assert [reading.payload for reading in readings if isinstance(reading, Quarantined)] == segments
    assert len(readings) == len(segments)


@pytest.mark.parametrize(("part", "held"), [(4, 5), (1, 21), (21, 1), (0, 1)])
def test_endless_segments_are_held_up_to_the_size_of_a_measurement(part: int, held: int) -> None:
    endless = [
        struct.pack("<BHH", n % 64 << 2 | (n == 0), 7, 0x2A35) + n.to_bytes(8, "little")[:part].ljust(part) for n in range(200)
    ]
    decoder = service()
    refused = [reading.payload for reading in feed(decoder, endless) if isinstance(reading, Quarantined)]
    assert refused == endless[held:]
    given_up = feed(decoder, split(NEXT.encode(), 8))
    assert [reading.payload for reading in given_up if isinstance(reading, Quarantined)] == endless[:held]
    assert "systolic" in vitals(given_up)


def test_a_disconnection_gives_up_the_record_that_has_not_ended() -> None:
    first, _ = split(STORED.encode(), 7, [9])
    decoder = service()
    assert decoder.conversation is not None
    feed(decoder, [first])
    assert [getattr(step, "payload", None) for step in decoder.conversation.stop()] == [first]
    assert list(decoder.conversation.stop()) == []


@given(
    sent=st.lists(results, min_size=1, max_size=4, unique_by=lambda sent: sent.time),
    cuts=st.sets(st.integers(1, 18), min_size=1, max_size=4),
    data=st.data(),
)
def test_no_segment_is_lost_whatever_the_link_does(sent: list[Sent], cuts: set[int], data: st.DataObject) -> None:
    """Every segment that arrives is part of a decoded record or kept as it is, under loss, repetition and changes of order."""
    records = [split(result.encode(), number, sorted(cuts)) for number, result in enumerate(sent)]
    received = data.draw(st.lists(st.sampled_from([segment for record in records for segment in record]), max_size=24))
    decoder = service()
    readings = feed(decoder, received)
    assert decoder.conversation is not None
    kept = Counter(reading.payload for reading in readings if isinstance(reading, Quarantined))
    kept.update(step.payload for step in decoder.conversation.stop() if isinstance(step, Quarantined))
    decoded = {r.origin.record for r in readings if isinstance(r, Vital) and r.origin}
    for number, record in enumerate(records):
        for segment in record:
            assert kept[segment] <= received.count(segment)
            assert kept[segment] or number in decoded or segment not in received
    complete = {number for number, record in enumerate(records) if set(record) <= set(received)}
    assert decoded <= complete


# The clock


def test_declares_what_a_session_subscribes_to_and_reads() -> None:
    assert [(stream.uuid, stream.mode, stream.is_optional) for stream in DRIVER.streams] == [
        (MEASUREMENT, "indicate", False),
        (RECORD, "notify", True),
        (CUFF_PRESSURE, "notify", True),
    ]
    assert [read.uuid for read in DRIVER.reads] == [FEATURE]


def test_writes_nothing_but_the_local_time() -> None:
    conversation = service().conversation
    assert conversation is not None
    steps = [*conversation.start(Moment(1_786_465_860_000_000, 7200)), *conversation.stop()]
    assert [step for step in steps if not isinstance(step, Read | Status)] == [
        Write(DATE_TIME, bytes.fromhex("EA07080B121F00"))
    ]
