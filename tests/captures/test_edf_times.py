"""The start of an EDF file, and the times of its data records: gaps, jitter, and files of many records."""

import datetime
import os
import tracemalloc

import numpy as np
import pytest

from captures import ReadOptions, RecordingError, open_recording
from tests.captures.edf_files import NOON_US, RAMP, annotations, edf, fails, field, onset, plus, read, signal, told


@pytest.mark.parametrize(
    ("date", "time", "recording", "start", "note"),
    [
        ("05.05.24", "12.30.00", "", "2024-05-05T12:30:00", None),
        ("05.05.24", "12:30:00", "Startdate X X X X", "2024-05-05T12:30:00", None),
        ("31.12.85", "23.59.59", "", "1985-12-31T23:59:59", None),
        ("31.12.84", "23.59.59", "", "2084-12-31T23:59:59", None),
        ("02.03.yy", "00.00.00", "Startdate 02-MAR-2090 X X X", "2090-03-02T00:00:00", None),
        ("05.05.24", "01.02.03", "Startdate 05-may-2024 X X X", "2024-05-05T01:02:03", None),
        (
            "05.05.24",
            "01.02.03",
            "Startdate 06-MAY-2024 X X X",
            "2024-05-06T01:02:03",
            "two start dates differ: 2024-05-06 is taken",
        ),
        ("05/06/24", "01.02.03", "", "2024-06-05T01:02:03", "read as day, month, year: 2024-06-05"),
        ("31-12-24", "01.02.03", "", "2024-12-31T01:02:03", None),
        ("12.31.24", "01.02.03", "", None, "'12.31.24' is not a date"),
        ("01.01.85", "00.00.00", "Startdate X X X X", None, "the true one was removed"),
        ("05.05.24", "12.30.61", "", None, "'12.30.61' is not a time"),
        ("05.05.24", "", "", None, "'' is not a time"),
        ("05.05.24", "12.30.00", "Startdate 99-FOO-2024", "2024-05-05T12:30:00", None),
    ],
)
def test_start(date, time, recording, start, note, tmp_path):
    record = read(tmp_path, edf(signal(), date=date, time=time, recording=recording))
    expected = start and round(datetime.datetime.fromisoformat(f"{start}+00:00").timestamp() * 1e6)
    assert record.start_us == expected
    assert (note or "ECG") in told(record)
    assert len(record.notes) == (2 if note else 1)


def test_names_in_latin_1_do_not_matter(tmp_path):
    assert read(tmp_path, edf(signal(), patient="René Müller", recording="1 août 2024")).start_us == NOON_US


def test_the_first_record_gives_the_fraction_of_the_start(tmp_path):
    record = read(tmp_path, plus(["+0.25", "+1.25", "+2.25"], "EDF+C"))
    assert record.start_us == NOON_US + 250_000
    assert record.segments == ((0.0, 0, 299),)
    assert len(record.notes) == 1


def test_gaps_follow_from_the_times_of_the_records(tmp_path):
    record = read(tmp_path, plus(["+0.5", "+1.5", "+7.25", "+8.25", "+9.35"]))
    assert record.start_us == NOON_US + 500_000
    assert record.segments == ((0.0, 0, 199), (6.75, 200, 399), (8.85, 400, 499))
    assert record.mv == pytest.approx(np.resize(RAMP, 500) * 1e-4, abs=1e-9)
    assert [chunk.continues for chunk in record.read_chunks()] == [True, False, False]


@pytest.mark.parametrize("samples", [10, 100_000])
def test_gaps_between_records_of_any_length(samples, tmp_path):
    onsets = [f"+{i + (5 if i > 30 else 0)}" for i in range(3 if samples > 10 else 50)]
    onsets = [*onsets[:-1], f"+{float(onsets[-1]) + 2}"]
    record = read(tmp_path, plus(onsets, samples=samples))
    last = len(onsets) - 1
    expected = (
        [(0.0, 0), (36.0, 31 * samples), (float(onsets[-1]), last * samples)] if samples == 10 else [(0.0, 0), (4.0, 200_000)]
    )
    assert [(segment.start_s, segment.first) for segment in record.segments] == expected


def test_jitter_of_the_times_is_not_a_gap_and_never_turns_time_back(tmp_path):
    record = read(tmp_path, plus(["0", "1.001", "1.999", "+3.0", "+4.05", "+4.99", "+5.99", "+9,5"]))
    pieces = list(record.read_pieces())
    ends = [piece.start_s + piece.values.size / 100 for piece in pieces]
    assert all(later.start_s >= end - 1e-9 for later, end in zip(pieces[1:], ends[:-1], strict=True))
    assert [piece.start_s for piece in pieces if not piece.continues] == pytest.approx([0, 4.05, 9.5])


def test_records_that_go_back_in_time_are_refused(tmp_path):
    assert "data record 3 starts 1.000 s before the one before it ends" in fails(tmp_path, plus(["+0", "+1", "+1", "+2"]))
    assert "its times cannot be right" in fails(tmp_path, plus(["+9", "+5"]))


def test_other_times_in_a_continuous_file_are_told(tmp_path):
    record = read(tmp_path, plus(["+0", "+1", "+7", "+8"], "EDF+C"))
    assert "1 data records state times up to 5.000 s after the end of the one before" in told(record)
    assert len(record.segments) == 1


def test_records_without_a_time_are_told(tmp_path):
    texts = [onset("+0"), b"", b"+5\x14event\x14\0", onset("+9")]
    record = read(tmp_path, edf(signal(), annotations(texts), kind="EDF+D"))
    assert "2 data records have no time: they are assumed to follow without a gap" in told(record)
    assert [segment.start_s for segment in record.segments] == [0, 9]
    assert "a discontinuous file without times" in told(read(tmp_path, edf(signal(), kind="EDF+D")))


def test_annotations_are_counted_in_any_signal_order(tmp_path):
    event = b"+1.5\x152\x14Apnea \xc3\xa9\x14Desaturation\x14\0"
    texts = [onset("+0", event), onset("+1"), onset("+2", event), onset("+3")]
    record = read(tmp_path, edf(annotations(texts), signal(), kind="EDF+C"))
    assert record.mv.size == 400
    assert told(record).endswith("4 annotations are not read")


def test_bdf_annotations_are_bytes_in_samples_of_three(tmp_path):
    times = [onset("+0"), onset("+1"), onset("+8"), onset("+9")]
    ecg = signal(samples=10)
    raw = edf(ecg, annotations(times, "BDF Annotations"), version=b"\xffBIOSEMI", kind="BDF+D")
    record = read(tmp_path, raw)
    assert record.segments == ((0.0, 0, 19), (8.0, 20, 39))


def test_a_first_record_long_after_the_start_is_told(tmp_path):
    record = read(tmp_path, plus(["+3600", "+3601"]))
    assert record.start_us == NOON_US + 3_600_000_000
    assert "starts 3600 s after the start in the header" in told(record)


def test_memory_is_bounded_by_the_chunk(tmp_path):
    raw = plus([f"+{i}" for i in range(4)], samples=500)
    with (tmp_path / "r.edf").open("wb") as file:
        file.write(raw[:236] + field(-1, 8) + raw[244:])
        for _ in range(20_000):
            file.write(bytes(500) + bytes([3, 4] * 250) + bytes(60))
    tracemalloc.start()
    record = open_recording(tmp_path / "r.edf", ReadOptions())
    count = sum(chunk.values.size for chunk in record.read_chunks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_004 * 500
    assert peak < 6_000_000


@pytest.mark.parametrize(
    ("kind", "message"), [("EDF+D", "data records with times are too many; split the recording"), ("EDF+C", "")]
)
def test_a_file_of_millions_of_records(kind, message, tmp_path):
    raw = edf(signal(samples=5, data=np.arange(0, 4000, 10)), annotations([onset("+0.5")] * 4), kind=kind, duration="0.01")
    (tmp_path / "r.edf").write_bytes(raw)
    os.truncate(tmp_path / "r.edf", 768 + 70 * 4_200_000)
    if message:
        with pytest.raises(RecordingError, match=message):
            open_recording(tmp_path / "r.edf")
    else:
        assert open_recording(tmp_path / "r.edf").start_us == NOON_US + 500_000
