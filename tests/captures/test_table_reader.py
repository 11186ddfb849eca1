"""Tables with a header row: units, gaps, truncated and invalid files."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import ReadOptions, RecordingError, open_recording
from captures.table.reader import read_table


def write(folder, text, name="r.csv"):
    (folder / name).write_text(text, "utf-8")
    return folder / name


def rows(times, values, delimiter=","):
    return "".join(f"{time}{delimiter}{value}\n" for time, value in zip(times, values, strict=True))


def test_reads_a_polar_h10_recording(data):
    record = open_recording(data / "polar-h10" / "polar_h10.csv")
    assert record.mv.size == 78096
    assert record.mv[:3] == pytest.approx([-0.098, -0.084, -0.072])
    assert record.rate_hz == pytest.approx(130.16, abs=0.01)
    assert record.start_us == 1714920600006020
    assert len(record.segments) == 1
    assert record.rr_s[:4] == pytest.approx([0.421, 0.379, 1.073, 0.413])
    assert record.rr_t_s[0] == pytest.approx(0.4302, abs=1e-4)


def test_reads_a_gzipped_export_with_several_signals(data):
    record = open_recording(data / "bidmc01" / "bidmc_01_Signals.csv.gz")
    assert (record.name, record.rate_hz, record.mv.size) == ("bidmc_01_Signals", 125.0, 60001)
    assert record.start_us is None
    assert record.mv[:2] == pytest.approx([0.52549, 0.51961])


@pytest.mark.parametrize(
    ("header", "step"),
    [
        ("time,ecg", 0.008),
        ("t,ECG", 8),
        ("timestamp,ecg", 8000),
        ("Timestamp,EKG", 8_000_000),
        ("time [s],ecg", 0.008),
        ("time_ms,ecg_mv", 8),
        ("sensor timestamp [ns],ecg [mV]", 8_000_000),
        ("Time (us), MLII (mV)", 8000),
        ("seconds,ECG II", 0.008),
    ],
)
def test_finds_the_time_unit_by_name_or_by_step(header, step, tmp_path):
    values = np.round(np.sin(np.arange(50)), 3)
    record = open_recording(write(tmp_path, header + "\n" + rows(np.arange(50) * step, values)))
    assert record.rate_hz == pytest.approx(125)
    assert record.mv == pytest.approx(values)


@pytest.mark.parametrize(
    ("header", "unit", "mv_per_unit"),
    [
        ("t,ecg_uv", None, 1e-3),
        ("t,ecg [µV]", None, 1e-3),
        ("t,ecg (mV)", None, 1.0),
        ("t,ecg", "uV", 1e-3),
        ("t,ecg", "200/mV", 5e-3),
        ("t,ecg [mV]", "uV", 1e-3),
    ],
)
def test_the_unit_is_that_of_the_title_unless_the_user_states_one(header, unit, mv_per_unit, tmp_path):
    values = np.arange(50) * 7 if mv_per_unit < 1 else np.arange(50) / 10
    path = write(tmp_path, header + "\n" + rows(np.arange(50) * 8, values))
    assert open_recording(path, ReadOptions(unit=unit)).mv == pytest.approx(values * mv_per_unit)


def test_reads_an_export_of_polar_sensor_logger(tmp_path):
    text = "Phone timestamp;sensor timestamp [ns];timestamp [ms];ecg [uV]\n" + "".join(
        f"2023-05-04T10:11:12.{n:03d};{599616000000000000 + n * 7692308};{n * 7.692308};{n * 10}\n" for n in range(100)
    )
    record = open_recording(write(tmp_path, text, "ecg.txt"))
    assert record.rate_hz == pytest.approx(130, abs=0.001)
    assert record.mv[99] == pytest.approx(0.99)
    assert record.start_us == 1683195072_000_000


def test_reads_calendar_times_and_decimal_commas(tmp_path):
    text = "\ufeffDateTime;ECG\n" + "".join(f"2024-05-05T14:50:00.{8 * n:03d}+02:00;0,{n:03d}\n" for n in range(100))
    record = open_recording(write(tmp_path, text))
    assert record.rate_hz == pytest.approx(125)
    assert record.start_us == 1714913400_000_000
    assert record.mv[5] == pytest.approx(0.005)


def test_missing_rows_and_cells_split_the_segments(tmp_path):
    times = [0, 8, 16, 40, 48, 56, 64]
    record = open_recording(write(tmp_path, "time [ms],ecg [mV]\n" + rows(times, [1, 2, 3, 4, "", 6, 7])))
    assert record.segments == ((0.0, 0, 2), (0.04, 3, 3), (0.056, 4, 5))
    assert record.rate_hz == pytest.approx(125)
    assert record.mv == pytest.approx([1, 2, 3, 4, 6, 7])
    assert record.duration_s == pytest.approx(0.072)


MISSING = ["inf", "-Infinity", "nan", "NA", "N/A", "null", "None", "-", "--", "#N/A", "1e308", ""]


@pytest.mark.parametrize("value", MISSING)
def test_values_that_cannot_be_measured_are_missing(value, tmp_path):
    record = open_recording(write(tmp_path, "t,ecg [mV]\n" + rows(np.arange(6) * 8, [1, 2, value, 4, 5, 6])))
    assert record.mv == pytest.approx([1, 2, 4, 5, 6])
    assert record.segments == ((0.0, 0, 1), (0.024, 2, 4))


def test_a_column_without_valid_samples_is_refused(tmp_path):
    path = write(tmp_path, "t,ecg\n" + rows(np.arange(6) * 8, ["inf", "nan", "", "", "", ""]))
    with pytest.raises(RecordingError, match="column 'ecg' holds 0 samples; at least two are needed"):
        open_recording(path)


@pytest.mark.parametrize("seed", range(5))
def test_jitter_neither_creates_nor_hides_a_gap(seed, tmp_path):
    jitter = np.random.default_rng(seed).uniform(-3, 3, 7800)
    times = np.arange(7800) * 1000 / 130 + jitter
    kept = np.delete(np.arange(7800), [2000, *range(4000, 4073)])
    record = open_recording(write(tmp_path, "t [ms],ecg\n" + rows(np.round(times[kept], 2), np.sin(kept))))
    assert record.rate_hz == pytest.approx(130, rel=1e-3)
    after_gaps = np.array([segment.first for segment in record.segments[1:]])
    assert 3999 in after_gaps
    assert np.abs(after_gaps[:, None] - [2000, 3999]).min(axis=1).max() <= 13


@pytest.mark.parametrize("rate_hz", [130, 256, 300, 360, 450, 600])
def test_finds_each_missing_row_with_times_in_whole_ms(rate_hz, tmp_path):
    kept = np.delete(np.arange(4000), [1000, 1010, 3000, 3001])
    record = open_recording(write(tmp_path, "t [ms],ecg\n" + rows(kept * 1000 // rate_hz, np.sin(kept))))
    assert record.rate_hz == pytest.approx(rate_hz, rel=1e-3)
    assert [segment[1:] for segment in record.segments] == [(0, 999), (1000, 1008), (1009, 2997), (2998, 3995)]


@pytest.mark.parametrize(("columns", "last_row"), [("t,ecg [mV]", "24.0"), ("t,ecg [mV]", "24.0,-"), ("ecg [mV],t", "4")])
def test_a_truncated_last_row_is_left_out_with_a_note(columns, last_row, tmp_path):
    complete = rows([0, 8, 16], [1, 2, 3]) if columns.startswith("t") else rows([1, 2, 3], [0, 8, 16])
    record = open_recording(write(tmp_path, f"{columns}\n{complete}{last_row}"))
    assert record.mv == pytest.approx([1, 2, 3])
    assert record.notes[1:] == ("row 5, the last one, is truncated and left out; the rows before it are complete",)


def test_a_complete_last_row_needs_no_line_end(tmp_path):
    record = open_recording(write(tmp_path, "t,ecg [mV]\n0,1\n8,2\n16,3"))
    assert (record.mv.size, len(record.notes)) == (3, 1)


def test_reads_a_gzipped_file_without_the_suffix(tmp_path):
    (tmp_path / "r.csv").write_bytes(gzip.compress(b"t,ecg [mV]\n0,1\n8,2\n16,3\n"))
    assert open_recording(tmp_path / "r.csv").mv.size == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; give a recording"),
        ("time,ecg\n0,1\n", "column 'ecg' holds 1 samples; at least two are needed"),
        ("time,pulse\n0,1\n8,1\n", r"no ECG among its columns \(pulse\); if one is an ECG, name it with --column, .* --unit"),
        ("beat,ecg\n0,1\n8,1\n", r"no column of times among its columns \(beat, ecg\); give .* --rate, and the unit .* --unit"),
        ("t,ecg [bpm]\n0,1\n8,2\n", "unit 'bpm' of column 'ecg' is not a unit of voltage; give its unit with --unit"),
        ("t,ecg\n0,1\n8,1\n16,1,3\n", "row 4 has 3 cells, the others have 2; remove or complete that row"),
        ("t,ecg\n0,1\n8,1\n16\n24,2\n", "row 4 has 1 cells, the others have 2; remove or complete that row"),
        ("t,ecg\n0,1\n8,x\n", "row 3, column 'ecg': 'x' is not a number"),
        ("t,ecg\n0,1\n,2\n16,3\n", "row 3 has no time; remove that row"),
        ("t,ecg\nnoon,1\n8,2\n16,3\n", "row 2, column 't': 'noon' is not a number"),
        ("t,ecg [mV]\n0,1\n8,2\n400,3\n0,3\n20,3\n", "goes back by 0.4 s at row 5, .* split the file there"),
        ("t,ecg\n0,1\n150,2\n300,3\n", "'t' has steps of 150 in an unknown unit; give the sampling rate with --rate"),
        ("t [s],ecg\n0,1\n8,2\n16,3\n", "times in column 't' give a sampling rate of 0.125 Hz, outside 50 to 4000 Hz"),
        ("t,ecg\n5,1\n5,2\n5,3\n", "all rows have the same time in column 't'; give the sampling rate with --rate"),
        ("t,ecg\n0,1\n8,2\ninf,3\n24,4\n", "row 4 has 'inf' as its time, which is not a valid number; remove that row"),
        ("t,ecg\n1e300,1\n2e300,2\n", "row 2 has '1e300' as its time"),
        ("t [ms],ecg\n0,1\n8,2\n16,3\n1e15,4\n", "jumps by 1e\\+12 s at row 5, but no recording is longer than 1e\\+09 s"),
        (
            "time,ecg\n2024-05-05T25:00:00,1\n2024-05-05T25:00:01,2\n",
            "row 2, column 'time': '2024-05-05T25:00:00' is not a time",
        ),
    ],
)
def test_an_invalid_file_gives_a_one_line_error(text, message, tmp_path):
    with pytest.raises(RecordingError, match=message) as error:
        open_recording(write(tmp_path, text))
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x00\x01\x02" * 99, "not text but binary data"), (gzip.compress(b"t,ecg\n" * 99, mtime=0)[:-9], "damaged gzip")],
)
def test_a_damaged_file_gives_an_error(content, message, tmp_path):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        open_recording(tmp_path / "r.csv")


@given(st.text("0123456789.,;\t-:TZ \"'\nnaintime ecg[msuV]", max_size=120))
def test_any_text_is_read_or_gives_a_recording_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text("time,ecg\n" + text, "utf-8")
    try:
        assert read_table(path, ReadOptions(unit="mV")).mv.size >= 1
    except RecordingError as error:
        assert str(path) in str(error)  # noqa: PT017
