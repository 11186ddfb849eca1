"""Lists of RR intervals without any samples."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import ReadOptions, RecordingError, RrRecording, open_file, open_recording
from captures.interval_kind import NumberKind, classify_numbers
from captures.intervals import read_intervals

START_US = 1_714_912_200_000_000
NO_OPTIONS = ReadOptions()


def intervals(count=200, seed=1):
    """RR intervals in ms: 72/min with respiratory variation."""
    rng = np.random.default_rng(seed)
    return np.rint(833 + 40 * np.sin(np.arange(count) / 2.5) + rng.normal(0, 20, count))


def write(folder, text, name="rr.txt", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def lines(values):
    return "".join(f"{value}\n" for value in values)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (lines(intervals().astype(int)), "ms"),
        (lines(intervals() / 1000), "s"),
        (lines(str(value / 1000).replace(".", ",") for value in intervals()), "s"),
        ("RR [ms]\n" + lines(intervals()), "ms"),
        ("RR_Intervals\n" + lines(intervals()), "ms"),
        ("IBI (s)\r\n" + lines(intervals() / 1000), "s"),
        ("# R-R intervals of a strap\n\nR-R (ms)\n" + lines(intervals()), "ms"),
    ],
)
def test_one_interval_a_line_with_or_without_a_title(text, unit, tmp_path):
    opened = open_file(write(tmp_path, text))
    assert isinstance(opened, RrRecording)
    assert opened.rr_s == pytest.approx(intervals() / 1000)
    assert opened.t_s == pytest.approx(np.cumsum(intervals() / 1000))
    assert f"200 RR intervals in {unit}" in opened.notes[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_of_windows(encoding, tmp_path):
    opened = open_file(write(tmp_path, "RR [ms]\n" + lines(intervals()), encoding=encoding))
    assert isinstance(opened, RrRecording)
    assert opened.rr_s.size == 200


def test_empatica_states_start_and_times(tmp_path):
    ends = np.cumsum(intervals() / 1000) + 5
    rows = "".join(f"{end:.6f},{rr / 1000:.6f}\n" for end, rr in zip(ends, intervals(), strict=True))
    opened = open_file(write(tmp_path, "1714912200.000000, IBI\n" + rows, "IBI.csv"))
    assert isinstance(opened, RrRecording)
    assert opened.start_us == START_US
    assert opened.t_s == pytest.approx(ends, abs=1e-6)
    assert opened.rr_s == pytest.approx(intervals() / 1000)


def test_polar_sensor_logger_keeps_gaps_of_its_clock(tmp_path):
    rr = intervals(40)
    ends = np.cumsum(rr) + np.where(np.arange(40) >= 20, 60_000, 0)
    stamps = (np.datetime64("2024-05-05T12:30:00.000") + ends.astype(int).astype("timedelta64[ms]")).astype(str)
    rows = "".join(f"{stamp};{int(value)}\n" for stamp, value in zip(stamps, rr, strict=True))
    opened = open_file(write(tmp_path, "Phone timestamp;RR-interval [ms]\n" + rows))
    assert isinstance(opened, RrRecording)
    assert opened.start_us == START_US + round(ends[0] * 1000)
    assert opened.t_s == pytest.approx((ends - ends[0]) / 1000, abs=1e-3)


def test_polar_flow_marks_intervals_without_contact(tmp_path):
    opened = open_file(write(tmp_path, "duration,offline\n800,0\n810,0\n5000,1\n820,0\n"))
    assert isinstance(opened, RrRecording)
    assert opened.rr_s == pytest.approx([0.8, 0.81, 0.82])
    assert opened.t_s == pytest.approx([0.8, 1.61, 7.43])
    assert any("1 rows without an interval are left out" in note for note in opened.notes)


def test_a_polar_hrm_file_of_intervals(tmp_path):
    head = "[Params]\nVersion=106\nInterval=238\nDate=20240505\nStartTime=12:30:00.0\n\n[Note]\n\n[HRData]\n"
    opened = open_file(write(tmp_path, head + lines(intervals().astype(int))))
    assert isinstance(opened, RrRecording)
    assert (opened.start_us, opened.rr_s.size) == (START_US, 200)


def test_times_and_intervals_without_titles_fit_each_other(tmp_path):
    ends = np.cumsum(intervals())
    rows = "".join(f"{end / 1000:.3f} {rr:.0f}\n" for end, rr in zip(ends, intervals(), strict=True))
    opened = open_file(write(tmp_path, rows))
    assert isinstance(opened, RrRecording)
    assert opened.t_s == pytest.approx(ends / 1000)


def ecg(rate_hz, middle, counts_per_mv, noise, seed=2, seconds=60):
    """Counts of an analog-to-digital converter: QRS complexes and T waves at 70/min."""
    t = np.arange(seconds * rate_hz) / rate_hz
    phase = t % 0.857
    wave = 1.2 * np.exp(-(((phase - 0.3) / 0.012) ** 2)) + 0.3 * np.exp(-(((phase - 0.55) / 0.04) ** 2))
    drift = 0.1 * np.sin(2 * np.pi * 0.25 * t)
    return np.rint(middle + counts_per_mv * (wave + drift) + np.random.default_rng(seed).normal(0, noise, t.size))


@pytest.mark.parametrize("rate_hz", [100, 125, 250, 500, 1000])
@pytest.mark.parametrize(("middle", "counts_per_mv", "noise"), [(512, 200, 1), (512, 200, 3), (400, 100, 2), (900, 300, 4)])
def test_counts_of_an_ecg_are_never_taken_for_intervals(rate_hz, middle, counts_per_mv, noise, tmp_path):
    values = ecg(rate_hz, middle, counts_per_mv, noise)
    assert values.min() > 250
    assert classify_numbers(values / 1000) is not NumberKind.INTERVALS


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [8, 20, 60, 150])
@pytest.mark.parametrize("ectopic", [0.0, 0.01])
def test_intervals_are_recognised_with_premature_and_missed_beats(seed, spread, ectopic):
    rng = np.random.default_rng(seed)
    count = 2_000
    slow = 30 * np.sin(np.arange(count) / 400) + spread * np.sin(np.arange(count) / 2.5)
    values = np.clip(np.rint(820 + slow + rng.normal(0, spread, count)), 300, 2000)
    early = np.flatnonzero(rng.random(count - 1) < ectopic)
    values[early], values[early + 1] = 500, 1150
    values[1000] = 3_012
    assert classify_numbers(values / 1000) is NumberKind.INTERVALS


@pytest.mark.parametrize("record", ["101", "104", "114", "207", "215"])
@pytest.mark.parametrize("every", [1, 3])
def test_counts_of_mitdb_are_never_taken_for_intervals(record, every, data):
    counts = np.rint(open_recording(data / "mitdb" / f"{record}.hea").mv[:60_000:every] * 200 + 1024)
    assert np.median(counts) > 900
    assert classify_numbers(counts / 1000) is not NumberKind.INTERVALS


def test_what_could_be_either_is_refused_with_both_ways_out(tmp_path):
    slow = np.rint(800 + 100 * np.sin(np.arange(3_000) / 8))
    path = write(tmp_path, lines(slow.astype(int)))
    with pytest.raises(RecordingError, match=r"may be RR intervals or samples .* first line 'RR \[ms\]'.*--rate HZ and --unit"):
        read_intervals(path, NO_OPTIONS)
    assert read_intervals(path, ReadOptions(rate_hz=250.0)) is None
    titled = read_intervals(write(tmp_path, "RR [ms]\n" + lines(slow.astype(int))), NO_OPTIONS)
    assert titled is not None


@pytest.mark.parametrize(
    "text",
    [
        "time,ecg,rr\n0,0.1,800\n0.004,0.2,810\n",
        "time [s],value\n0,0.1\n0.004,0.2\n",
        lines(range(-50, 50)),
        lines([121636, 121429, 121589]),
        "1 800\n2 810\n3 790\n50 805\n51 800\n52 800\n",
        "",
        "\n\n",
    ],
)
def test_other_tables_are_left_to_the_table_reader(text, tmp_path):
    assert read_intervals(write(tmp_path, text), NO_OPTIONS) is None


def test_a_title_without_intervals_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="no RR intervals in column 'RR"):
        read_intervals(write(tmp_path, "RR [ms]\n0\n0\n"), NO_OPTIONS)


@given(raw=st.binary(max_size=300) | st.text("0123456789.,;\t\n RrIBms[]-e", max_size=300).map(str.encode))
def test_any_bytes_are_intervals_or_not_or_give_a_recording_error(raw, tmp_path_factory):
    path = tmp_path_factory.mktemp("rr") / "rr.txt"
    path.write_bytes(raw)
    with suppress(RecordingError):
        found = read_intervals(path, NO_OPTIONS)
        if found is not None:
            assert (found.rr_s > 0).all()
            assert found.rr_s.size == found.t_s.size
            assert (np.diff(found.t_s) >= 0).all()
