"""WFDB records compared with wfdb, an independent reader, and invalid files."""

import struct
import warnings

import numpy as np
import pytest

from captures import RecordingError, open_recording

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 calls what pandas 3 deprecates
    import wfdb


@pytest.mark.parametrize("name", ["mitdb/101", "mitdb/207", "cinc2017-sample/A00178", "cinc2017-sample/A04042"])
def test_signals_agree_with_wfdb(name, data):
    expected = wfdb.rdrecord(str(data / name), channels=[0])
    record = open_recording(data / f"{name}.hea")
    assert record.rate_hz == expected.fs
    np.testing.assert_allclose(record.mv, expected.p_signal[:, 0], atol=1e-9)
    assert record.segments == ((0.0, 0, expected.sig_len - 1),)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb 4.3 calls what pandas 3 deprecates
@pytest.mark.parametrize("fmt", ["16", "80", "212"])
def test_reads_every_format_that_wfdb_writes(fmt, tmp_path):
    top = 100 if fmt == "80" else 2000
    adc = np.random.default_rng(7).integers(-top, top, (501, 3))
    wfdb.wrsamp(
        "r", fs=250, units=["bpm", "uV", "mV"], sig_name=["PULSE", "MLII", "V1"], d_signal=adc,
        fmt=[fmt] * 3, adc_gain=[1.0, 0.5, 200.0], baseline=[0, 12, 3], write_dir=str(tmp_path),
    )  # fmt: skip
    record = open_recording(tmp_path / "r.dat")
    assert record.mv == pytest.approx((adc[:, 1] - 12) / 0.5 / 1000)
    assert record.notes == ("signal 2 of 3 (MLII) in uV, 250 Hz",)


def test_format_61_is_format_16_with_the_high_byte_first(tmp_path):
    (tmp_path / "r.hea").write_text("r 1 250 2\nr.dat 61+3 100\n")
    (tmp_path / "r.dat").write_bytes(b"abc\x01\x00\xff\x9c")
    assert open_recording(tmp_path / "r.hea").mv == pytest.approx([2.56, -1.0])


def write(folder, header, samples):
    (folder / "r.hea").write_text(header)
    (folder / "r.dat").write_bytes(struct.pack(f"<{len(samples)}h", *samples))
    return folder / "r.hea"


def test_invalid_samples_are_nan_and_split_the_segments(tmp_path):
    record = open_recording(write(tmp_path, "r 1 100 6\nr.dat 16 100 16 0 0 0 0 ECG\n", [100, -50, -32768, -32768, 25, 0]))
    assert record.mv == pytest.approx([1.0, -0.5, np.nan, np.nan, 0.25, 0.0], nan_ok=True)
    assert record.segments == ((0.0, 0, 1), (0.04, 4, 5))
    assert record.duration_s == pytest.approx(0.06)


def test_missing_header_fields_take_the_defaults(tmp_path):
    record = open_recording(write(tmp_path, "# a comment\nr 2\nr.dat 16 1/bpm\nr.dat 16x2\n", [7, 200, 400, 7, 600, 800]))
    assert record.rate_hz == 500
    assert record.mv == pytest.approx([1, 2, 3, 4])


def test_the_start_time_is_utc(tmp_path):
    record = open_recording(write(tmp_path, "r 1 100/1 2 12:30:15.5 24/12/2023\nr.dat 16 100\n", [1, 2]))
    assert record.start_us == 1703421015_500_000


def test_unusual_but_readable_files_get_notes(tmp_path):
    record = open_recording(write(tmp_path, "r 1 100 2\nr.dat 16 1 16 0 0 9 0 ECG\n", [1, 2, 3, 4, 5]))
    assert len(record.mv) == 2
    assert not record.is_truncated
    assert record.notes == (
        "r.dat holds 5 samples per signal, the header states 2: the rest is left out;"
        " if the format in the header is wrong, correct it",
        "the checksum of r.dat does not match the header: samples may be damaged",
        "signal 1 of 1 (ECG) in mV, 100 Hz",
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "not a WFDB header"),
        ("hello, world\n", "not a WFDB header"),
        ("r/3 1 100 10\nr_1 5\n", "states 3 segments but names 1"),
        ("r 2 100 4\nr.dat 16 100\n", "states 2 signals but describes 1"),
        ("r 0 250 9205760\n", "the record has no signals, only annotations"),
        ("r 1 100 4\nr.dat 16 1e-320\n", "invalid gain, baseline or frame in signal line .*; correct the header"),
        (f"r 1 100 4\nr.dat 16 100({'9' * 400})\n", "invalid gain, baseline or frame"),
        (f"r {'9' * 4000} 100 4\nr.dat 16 100\n", "invalid number of signals in the header"),
        (f"r 1 100 {'9' * 5000}\nr.dat 16 100\n", "a number in it, is longer than 4096 characters"),
        (f"r 1 100 {'9' * 400}\nr.dat 16 100\n", "invalid number of samples in the header"),
        ("r 1 100 -4\nr.dat 16 100\n", "invalid number of samples in the header"),
        ("r 1 0 4\nr.dat 16 100\n", "the sampling rate in the header is '0'.*--rate"),
        ("r 1 1-2 4\nr.dat 16 100\n", "the sampling rate in the header is '1-2'"),
        ("r 1 100 999999999999999\nr.dat 16 100\n", "31 years"),
        ("r 2 100 4\nr.dat 16x1000000 100\nr.dat 16x1000000 100\n", "frame of 2000000 samples is too long"),
        ("r 2 100 2\nr.dat 16 100\nr.dat 212 100\n", "signals of r.dat differ in format"),
        ("r 1 100 4\nr.dat sixteen\n", "invalid signal line 'r.dat sixteen'"),
        ("r 1 100 4\nr.dat 17 100\n", "format 17 is not known .*16, 24, 32, 61, 80, 160, 212, 310, 311, 508, 516, 524"),
        ("r 1 100 4\n/etc/passwd 16 100\n", "signal file /etc/passwd is missing; put it beside the header"),
        ("r 1 100 4\n.. 16 100\n", "signal file .. is missing"),
        ("r 1 100 4\ngone.dat 16 100\n", "signal file gone.dat is missing; put it beside the header"),
        ("r 1 100 5\nr.dat 16+8 100\n", "truncated: holds no samples; fetch the file again"),
        ("r 1 100 4\nr.dat 16 100/mmHg 16 0 0 0 0 ART\n", r"no ECG among its signals \(ART"),
        ("r 1 100 4\nr.dat 16 100/mmHg 16 0 0 0 0 ECG\n", "unit of ECG is 'mmHg', not a voltage; state it with --unit"),
    ],
)
def test_an_invalid_record_gives_a_one_line_error(header, message, tmp_path):
    path = write(tmp_path, header, [1, 2, 3, 4])
    with pytest.raises(RecordingError, match=message) as error:
        open_recording(path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_binary_header_gives_an_error(tmp_path):
    (tmp_path / "r.hea").write_bytes(b"\xff\xfd\x00\x01")
    with pytest.raises(RecordingError, match="it is not text"):
        open_recording(tmp_path / "r.hea")


@pytest.mark.parametrize("name", ["gone.hea", "gone.dat", "gone.csv"])
def test_the_error_names_a_missing_file(name, tmp_path):
    with pytest.raises(RecordingError, match="no such file; check the name"):
        open_recording(tmp_path / name)


def test_other_files_and_folders_give_errors(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(RecordingError, match=r"give a WFDB header \(.hea\), a table"):
        open_recording(tmp_path / "picture.png")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(RecordingError, match="is a folder"):
        open_recording(tmp_path / "folder.csv")
