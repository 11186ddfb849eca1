"""A damaged record costs only itself, and a block without a readable one is refused."""

from typing import Any

import numpy as np
import pytest

from sync.cbor import decode_cbor, encode_cbor
from sync.record_codec import MAX_RECORDS, decode_readable_records, decode_records, encode_records
from sync.records import (
    SET_ASIDE,
    GapRecord,
    QuarantinedRecord,
    Record,
    RecordError,
    SpotOrigin,
    StatusRecord,
    Times,
    UnknownRecord,
    VitalRecord,
    WaveformRecord,
)

TIMES = Times(1, 2, 3)
WAVE = WaveformRecord("strap", "ecg", TIMES, 130.0, 0.001, np.arange(73, dtype=np.int32))
GOOD = StatusRecord("strap", "battery", TIMES, 87)
SPOT = VitalRecord("strap", "weight", TIMES, 80.5, (), SpotOrigin(7, "measured", False, 1, "set", 2, 3))
FUTURE = {"type": "of a later version", "sensor": "strap", "at": [1, 2]}


def refuse_late_times(record: Record) -> None:
    if isinstance(record, WaveformRecord) and (record.times.sensor_ns or 0) > 2**62:
        raise RecordError("waveform.times is out of range")


def decode_map(plaintext: bytes) -> dict[str, Any]:
    content: dict[str, Any] = decode_cbor(plaintext, limit_bytes=10**6)
    return content


def encode_with(*items: Any, **fields: Any) -> bytes:
    """A block with one readable status and these items."""
    content = decode_map(encode_records([GOOD]))
    return encode_cbor(content | {"items": content["items"] + list(items)} | fields)


def change_item(record: Record, **changes: Any) -> dict[str, Any]:
    """The map of one record with changed fields; a None removes one."""
    item = decode_map(encode_records([record]))["items"][0] | changes
    return {name: value for name, value in item.items() if value is not None}


DAMAGED = {
    "fields are missing": {"type": "waveform", "sensor": "strap", "kind": "ecg"},
    "no times": change_item(WAVE, at_us=None),
    "times of another type": change_item(WAVE, at_us=3),
    "times that are texts": change_item(WAVE, at_us=["CANARY"]),
    "a gap without a reason": change_item(GapRecord("strap", "ecg", 1, None, None, "r"), reason=None),
    "more times than samples": change_item(WAVE, counts=b"\x40\x00"),
    "counts that are texts": change_item(WAVE, counts=["CANARY"]),
    "no samples": change_item(WAVE, samples=None),
    "a list of samples": change_item(WAVE, samples=[1]),
    "samples beyond 32 bits": change_item(WAVE, samples=bytes.fromhex("3f017fffffffffffffff80")),
    "truncated samples": change_item(WAVE, samples=b"\x05\x49"),
    "an unknown field that must be understood": change_item(WAVE, lead="II", crit=["lead"]),
    "crit names a field that is not there": change_item(WAVE, crit=["samples", "lead"]),
    "crit is not a list": change_item(WAVE, crit="samples"),
    "an origin without a group": change_item(SPOT, group=None),
    "an origin that is a number": change_item(SPOT, clock=5),
    "a list of what is packed": change_item(WAVE, rate_hz=[130.0]),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_sets_a_damaged_record_aside_with_its_bytes(damaged: dict[str, Any]) -> None:
    good, aside = decode_readable_records(encode_with(damaged), refuse_late_times)
    assert good == GOOD
    assert aside == QuarantinedRecord("strap", SET_ASIDE, Times(0, 0, 0), encode_cbor(damaged), getattr(aside, "reason", ""))


def test_sets_a_record_aside_that_is_not_valid() -> None:
    late = WaveformRecord("strap", "ecg", Times(1, 2, 3, 2**63), 130.0, 0.001, WAVE.samples)
    records = decode_readable_records(encode_records([WAVE, late, GOOD, WAVE]), refuse_late_times)
    assert [type(record) for record in records] == [WaveformRecord, QuarantinedRecord, StatusRecord, WaveformRecord]
    assert isinstance(records[1], QuarantinedRecord)
    (alone,) = decode_records(encode_cbor({"items": [decode_map(records[1].payload)]}))
    assert isinstance(alone, WaveformRecord)
    assert alone.times == late.times


def test_a_damaged_group_costs_only_its_records() -> None:
    content = decode_map(encode_records([WAVE, GOOD, WAVE, GOOD]))
    content["items"][0]["counts"] = b"\x00"
    records = decode_readable_records(encode_cbor(content), refuse_late_times)
    assert [type(record) for record in records] == [QuarantinedRecord, StatusRecord, StatusRecord]


@pytest.mark.parametrize("item", [3, {"type": [1]}, {"type": "status", "sensor": 7}])
def test_refuses_a_block_with_a_damaged_record_of_no_sensor(item: Any) -> None:
    with pytest.raises(RecordError):
        decode_readable_records(encode_with(item), refuse_late_times)


def test_refuses_a_block_without_a_readable_record() -> None:
    with pytest.raises(RecordError, match="none of the records"):
        decode_readable_records(encode_cbor({"items": [DAMAGED["no times"]]}), refuse_late_times)


def test_keeps_a_record_of_an_unknown_type() -> None:
    expected = UnknownRecord("of a later version", "strap", encode_cbor(FUTURE))
    plaintext = encode_with(FUTURE)
    assert decode_records(plaintext) == [GOOD, expected]
    assert decode_readable_records(plaintext, refuse_late_times) == [GOOD, expected]
    assert encode_records([GOOD, expected]) == plaintext
    assert decode_records(encode_cbor({"items": [{"type": "vf"}]})) == [UnknownRecord("vf", None, encode_cbor({"type": "vf"}))]


def test_an_unknown_group_takes_the_place_of_its_first_record() -> None:
    content = decode_map(encode_records([GOOD, WAVE, GOOD, WAVE, GOOD]))
    content["items"][1] = FUTURE
    assert [type(record) for record in decode_records(encode_cbor(content))] == [
        StatusRecord,
        UnknownRecord,
        *[StatusRecord] * 2,
    ]


def test_ignores_unknown_fields_that_are_not_critical() -> None:
    times = {"at_us": 1, "arrived_us": 2, "arrived_mono_ns": 3, "zone": "UTC"}
    quarantined = QuarantinedRecord("strap", "2A37", TIMES, b"\x01", "short")
    changed = change_item(quarantined, times=times, notes={"crit": 7}, crit=["times", "sensor"])
    assert decode_records(encode_with(changed, later=1, crit=["items"])) == [GOOD, quarantined]


@pytest.mark.parametrize("crit", [["later"], ["order"], [7], 7, [b"items"]])
def test_refuses_a_block_with_something_unknown_that_must_be_understood(crit: Any) -> None:
    with pytest.raises(RecordError):
        decode_readable_records(encode_with(later=1, crit=crit), refuse_late_times)


def test_refuses_a_critical_field_in_a_map_within_a_record() -> None:
    times = {"at_us": 1, "arrived_us": 2, "arrived_mono_ns": 3, "zone": "UTC", "crit": ["zone"]}
    damaged = change_item(QuarantinedRecord("strap", "2A37", TIMES, b"\x01", "short"), times=times)
    with pytest.raises(RecordError, match="must be understood"):
        decode_records(encode_with(damaged))


def test_the_records_of_a_block_are_limited() -> None:
    """Two thousand records take 1 kB, and their objects take 1 MB."""
    record = VitalRecord("strap", "heart_rate", TIMES, 60)
    assert len(decode_records(encode_records([record] * MAX_RECORDS))) == MAX_RECORDS
    more = [record, GOOD, GapRecord("strap", "ecg", 1, None, None, "r"), UnknownRecord("x", None, encode_cbor({"type": "x"}))]
    for records in ([GOOD, record] * MAX_RECORDS, *([record] * MAX_RECORDS + [one] for one in more)):
        with pytest.raises(RecordError, match=r"records|values"):
            decode_records(encode_records(records))
