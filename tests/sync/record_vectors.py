"""Writes `vectors/records_2.json`: plaintexts with the records that they hold, and plaintexts that are refused.

The vectors are frozen: blocks that hubs sealed must stay readable. Run `python -m tests.sync.record_vectors` only to add one.
"""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sync.cbor import decode_cbor, encode_cbor
from sync.packing import pack_integers
from sync.record_codec import encode_records
from sync.records import (
    AlertRecord,
    BeatsRecord,
    FindingRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    SpotOrigin,
    StatusRecord,
    Strip,
    Times,
    VitalRecord,
    WaveformRecord,
    type_name,
)

PATH: Final = Path(__file__).parent / "vectors" / "records_2.json"
AT_US: Final = 1_790_000_000_000_000
ECG: Final = np.array([-12, -10, -7, 3, 55, 410, 902, 655, 120, -88, -61, -30, -14, -9, -8, -8], np.int32)
EXTREMES: Final = np.array([2**31 - 1, -(2**31), 0, -1, 2**31 - 1], np.int32)


def wave(i: int, samples: Any, **changes: Any) -> WaveformRecord:
    start_us, mono_ns, sensor_ns = AT_US + 123_077 * i, 5_000_000_000 + 123_077_100 * i, 10**18 + 123_076_923 * i
    times = Times(start_us, start_us + 140_000 + 700 * (i % 3), mono_ns, sensor_ns, -7 * 10**17, 27.85)
    values = {"sensor": "strap-1", "kind": "ecg", "times": times, "rate_hz": 130.0 + i / 1024, "scale": 0.001}
    return WaveformRecord(**values | changes, samples=samples)


def now(i: int) -> Times:
    return Times(AT_US + 1_000_123 * i, AT_US + 1_000_123 * i, 5_000_000_000 + 1_000_123_456 * i)


LOCAL_US: Final = AT_US - 86_400_000_000 + 7_200_000_000
SPOT: Final = Times(AT_US - 86_400_000_000, AT_US, 5_000_000_000)
RESULT: Final = SpotOrigin(2**48 - 1, "corrected", True, LOCAL_US, "set", 17, 2)
STRIP: Final = Strip(AT_US - 100_000, 130.25, 0.001, ECG, (AT_US - 50_000, AT_US + 7), "N?")
ALERT: Final = AlertRecord(
    *("a-1", "strap-1", "tachycardia", "medium", AT_US, AT_US + 60_000_000, AT_US + 10_000_000, "rule:tachycardia"),
    *(("tachycardia.rate", "tachycardia.duration"), 0.75, {"rate_bpm": 150.5, "limit_bpm": 131}, STRIP),
)
RECORDS: Final[dict[str, list[Record]]] = {
    "nothing": [],
    "frames of an ECG": [wave(i, ECG[i:]) for i in range(5)],
    "a frame": [wave(0, ECG)],
    "frames without a sensor clock, of no, one and equal samples": [
        wave(i, np.full(i, -5, np.int32), times=now(i), rate_hz=130.0) for i in range(4)
    ],
    "samples at the limits of 32 bits": [wave(0, EXTREMES)],
    "frames with and without a drift": [wave(0, ECG), wave(1, ECG, times=now(1)), wave(2, ECG)],
    "a sensor clock beyond 63 bits": [wave(0, ECG, times=Times(1, 2, 3, 2**64 - 1, -(2**64)))],
    "notifications of a strap": [
        record
        for i in range(3)
        for record in (
            VitalRecord("strap-1", "heart_rate", now(i), 61 + i),
            StatusRecord("strap-1", "skin_contact", now(i), True),
            IntervalsRecord("strap-1", "rr", now(i), (1007, 998)[:i]),
        )
    ],
    "numbers": [
        *(VitalRecord("a", "temperature", now(i), value) for i, value in enumerate((36.55, 37.0, -0.5))),
        *(VitalRecord("a", "irrational", now(i), value) for i, value in enumerate((1 / 3, -1e300, 5e-324))),
        *(VitalRecord("a", "mixed", now(i), value) for i, value in enumerate((1, 1.5))),
        VitalRecord("a", "heart_rate", now(0), -0.0, ("no_pulse_found", "rr_filler")),
        VitalRecord("a", "heart_rate", now(1), -(2**63)),
    ],
    "times before 1970 and out of order": [
        IntervalsRecord("a", "rr", Times(at_us, -at_us, 2**62), (0, -1, 2**40)) for at_us in (-5, 2**52, -(2**52), 0)
    ],
    "statuses": [StatusRecord("a", "state", now(i), value) for i, value in enumerate(("on", 7, 0.1, False, "äöü 心"))],
    "gaps": [
        GapRecord("strap-1", "ecg", AT_US, None, None, "the link was lost"),
        GapRecord("strap-1", "ecg", AT_US, AT_US + 1, 2**40, "the link was lost", 10**18, 10**18 + 7),
    ],
    "a quarantined payload": [QuarantinedRecord("strap-1", "2a37", now(0), b"\x00\xff", "too short")],
    "findings": [
        FindingRecord("strap-1", "af", AT_US, None, "model:rr_af", 0.9375),
        FindingRecord("strap-1", "af", AT_US, AT_US + 1, "model:rr_af", None, "too few beats", {"beats": 7, "rr_ms": 812.5}),
    ],
    "an alert with its strip": [ALERT],
    "an alert that was raised again": [replace(ALERT, end_us=None, strip=None, raised_us=AT_US + 20_000_000)],
    "an alert of an unknown kind and priority": [
        AlertRecord("a-2", "strap-1", "vf", "urgent", AT_US, None, AT_US, "model:vf", ()),
    ],
    "a blood pressure from a cuff's memory": [
        VitalRecord("cuff", kind, SPOT, value, ("irregular_pulse",), RESULT)
        for kind, value in (("systolic", 131.5), ("diastolic", 84))
    ],
    "weights with and without an origin": [
        VitalRecord("scale", "weight", SPOT, 81.5, (), SpotOrigin(1, "measured", False, LOCAL_US, "set")),
        VitalRecord("scale", "weight", now(0), 81.25, (), SpotOrigin(2, "arrival", False, 946_684_800_000_000, "not_set", 3)),
        VitalRecord("scale", "weight", now(1), 81.0, (), SpotOrigin(3, "arrival", False)),
        VitalRecord("scale", "weight", now(2), 80.75),
    ],
    "a failed measurement": [
        StatusRecord("cuff", "failed_measurement", now(0), "blood pressure", SpotOrigin(0, "arrival", True))
    ],
    "groups in turn": [wave(0, ECG), GapRecord("strap-1", "ecg", 1, 2, 3, "r"), wave(1, ECG), wave(2, ECG, scale=1.0)],
    "beats, and a stretch without one": [
        BeatsRecord("strap-1", "ecg", AT_US, AT_US + 10_000_000, (1_790_000_000_412, 1_790_000_001_228), (0, 2)),
        BeatsRecord("strap-1", "ecg", AT_US + 10_000_000, AT_US + 20_000_000, (), ()),
    ],
    "an alert with a marked strip of its worst part": [
        replace(ALERT, strip=replace(STRIP, part="worst", mark_from_us=AT_US - 50_000, mark_to_us=AT_US + 7)),
    ],
}  # fmt: skip
SCALE: Final = RECORDS["weights with and without an origin"]
GAP: Final = {"type": "gap", "sensor": "a", "kind": "b", "from_us": 1, "reason": "r"}
FUTURE: Final = {"type": "later", "sensor": "strap-1", "data": [1, None, 2.5]}


def as_json(value: Any) -> Any:
    """A record as JSON: bytes in hexadecimal, samples as a list."""
    if is_dataclass(value):
        kind = {"type": type_name(value)} if hasattr(value, "sensor") else {}  # type: ignore[arg-type]
        values = {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
        return kind | {name: one for name, one in values.items() if name != "origin" or one is not None}
    match value:
        case bytes():
            return value.hex()
        case np.ndarray():
            return value.tolist()
        case tuple():
            return list(value)
        case _:
            return value


def change(plaintext: bytes, item: int | None = None, **changes: Any) -> bytes:
    """A plaintext with fields changed, or with None removed, in one of its items or outside of them."""
    content = decode_cbor(plaintext, limit_bytes=len(plaintext))
    target = content if item is None else content["items"][item]
    target |= changes
    for name in [name for name, value in changes.items() if value is None]:
        del target[name]
    return encode_cbor(content)


def build() -> dict[str, Any]:
    """Return the vectors."""
    readable = {name: (encode_records(records), records) for name, records in RECORDS.items()}
    frames, plaintexts = RECORDS["groups in turn"], {name: data for name, (data, _) in readable.items()}
    two = plaintexts["groups in turn"]
    alert = plaintexts["an alert with its strip"]
    known = {
        "an unknown optional field": (change(two, 1, later=7), frames),
        "an unknown optional field outside the items": (change(two, later=[7]), frames),
        "known fields that must be understood": (change(two, 0, crit=["samples", "counts"]), frames),
    }
    unknown = encode_cbor({"items": [FUTURE, decode_cbor(plaintexts["a frame"], limit_bytes=10**4)["items"][0]]})
    later = {"type": "unknown", "name": "later", "sensor": "strap-1", "content": encode_cbor(FUTURE).hex()}
    frame, scale = plaintexts["a frame"], encode_records(SCALE)
    refused = {
        "an unknown field that must be understood": change(frame, 0, later=7, crit=["later"]),
        "such a field outside the items": change(frame, later=7, crit=["later"]),
        "crit names a field that is not there": change(frame, 0, crit=["flags"]),
        "crit is a text": change(frame, 0, crit="samples"),
        "a field is missing": change(frame, 0, scale=None),
        "a column is missing": change(frame, 0, rate_hz=None),
        "no times": change(frame, 0, at_us=None),
        "counts and samples disagree": change(frame, 0, counts=pack_integers(np.array([15]))),
        "a count below zero": change(frame, 0, counts=pack_integers(np.array([-16]))),
        "a column of two values in a group of one": change(frame, 0, rate_hz=pack_integers(np.array([130, 130]))),
        "a list that could be packed": change(frame, 0, rate_hz=[130.0]),
        "samples with a Rice parameter that is not the best": change(frame, 0, counts=bytes.fromhex("050140")),
        "padding that is not zero": change(frame, 0, counts=bytes.fromhex("040121")),
        "a byte after the codes": change(frame, 0, counts=bytes.fromhex("04012000")),
        "differences of order 3": change(frame, 0, counts=bytes.fromhex("c4012000")),
        "a sample beyond 32 bits": change(frame, 0, samples=pack_integers(np.array([2**31] + [0] * 15))),
        "a null field": encode_cbor({"items": [GAP | {"to_us": None}]}),
        "an item without a type": encode_cbor({"items": [{"sensor": "a"}]}),
        "an order that says nothing": change(two, order=pack_integers(np.array([0, 0, 1, 2]))),
        "an order with a record too many": change(two, order=pack_integers(np.array([0, 1, 0, 0, 2]))),
        "two groups of one sensor and kind": encode_cbor({"items": decode_cbor(frame, limit_bytes=10**4)["items"] * 2}),
        "a strip with an unknown field that must be understood": change(
            alert, 0, strip=decode_cbor(alert, limit_bytes=10**4)["items"][0]["strip"] | {"lead": 2, "crit": ["lead"]}
        ),
        "a list of records, as in format 1": encode_cbor([]),
        "a map of indefinite length": bytes.fromhex("bf656974656d7380ff"),
        "a byte after the map": encode_records([]) + b"\x00",
        "nothing at all": b"",
        "an origin without a group": change(scale, 0, group=None),
        "an origin without a source of its time": change(scale, 0, time_source=None),
        "an origin column of nulls": change(encode_records(SCALE[2:3]), 0, user=[None]),
        "an origin column that is too short": change(scale, 0, clock=["set"]),
    }  # fmt: skip
    vectors = [
        {
            "name": name,
            "plaintext": data.hex(),
            "records": [as_json(record) for record in records],
            "canonical": name in readable,
        }
        for name, (data, records) in (readable | known).items()
    ]
    vectors.append(
        {"name": "an unknown type", "plaintext": unknown.hex(), "records": [later, as_json(wave(0, ECG))], "canonical": True}
    )
    return {"records": vectors, "refused": [{"name": name, "plaintext": data.hex()} for name, data in refused.items()]}


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(build(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
