"""The capture format: the writer follows its documentation, and errors name the damaged line."""

import contextlib
import gzip
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import PayloadCapture, open_file
from captures.jsonl import CaptureWriter, read_entries, read_header
from captures.payloads import CaptureHeader, LinkEvent, Payload, Truncation
from captures.recording import ReadOptions, RecordingError
from drivers.device import DeviceInformation

HEART_RATE = "00002a37-0000-1000-8000-00805f9b34fb"
FIRST = '{"format": "pulsegate-capture", "version": 1, "sensor": "H10", "started_us": 1714920600000000}\n'


def capture(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "capture.jsonl"
    path.write_bytes(b"".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_writes_the_documented_format(tmp_path: Path) -> None:
    path = tmp_path / "strap.jsonl"
    header = CaptureHeader("Polar H10 1A2B", 1_714_920_600_000_000, DeviceInformation("Polar Electro Oy", "H10", "5.0.0"))
    with CaptureWriter(path, header) as writer:
        writer.write_event(0.0, "connected")
        writer.write_payload(0.5121234567, HEART_RATE.upper(), bytes.fromhex("1648c502"))
        writer.write_event(61.7, "disconnected")

    assert path.read_text().splitlines() == [
        '{"format": "pulsegate-capture", "version": 1, "sensor": "Polar H10 1A2B", "started_us": 1714920600000000, '
        '"device_information": {"manufacturer": "Polar Electro Oy", "model": "H10", "firmware": "5.0.0"}}',
        '{"t": 0.0, "event": "connected"}',
        '{"t": 0.512123, "char": "00002a37-0000-1000-8000-00805f9b34fb", "hex": "1648c502"}',
        '{"t": 61.7, "event": "disconnected"}',
    ]
    assert read_header(path) == header
    assert list(read_entries(path)) == [
        LinkEvent(0.0, "connected"),
        Payload(0.512123, HEART_RATE, bytes.fromhex("1648c502")),
        LinkEvent(61.7, "disconnected"),
    ]


def test_only_its_owner_may_read_a_capture_and_it_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "strap.jsonl"
    CaptureWriter(path, CaptureHeader("H10", 0)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        CaptureWriter(path, CaptureHeader("H10", 0))


def test_rejects_an_unknown_event(tmp_path: Path) -> None:
    with (
        CaptureWriter(tmp_path / "strap.jsonl", CaptureHeader("H10", 0)) as writer,
        pytest.raises(ValueError, match="'paired'"),
    ):
        writer.write_event(0.0, "paired")


def test_a_line_is_in_the_file_when_the_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "strap.jsonl"
    with CaptureWriter(path, CaptureHeader("H10", 0)) as writer:
        writer.write_event(1.0, "connected")
        assert list(read_entries(path)) == [LinkEvent(1.0, "connected")]


@pytest.mark.parametrize("started", ["1714920600", "1714920600000"])
def test_a_start_that_is_not_in_microseconds_is_unknown(tmp_path: Path, started: str) -> None:
    found = open_file(capture(tmp_path, FIRST.replace("1714920600000000", started)))
    assert isinstance(found, PayloadCapture)
    assert found.header.started_us == 0
    assert found.notes == ("the clock of the recorder was not set, so the date is unknown",)


def test_options_that_a_capture_does_not_use_are_told(tmp_path: Path) -> None:
    path = capture(tmp_path, FIRST)
    options = ReadOptions(signal="ECG", unit="mV", rate_hz=130.0, gatt=tmp_path / "none.json")
    assert open_file(path, options).notes == (
        "not used for a capture of pulsegate: --signal, --gatt",
        "not used for this kind of file: --unit, --rate",
    )
    (tmp_path / "r.csv").write_text("ecg [mV]\n" + "0.5\n" * 500)
    recording = open_file(tmp_path / "r.csv", ReadOptions(rate_hz=125.0, gatt=tmp_path / "none.json"))
    assert recording.notes[-1] == "not used for this kind of file: --gatt"


def test_a_capture_in_utf_16_is_refused(tmp_path: Path) -> None:
    path = capture(tmp_path, FIRST.encode("utf-16"))
    with pytest.raises(RecordingError, match="UTF-16, as PowerShell writes it; convert it"):
        open_file(path)


def test_ignores_unknown_keys_and_empty_lines(tmp_path: Path) -> None:
    path = capture(tmp_path, FIRST, "\n", '{"t": 1, "event": "connected", "rssi": -60}\n')
    assert list(read_entries(path)) == [LinkEvent(1.0, "connected")]


@pytest.mark.parametrize("last_line", ['{"t": 2.0, "char": "00002a37-0000', b'{"t": 2.0, "hex": "\xc3', '{"t": 2.0'])
def test_a_truncated_last_line_is_reported_and_the_rest_is_read(tmp_path: Path, last_line: str | bytes) -> None:
    path = capture(tmp_path, FIRST, '{"t": 1, "event": "connected"}\n', last_line)
    assert list(read_entries(path)) == [
        LinkEvent(1.0, "connected"),
        Truncation("line 3, the last one, is truncated and ignored; the lines before it are complete"),
    ]


def test_a_complete_last_line_needs_no_line_feed(tmp_path: Path) -> None:
    path = capture(tmp_path, FIRST, '{"t": 1, "event": "connected"}')
    assert list(read_entries(path)) == [LinkEvent(1.0, "connected")]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("", "not JSON"),
        ("\x00\x01\n", "not JSON"),
        ("[1]\n", "not a JSON object"),
        ('{"format": "har"}\n', "not a capture"),
        (FIRST.replace("1,", "2,", 1), "version 2 is not supported, only 1; update pulsegate"),
        (FIRST.replace('"H10"', "7"), '"sensor" is'),
        (FIRST.replace("1714920600000000", '"now"'), '"started_us" is'),
        (FIRST.replace("}", ', "device_information": [1]}'), '"device_information" must hold strings'),
        ("{" + " " * 20_000 + "}\n", "longer than 16384 bytes"),
        ("[" * 10_000 + "\n", "not JSON"),
    ],
)
def test_an_invalid_header_gives_an_error(tmp_path: Path, first: str, message: str) -> None:
    with pytest.raises(RecordingError) as caught:
        read_header(capture(tmp_path, first))
    assert str(caught.value).startswith(f"{tmp_path / 'capture.jsonl'}: line 1: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense\n", "not JSON"),
        ('{"event": "connected"}\n', '"t" is None'),
        ('{"t": -1, "event": "connected"}\n', '"t" is -1'),
        ('{"t": NaN, "event": "connected"}\n', '"t" is nan'),
        ('{"t": true, "event": "connected"}\n', '"t" is True'),
        (
            '{"t": 1e9, "event": "connected"}\n',
            '"t" is 1000000000.0, not seconds since the start, 0 to 1e+09; correct or remove',
        ),
        ('{"t": 1e300, "event": "connected"}\n', '"t" is 1e+300'),
        (f'{{"t": {"9" * 400}, "event": "connected"}}\n', '"t" is 999'),
        ('{"t": 0.5, "event": "connected"}\n', "t decreases from 1.0 to 0.5"),
        ('{"t": 2, "event": "exploded"}\n', "unknown event 'exploded'"),
        ('{"t": 2, "char": "2a37", "hex": "00"}\n', "not a 128-bit UUID"),
        (f'{{"t": 2, "char": "{HEART_RATE}", "hex": "0"}}\n', "not hexadecimal text"),
        (f'{{"t": 2, "char": "{HEART_RATE}", "hex": 7}}\n', "not hexadecimal text"),
    ],
)
def test_a_damaged_line_gives_an_error_after_the_entries_before_it(tmp_path: Path, line: str, message: str) -> None:
    entries = read_entries(
        capture(tmp_path, FIRST, '{"t": 1, "event": "connected"}\n', line, '{"t": 3, "event": "connected"}\n')
    )
    assert next(entries) == LinkEvent(1.0, "connected")
    with pytest.raises(RecordingError) as caught:
        next(entries)
    assert str(caught.value).startswith(f"{tmp_path / 'capture.jsonl'}: line 3: ")
    assert message in str(caught.value)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_give_a_capture_error(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = capture(tmp_path_factory.mktemp("junk"), FIRST, junk)
    entries: list[object] = []
    with contextlib.suppress(RecordingError):
        entries.extend(read_entries(path))
    assert all(isinstance(entry, Payload | LinkEvent | Truncation) for entry in entries)


def test_reads_a_gzipped_capture(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl.gz"
    lines = [FIRST, *(f'{{"t": {number}, "char": "{HEART_RATE}", "hex": "0048"}}\n' for number in range(3))]
    packed = gzip.compress("".join(lines).encode())
    path.write_bytes(packed)
    expected = [Payload(float(number), HEART_RATE, b"\x00\x48") for number in range(3)]
    opened = open_file(path)
    assert isinstance(opened, PayloadCapture)
    assert list(opened.read_entries()) == expected
    path.write_bytes(packed[:-3])
    opened = open_file(path)
    assert isinstance(opened, PayloadCapture)
    assert list(opened.read_entries()) == [
        *expected,
        Truncation("the gzip file is cut after line 4; the lines before are complete"),
    ]
    path.write_bytes(gzip.compress(lines[0].encode()) + gzip.compress("".join(lines[1:]).encode()))
    assert list(read_entries(path)) == expected
    path.write_bytes(packed[:-8] + b"\1\2\3\4" + packed[-4:])
    with pytest.raises(RecordingError, match="damaged gzip file"):
        list(read_entries(path))


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = capture(tmp_path, "\n \r\n", FIRST, "\n", '{"t": 1, "event": "connected"}\n', "damaged\n")
    entries = read_entries(path)
    assert read_header(path).sensor == "H10"
    assert next(entries) == LinkEvent(1.0, "connected")
    with pytest.raises(RecordingError, match="line 6: not JSON"):
        next(entries)


def test_a_second_capture_in_the_file_is_named(tmp_path: Path) -> None:
    path = capture(tmp_path, FIRST, '{"t": 1, "event": "connected"}\n', FIRST, '{"t": 2, "event": "connected"}\n')
    entries = read_entries(path)
    assert next(entries) == LinkEvent(1.0, "connected")
    with pytest.raises(RecordingError, match="line 3: a second capture begins here; split the file there"):
        next(entries)


@pytest.mark.parametrize(
    "line",
    [
        f'{{"t": 2, "event": "{"e" * 9000}"}}\n',
        f'{{"t": 2, "char": "{"c" * 9000}", "hex": ""}}\n',
        f'{{"t": "{"t" * 9000}"}}\n',
        f'{{"t": {"9" * 9000}}}\n',
    ],
)
def test_a_message_is_short(tmp_path: Path, line: str) -> None:
    with pytest.raises(RecordingError) as caught:
        list(read_entries(capture(tmp_path, FIRST, line)))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("key", ["version", "sensor", "started_us"])
def test_a_message_about_the_header_is_short(tmp_path: Path, key: str) -> None:
    header = json.loads(FIRST) | {key: ["x" * 9000]}
    with pytest.raises(RecordingError) as caught:
        read_header(capture(tmp_path, json.dumps(header) + "\n"))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
