"""Which column of a table is the ECG, and in which unit it is."""

import numpy as np
import pytest

from captures import ReadOptions, RecordingError, open_recording

T_S = np.arange(1000) / 125
MV = np.round(1.2 * np.exp(-((((T_S - 0.3) % 0.8) / 0.012 - 20) ** 2)) + 0.1 * np.sin(T_S), 5)


def read(folder, columns, name="r.csv", options=None):
    """Read a table of these columns: title and cells; the first one is the time in seconds."""
    cells = [
        [f"{t:.3f}" for t in T_S],
        *([str(value) for value in np.broadcast_to(column, T_S.shape)] for column in columns.values()),
    ]
    (folder / name).write_text(
        f"{','.join(['time [s]', *columns])}\n" + "".join(",".join(row) + "\n" for row in zip(*cells, strict=True))
    )
    return open_recording(folder / name, options or ReadOptions())


@pytest.mark.parametrize(
    "others",
    [
        "V",
        "Lead off",
        "LO+",
        "ECG HR [bpm]",
        "ECG_RESP",
        "ECG quality",
        "ecg_timestamp",
        "ECG_Status",
        "II (filtered)",
        "Battery V",
    ],
)
def test_the_ecg_is_the_column_that_says_so(others, tmp_path):
    record = read(tmp_path, {others: 3.9, "ECG [mV]": MV})
    assert record.mv == pytest.approx(MV)
    assert record.notes[0].startswith("ECG from column 'ECG [mV]' in mV, time from 'time [s]', 125 Hz by the times")


@pytest.mark.parametrize(
    "title", ["ecg_mv", "EKG (mV)", "ECG [millivolt]", "ECG, mV", "Lead II [mV]", "ECG_LL-RA mV", "EcgWaveform [mV]", "ECG/mV"]
)
def test_reads_names_and_units_in_every_spelling(title, tmp_path):
    assert read(tmp_path, {title.replace(", ", ";"): MV}).mv == pytest.approx(MV)


def test_a_flat_first_lead_is_told_and_the_next_one_read(tmp_path):
    record = read(tmp_path, {"ecg1 [mV]": 0, "ecg2 [mV]": MV})
    assert record.mv == pytest.approx(MV)
    assert "column ecg1 is constant (flat): column ecg2 is read" in record.notes
    record = read(tmp_path, {"ecg1 [mV]": 0, "ecg2 [mV]": MV}, options=ReadOptions(signal="ecg1"))
    assert any("is constant (flat): no beats can be found" in note for note in record.notes)


@pytest.mark.parametrize("title", ["value", "hr", "Count", "Voltage", "signal", "CH2", "data [mV]"])
def test_a_column_that_may_be_anything_must_be_named(title, tmp_path):
    with pytest.raises(RecordingError, match=r"no ECG among its columns .* name it with --column") as error:
        read(tmp_path, {title: MV})
    assert ("--unit" in str(error.value)) == ("[mV]" not in title)
    for name in (title.partition(" ")[0], "2"):
        record = read(tmp_path, {title: MV}, options=ReadOptions(signal=name, unit="mV"))
        assert record.mv == pytest.approx(MV)


@pytest.mark.parametrize(("per_mv", "unit"), [(1e-3, "V"), (1.0, "mV"), (1e3, "uV")])
def test_fractions_without_a_unit_are_read_by_their_amplitude(per_mv, unit, tmp_path):
    record = read(tmp_path, {"ecg": [f"{value:.7f}" for value in MV * per_mv]})
    assert record.mv == pytest.approx(MV, abs=1e-3)
    assert f"in {unit} (inferred from its amplitude of" in record.notes[0]


@pytest.mark.parametrize(
    ("title", "values", "message"),
    [
        ("ecg", np.rint(MV * 1000).astype(int), "are whole numbers without a unit: counts or µV"),
        ("ecg", np.rint(MV * 80 + 512).astype(int), "are whole numbers without a unit: counts or µV"),
        ("ecg", np.rint(MV * 9e4 + 2**23).astype(int), "are whole numbers without a unit: counts or µV"),
        ("ecg [adc]", np.rint(MV * 80 + 512).astype(int), "are whole numbers without a unit: counts or µV"),
        ("ecg [raw]", MV, "have no unit and an amplitude of 1"),
        ("ecg", MV / 60, "have no unit and an amplitude of 0.019"),
        ("ecg", MV * 25, "have no unit and an amplitude of 28"),
        ("ecg", 3.9 + MV / 100, "have no unit and an amplitude of 0.01"),
        ("ecg [mV]", MV * 1000, r"said to be in mV, but 1.\d+e\+03 mV peak to peak cannot be an ECG"),
        ("ecg [mV]", MV / 1000, r"said to be in mV, but 0.001\d+ mV peak to peak cannot be an ECG"),
        ("ecg [bpm]", MV, "unit 'bpm' of column 'ecg' is not a unit of voltage"),
    ],
)
def test_a_unit_that_is_a_guess_or_cannot_be_right_must_be_stated(title, values, message, tmp_path):
    with pytest.raises(RecordingError, match=message + r".*; give (its|their) unit with --unit \(V, mV, uV, or counts per"):
        read(tmp_path, {title: values})
    record = read(tmp_path, {title: values}, options=ReadOptions(unit="500/mV"))
    expected = np.asarray(values) / 500
    level = np.median(expected) if abs(np.median(expected)) > 300 else 0.0
    assert record.mv == pytest.approx(expected - level, abs=1e-4)


def test_an_offset_is_no_amplitude(tmp_path):
    record = read(tmp_path, {"ecg [mV]": MV + 1650})
    assert record.mv == pytest.approx(MV - np.median(MV), abs=1e-3)
    assert any(note.startswith("a constant offset of 16") for note in record.notes)


@pytest.mark.parametrize("sentinel", [-32768, 32767, 9999, -9999])
def test_a_value_far_from_all_others_is_a_missing_sample(sentinel, tmp_path):
    values = np.rint(MV * 1000).astype(int)
    values[500:625] = sentinel
    record = read(tmp_path, {"ecg [uV]": values})
    assert [segment.first for segment in record.segments] == [0, 500]
    assert record.segments[1].start_s == pytest.approx(5.0)
    assert f"samples of {sentinel} count as missing" in record.notes


def test_a_value_near_others_is_no_missing_sample(tmp_path):
    values = np.rint(np.linspace(9000, 11000, 1000)).astype(int)
    record = read(tmp_path, {"ecg": values}, options=ReadOptions(unit="1000/mV"))
    assert (record.mv.size, len(record.segments)) == (1000, 1)


def test_a_pulse_wave_is_read_where_it_is_named(tmp_path):
    with pytest.raises(
        RecordingError, match=r"no ECG among its columns \(PPG\); to replay the pulse wave, give --column 'PPG'"
    ):
        read(tmp_path, {"PPG": MV})
    assert read(tmp_path, {"PPG": MV}, options=ReadOptions(signal="PPG")).kind == "ppg"
    colours = {"R": MV, "G": MV + 1, "B": MV + 2}
    with pytest.raises(RecordingError, match=r"the file's name says that it is a pulse wave"):
        read(tmp_path, colours, name="PPG.csv")
    record = read(tmp_path, colours, name="PPG.csv", options=ReadOptions(signal="G"))
    assert (record.kind, record.mv[:3]) == ("ppg", pytest.approx(MV[:3] + 1))
    assert read(tmp_path, {"ECG [mV]": MV}, name="PPG.csv").kind == "ecg"


def test_one_retry_suffices_where_column_unit_and_rate_are_unknown(tmp_path):
    (tmp_path / "r.csv").write_text("index,Count\n" + "".join(f"{n},{v:.0f}\n" for n, v in enumerate(MV * 1000)))
    with pytest.raises(RecordingError, match="--column, and the sampling rate with --rate, and its unit with --unit"):
        open_recording(tmp_path / "r.csv")
    record = open_recording(tmp_path / "r.csv", ReadOptions("Count", "uV", 125.0))
    assert record.mv == pytest.approx(MV, abs=1e-3)


@pytest.mark.parametrize("options", [ReadOptions(signal="foo"), ReadOptions(unit="furlong"), ReadOptions(signal="9")])
def test_an_option_that_does_not_fit_the_file_is_refused(options, tmp_path):
    with pytest.raises(RecordingError, match=r"no column '(foo|9)' among|'furlong' is not a unit of voltage"):
        read(tmp_path, {"ecg [mV]": MV}, options=options)
