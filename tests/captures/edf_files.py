"""EDF and BDF files for the tests: bytes built from the specification (edfplus.info)."""

import numpy as np
import pytest

from captures import NO_OPTIONS, RecordingError, open_recording

RAMP = np.arange(-2000, 2000, 10)
NOON_US = 1714912200_000_000  # 2024-05-05T12:30:00Z


def signal(label="ECG", samples=100, data=None, **fields):
    """One signal: `data` are stored numbers, all records one after another."""
    known = {"unit": "uV", "low": "-3276.8", "high": "3276.7", "first": "-32768", "last": "32767"}
    return known | {"label": label, "samples": samples, "data": np.resize(RAMP, 4 * samples) if data is None else data} | fields


def annotations(texts, label="EDF Annotations"):
    """`texts` are the bytes of each record; 60 is a multiple of the length of a sample, 2 or 3."""
    return signal(label, 0, [text.ljust(60, b"\0") for text in texts], unit="", low="-1", high="1")


def onset(text, *events):
    return f"{text}\x14\x14\0".encode() + b"".join(events)


def store(one, width):
    """The bytes of each record."""
    if not one["samples"]:
        return one["data"]
    low_bytes = np.asarray(one["data"]).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width]
    return [low_bytes[at : at + one["samples"]].tobytes() for at in range(0, len(low_bytes), one["samples"])]


def field(value, width):
    return (value if isinstance(value, bytes) else str(value).encode("latin-1")).ljust(width)[:width]


def edf(*signals, version="0", kind="", records=None, duration="1", date="05.05.24", time="12.30.00", recording="", **fields):
    """The bytes of a file of the given signals."""
    width = 3 if version == b"\xffBIOSEMI" else 2
    count = len(signals)
    stored = [store(one, width) for one in signals]
    held = min(map(len, stored))
    body = b"".join(part for record in range(held) for part in (one[record] for one in stored))
    signals = [one | {"samples": len(parts[0]) // width} for one, parts in zip(signals, stored, strict=True)]
    head = (
        field(version, 8) + field(fields.get("patient", "X X X X"), 80) + field(recording, 80) + field(date, 8) + field(time, 8)
    )
    head += field(fields.get("length", 256 * (count + 1)), 8) + field(kind, 44) + field(held if records is None else records, 8)
    head += field(duration, 8) + field(fields.get("count", count), 4)
    widths = (
        ("label", 16),
        ("", 80),
        ("unit", 8),
        ("low", 8),
        ("high", 8),
        ("first", 8),
        ("last", 8),
        ("", 80),
        ("samples", 8),
    )
    for name, size in (*widths, ("", 32)):
        head += b"".join(field(one.get(name, ""), size) for one in signals)
    return head + fields.get("padding", b"") + body


def read(folder, raw, options=NO_OPTIONS, name="r.edf"):
    (folder / name).write_bytes(raw)
    return open_recording(folder / name, options)


def fails(folder, raw, options=NO_OPTIONS, name="r.edf"):
    with pytest.raises(RecordingError) as error:
        sum(chunk.values.size for chunk in read(folder, raw, options, name).read_chunks())
    text = str(error.value)
    assert text.startswith(str(folder / name))
    assert "\n" not in text
    assert len(text) < 500 + len(str(folder))
    return text


def told(record):
    return " | ".join(record.notes)


def plus(onsets, kind="EDF+D", samples=100, duration="1"):
    return edf(
        signal(samples=samples, data=np.resize(RAMP, len(onsets) * samples)),
        annotations(list(map(onset, onsets))),
        kind=kind,
        duration=duration,
    )
