"""A planted patient, and the search for what is known of them, in every form in which it may lie."""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import cbor2
import numpy as np

from sync.packing import pack_samples
from sync.records import AlertRecord, StatusRecord, VitalRecord, WaveformRecord
from tests.cloud.synthetic import RATE_HZ, START_US, alert, times

NAME = "Zoë-Kanarienvogel"
"""Nobody has it. Its letter outside ASCII is written in several ways."""
READING = 137.4375
OTHER_READING = 83.15625
LIMIT = 131.71875
TEMPERATURE = 37.84375
"""Of a thermometer. No real one has so many decimals."""
SAMPLES = (-1733, 1291, -877, 1999, -1451, 1123, -1979, 1607)
"""Eight samples that follow each other in a waveform."""

WAVEFORM = WaveformRecord("strap-1", "ecg", times(START_US), RATE_HZ, 0.001, np.array(SAMPLES * 10, np.int32))
VITAL = VitalRecord("strap-1", "heart_rate", times(START_US), READING)
STATUS = StatusRecord("strap-1", "battery", times(START_US), OTHER_READING)


def make_alert(number: int) -> AlertRecord:
    measured = {"rate_bpm": READING, "limit_bpm": LIMIT}
    return alert(id=f"alert-{number}", source=f"rule:{NAME}", reasons=(NAME,), measured=measured, probability=0.73828125)


def find_canary(data: bytes) -> list[str]:
    """Return the forms of the canary that are in the data."""
    return [name for name, form in _FORMS if form in data]


def find_in_files(folder: Path, since_s: float) -> dict[str, list[str]]:
    """Return the files below a folder that were changed since and hold a form of the canary, in their names or contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_mtime >= since_s:
            forms = find_canary(bytes(path)) + find_canary(path.read_bytes().rstrip(b"\0"))
            if forms:
                found[str(path.relative_to(folder))] = forms
    return found


def list_forms() -> Iterator[tuple[str, bytes]]:
    """Yield each form with its name."""
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "latin-1"):
        yield f"name in {encoding}", NAME.encode(encoding)
    yield "name without its first letters", NAME[3:].encode()
    yield "name in JSON", json.dumps(NAME)[1:-1].encode()
    yield "name in Python", ascii(NAME)[1:-1].encode()
    yield "name in a URL", quote(NAME).encode()
    for what, data in (("name", NAME.encode()), ("name", NAME[3:].encode()), ("reading", struct.pack(">d", READING))):
        yield f"{what} in hexadecimal digits", data.hex().encode()
        yield f"{what} in capital hexadecimal digits", data.hex().upper().encode()
        for shift in range(3):  # base64 encodes three bytes at a time, from any of them on
            part = data[shift:]
            yield f"{what} in base64", base64.b64encode(part[: len(part) // 3 * 3])
    for value in (READING, OTHER_READING, LIMIT, TEMPERATURE):
        yield f"{value} in digits", str(value).encode()
        for form in ("<d", ">d", "<f", ">f"):
            yield f"{value} as {form}", struct.pack(form, value)
    samples = np.array(SAMPLES)
    for form in ("<i2", ">i2", "<i4", ">i4", "<i8", ">i8", "<f4", "<f8"):
        yield f"samples as {form}", samples.astype(form).tobytes()
    yield "samples in CBOR", cbor2.dumps(list(SAMPLES))[1:]
    yield "samples in digits", ",".join(map(str, SAMPLES)).encode()
    yield "samples in digits", ", ".join(map(str, SAMPLES)).encode()
    yield "samples as the projections have them", pack_samples(WAVEFORM.samples)
    yield "differences of samples", np.diff(samples).astype("<i2").tobytes()


_FORMS = tuple(list_forms())
