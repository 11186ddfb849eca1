"""What an earlier version stored in format 1 stays readable within its limits. That version wrote the vectors."""

import json
import zlib
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest

from sync.format_1.records import decode_readable_records, decode_records
from sync.packing import MAX_SAMPLES
from sync.record_codec import encode_records
from sync.records import SET_ASIDE, QuarantinedRecord, Record, RecordError, StatusRecord, Times
from tests.sync.record_vectors import as_json

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "records_1.json").read_text(encoding="utf-8"))
GOOD = {
    "type": "status",
    "sensor": "strap",
    "kind": "battery",
    "times": {"at_us": 1, "arrived_us": 2, "arrived_mono_ns": 3},
    "value": 87,
}


LATER = frozenset({"raised_us", "part", "mark_from_us", "mark_to_us"})
"""Fields that format 1 did not have."""


def without_later(value: Any) -> Any:
    """The JSON of a record without the fields that came later, which have no value."""
    match value:
        case dict():
            assert all(value.get(name) is None for name in LATER)
            return {name: without_later(one) for name, one in value.items() if name not in LATER}
        case list():
            return [without_later(one) for one in value]
        case _:
            return value


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_reads_what_an_earlier_version_wrote(vector: dict[str, Any]) -> None:
    plaintext = bytes.fromhex(vector["plaintext"])
    records = [without_later(as_json(record)) for record in decode_records(plaintext)]
    assert json.dumps(records) == json.dumps(vector["records"])


@pytest.mark.parametrize("plaintext", [encode_records([]), b"", b"\x40", b"\xf6"])
def test_other_plaintexts_are_refused(plaintext: bytes) -> None:
    with pytest.raises(RecordError):
        decode_records(plaintext)


@pytest.mark.parametrize(
    "damaged",
    [
        {"type": "waveform", "sensor": "strap", "kind": "ecg"},
        {"type": "waveform", "sensor": "strap", "kind": "ecg", "times": 3},
        {"type": "waveform", "sensor": "strap", "samples": b"no deflated bytes"},
        {"type": [1], "sensor": "strap"},
        {"type": "of a later version", "sensor": "strap"},
        GOOD | {"kind": "refused"},
    ],
)
def test_a_damaged_record_costs_only_itself(damaged: dict[str, Any]) -> None:
    good, aside = decode_readable_records(cbor2.dumps([GOOD | {"later": 1}, damaged]), refuse_one_kind)
    assert good == StatusRecord("strap", "battery", Times(1, 2, 3), 87)
    assert isinstance(aside, QuarantinedRecord)
    assert (aside.sensor, aside.characteristic, cbor2.loads(aside.payload)) == ("strap", SET_ASIDE, damaged)


def refuse_one_kind(record: Record) -> None:
    if getattr(record, "kind", "") == "refused":
        raise RecordError("its kind is refused")


@pytest.mark.parametrize("items", [[3], [GOOD, {"type": "x"}], [{"type": "waveform", "sensor": "strap"}], {}, 1])
def test_refuses_a_block_without_a_readable_record_or_a_sensor(items: Any) -> None:
    with pytest.raises(RecordError):
        decode_readable_records(cbor2.dumps(items), refuse_one_kind)


def test_the_samples_of_a_block_are_limited_together() -> None:
    half = zlib.compress(np.zeros(MAX_SAMPLES // 2, "<i4").tobytes())
    wave = GOOD | {"type": "waveform", "rate_hz": 130.0, "scale": 1.0, "samples": half}
    del wave["value"]
    assert len(decode_records(cbor2.dumps([wave] * 2))) == 2
    with pytest.raises(RecordError, match="more than"):
        decode_records(cbor2.dumps([wave] * 2 + [wave | {"samples": zlib.compress(bytes(4))}]))
    with pytest.raises(RecordError, match="more than"):
        decode_records(cbor2.dumps([{"type": "waveform", "samples": zlib.compress(bytes(4 * MAX_SAMPLES + 4), 9)}]))
