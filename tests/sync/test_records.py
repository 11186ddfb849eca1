"""A damaged record costs only itself, and a block without a readable one is refused."""

from typing import Any

import cbor2
import numpy as np
import pytest

from sync.records import (
    SET_ASIDE,
    QuarantinedRecord,
    Record,
    RecordError,
    StatusRecord,
    Times,
    WaveformRecord,
    decode_readable_records,
    encode_records,
)

TIMES = Times(1, 2, 3)
WAVE = WaveformRecord("strap", "ecg", TIMES, 130.0, 0.001, np.arange(73, dtype=np.int32))
GOOD = StatusRecord("strap", "battery", TIMES, 87)


def refuse_late_times(record: Record) -> None:
    if isinstance(record, WaveformRecord) and (record.times.sensor_ns or 0) > 2**62:
        raise RecordError("waveform.times is out of range")


def encode_damaged(*items: Any) -> bytes:
    return cbor2.dumps([*cbor2.loads(encode_records([GOOD])), *items])


@pytest.mark.parametrize(
    "damaged",
    [
        {"type": "waveform", "sensor": "strap", "kind": "ecg"},
        {"type": "waveform", "sensor": "strap", "kind": "ecg", "times": 3},
        {"type": [1], "sensor": "strap"},
        {"type": "of a later version", "sensor": "strap"},
    ],
)
def test_sets_a_damaged_record_aside_with_its_bytes(damaged: dict[str, Any]) -> None:
    good, aside = decode_readable_records(encode_damaged(damaged), refuse_late_times)
    assert good == GOOD
    assert isinstance(aside, QuarantinedRecord)
    assert (aside.sensor, aside.characteristic, cbor2.loads(aside.payload)) == ("strap", SET_ASIDE, damaged)


def test_sets_a_record_aside_that_is_not_valid() -> None:
    late = WaveformRecord("strap", "ecg", Times(1, 2, 3, 2**63), 130.0, 0.001, WAVE.samples)
    records = decode_readable_records(encode_records([WAVE, late, GOOD]), refuse_late_times)
    assert [type(record) for record in records] == [WaveformRecord, QuarantinedRecord, StatusRecord]


@pytest.mark.parametrize("item", [3, {"type": [1]}, {"type": "status", "sensor": 7}])
def test_refuses_a_block_with_a_damaged_record_of_no_sensor(item: Any) -> None:
    with pytest.raises(RecordError):
        decode_readable_records(encode_damaged(item), refuse_late_times)


def test_refuses_a_block_without_a_readable_record() -> None:
    with pytest.raises(RecordError, match="none of the records"):
        decode_readable_records(cbor2.dumps([{"type": "waveform", "sensor": "strap"}]), refuse_late_times)
