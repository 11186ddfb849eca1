"""WFDB headers as editors, tools and databases write them; each is read like the plain header of the same record."""

import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import NO_OPTIONS, ReadOptions, Recording, RecordingError, open_recording
from captures.wfdb.header import parse_header

SAMPLES = (100, -50, 25, 300)


def write(folder: Path, header: str | bytes, name: str = "r.hea") -> Path:
    (folder / name).write_bytes(header.encode() if isinstance(header, str) else header)
    (folder / "r.dat").write_bytes(struct.pack("<4h", *SAMPLES))
    return folder / name


def read(folder: Path, header: str | bytes, options: ReadOptions = NO_OPTIONS) -> Recording:
    return open_recording(write(folder, header), options)


@pytest.mark.parametrize(
    "header",
    [
        "r 1 250 4\nr.dat 16 200 12 0 100 375 0 II\n",
        "r 1 250 4\nr.dat 16 200 12 0 100 375 0 II",
        "\ufeffr 1 250 4\nr.dat 16 200 12 0 100 375 0 II\n",
        "r 1 250 4\nr.dat 16 200 12 0 100 375 0 II\n".encode("utf-16"),
        "r 1 250 4\r\nr.dat 16 200 12 0 100 375 0 II\r\n\r\n\x1a",
        "r 1 250 4\rr.dat 16 200 12 0 100 375 0 II\r",
        "r\t1\t250\t4\nr.dat\t16\t200\t12\t0\t100\t375\t0\tII\n",
        "  r  1   250 4  \n\n   r.dat  16  200  12 0 100  375 0  II  \n",
        "# first\nr 1 250 4\n  # between\nr.dat 16 200 12 0 100 375 0 II\n# last\n",
        "r 1 250 4 # holter\nr.dat 16 200 12 0 100 375 0 II # chest\n",
        "r 1 250 4 #holter\nr.dat 16 200 12 0 100 375 0 II\n#x\n",
        "r 1 250 4\nr.dat 16 200 12 0 100 375 0 II\n# Gerät, 2 m über Boden\n".encode("latin-1"),
        "# Gerät\nr 1 250 4\nr.dat 16 200 12 0 100 375 0 II\n".encode("cp1252"),
        "other 1 250 4\nr.dat 16 200 12 0 100 375 0 II\n",
        "folder/r 1 250 4\nfolder/r.dat 16 200 12 0 100 375 0 II\n",
        "C:\\data\\r 1 250 4\nC:\\data\\r.dat 16 200 12 0 100 375 0 II\n",
        "r 1 250.0/60(0) 4\nr.dat 16 200(0)/mV 12 0 100 375 0 II,\n",
        "r 1 2.5e2/1000 4\nr.dat 16 2e2/mv 12 0 100 375 0 II\n",
        "r 1 250 4\nr.dat 16 0.2/uV 12 0 100 375 0 II\n",
        "r 1 250 4\nr.dat 16 200.0(0.0)/mV 12.0 0.0 100 375 0 II\n",
        "r 1 250 4\nr.dat 16 2e5/V 12 0 100 375 0 II\n",
        "r 1 250 4\nr.dat 16 200/mV II\n",
        "r 1 250\nr.dat 16 200/mV 12 II\n",
        "r 1 250,0 4.0\nr.dat 16 200,0/mV 12 0 100 375 0 II.\n",
        "my r 1 250 4\nr.dat 16 200/mVolt 12 0 100 375 0 II\n",
        "r 1 250 0\nr.dat 16 200 12 0 100 375 0 II\n",
    ],
)
def test_a_header_is_read_whatever_its_form(tmp_path: Path, header: str | bytes) -> None:
    recording = read(tmp_path, header)
    assert recording.mv.tolist() == [0.5, -0.25, 0.125, 1.5]
    assert recording.rate_hz == 250
    assert recording.start_us is None
    assert [note.split(" in ")[0] for note in recording.notes] == ["signal 1 of 1 (II)"]


def test_a_name_that_is_a_number_is_no_number_of_segments(tmp_path: Path) -> None:
    path = write(tmp_path, "mitdb/100 1 250 4\nr.dat 16 200 12 0 100 375 0 II\n", "100.hea")
    assert open_recording(path).mv.size == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("200 12 0 0 0 0 ECG #1", "ECG #1"),
        ("200 12 0 0 0 0 ECG lead II", "ECG lead II"),
        ("200 12 0 0 0 0 12", "12"),
        ("200 12 0 0 0 0 record r, signal 0", ""),
        ("nan/mV 12 0 0 0 0 ECG", "ECG"),
        ("2x0/mV 12 0 0 0 0 ECG", "ECG"),
        ("(0)/mV 12 0 0 0 0 ECG", "ECG"),
        ("ECG 12", "ECG 12"),
        ("200", ""),
    ],
)
def test_the_description_is_what_follows_the_numbers(tmp_path: Path, line: str, message: str) -> None:
    assert parse_header(write(tmp_path, f"r 1 250 4\nr.dat 16 {line}\n")).signals[0].name == message


def test_a_signal_file_may_have_blanks_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "my rec.dat").write_bytes(struct.pack("<2h", 200, 400))
    path = write(tmp_path, "r 1 250 2\nmy rec.dat 16 200/mV 12 0 0 0 0 II\n")
    assert open_recording(path).mv.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("09:49:17 05/05/2020", datetime(2020, 5, 5, 9, 49, 17, tzinfo=UTC)),
        ("05-May-2020 09:49:17", datetime(2020, 5, 5, 9, 49, 17, tzinfo=UTC)),
        ("09:49:17 05-MAY-2020", datetime(2020, 5, 5, 9, 49, 17, tzinfo=UTC)),
        ("9:49:17.25 5/5/2020", datetime(2020, 5, 5, 9, 49, 17, 250_000, tzinfo=UTC)),
        ("09:49:17 05-05-2020", datetime(2020, 5, 5, 9, 49, 17, tzinfo=UTC)),
        ("09:49:17 5.5.2020", datetime(2020, 5, 5, 9, 49, 17, tzinfo=UTC)),
        ("2020-05-05 09:49:17", datetime(2020, 5, 5, 9, 49, 17, tzinfo=UTC)),
        ("2020-05-05T09:49:17", datetime(2020, 5, 5, 9, 49, 17, tzinfo=UTC)),
        ("5 May 2020 09:49:17", datetime(2020, 5, 5, 9, 49, 17, tzinfo=UTC)),
        ("[09:49:17.000 05/05/2020]", datetime(2020, 5, 5, 9, 49, 17, tzinfo=UTC)),
    ],
)
def test_the_start_is_read_in_every_notation(tmp_path: Path, start: str, expected: datetime) -> None:
    recording = read(tmp_path, f"r 1 250 4 {start}\nr.dat 16 200 12 0 0 0 0 II\n")
    assert recording.start_us == round(expected.timestamp() * 1e6)
    assert recording.notes == ("signal 1 of 1 (II) in mV, 250 Hz",)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("49:17 05/05/2020", datetime(2020, 5, 5, 0, 49, 17, tzinfo=UTC)),
        ("31:51.982 10/10/2896", datetime(2896, 10, 10, 0, 31, 51, 982_000, tzinfo=UTC)),
    ],
)
def test_a_time_of_two_numbers_is_minutes_and_seconds(tmp_path: Path, start: str, expected: datetime) -> None:
    recording = read(tmp_path, f"r 1 250 4 {start}\nr.dat 16 200 12 0 0 0 0 II\n")
    assert recording.start_us == round(expected.timestamp() * 1e6)
    assert recording.notes == (
        f"the time {start.split(maxsplit=1)[0]!r} in the header is read as minutes and seconds, as WFDB does",
        "signal 1 of 1 (II) in mV, 250 Hz",
    )


@pytest.mark.parametrize(
    "start",
    [
        "05/25/2020 9:00:00",
        "05/05/2020 9:00:00 PM",
        "9:00:00 05/05/2020 10:00:00",
        "25:00:00 05/05/2020",
        "noon",
        "9:00:00 00/00/0000",
        "23:59:60 31/12/2020",
        "23:59:59.999999999 31/12/9999",
    ],
)
def test_a_start_that_is_not_understood_is_told(tmp_path: Path, start: str) -> None:
    recording = read(tmp_path, f"r 1 250 4 {start}\nr.dat 16 200 12 0 0 0 0 II\n")
    assert recording.start_us is None
    assert recording.notes[0] == f"the start {start!r} in the header is not understood"


def test_what_the_header_leaves_open_is_told(tmp_path: Path) -> None:
    recording = read(tmp_path, "r 1\nr.dat 16 0\n")
    assert recording.rate_hz == 250
    assert recording.mv.tolist() == [0.5, -0.25, 0.125, 1.5]
    assert [note.split(":")[0] for note in recording.notes] == [
        "the header states no sampling rate",
        "signal 1 of 1 (unnamed) in mV, 250 Hz",
        "no signal has a name",
        "signal 1 is not calibrated",
    ]


def test_a_gain_that_is_no_number_is_told(tmp_path: Path) -> None:
    recording = read(tmp_path, "r 1 250 4\nr.dat 16 nan/mV 12 0 100 375 0 II\n")
    assert recording.mv.tolist() == [0.5, -0.25, 0.125, 1.5]
    assert "II is not calibrated: the default of 200 units per mV is assumed" in recording.notes


def test_a_stated_rate_that_is_not_that_of_the_header_is_told(tmp_path: Path) -> None:
    header = "r 1 250 4\nr.dat 16 200 12 0 100 375 0 II\n"
    recording = read(tmp_path, header, ReadOptions(rate_hz=500.0))
    assert recording.rate_hz == 500
    assert "500 Hz as stated with --rate, not 250 Hz as in the file" in recording.notes
    assert read(tmp_path, header, ReadOptions(rate_hz=250.0)).notes == ("signal 1 of 1 (II) in mV, 250 Hz",)


def test_the_stated_rate_takes_the_place_of_an_invalid_one(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="--rate"):
        read(tmp_path, "r 1 0 4\nr.dat 16 200 12 0 0 0 0 II\n")
    recording = read(tmp_path, "r 1 0 4\nr.dat 16 200 12 0 0 0 0 II\n", ReadOptions(rate_hz=125.0))
    assert recording.rate_hz == 125


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=120) | st.text("r12. /:+x()~#\n\r\tmV-", max_size=120).map(str.encode))
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp(), content)
    try:
        recording = open_recording(path)
    except RecordingError as error:
        told = str(error)
    else:
        told = f"{path}: {count_samples(recording)} samples"
    assert str(path.parent) in told
    assert len(told) < 700


def count_samples(recording: Recording) -> int:
    return sum(piece.values.size for piece in recording.read_pieces())
