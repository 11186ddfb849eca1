"""EDF and BDF files: bytes built from the specification (edfplus.info), and edfio as an independent writer and reader."""

import datetime
import gzip
import os
import re
import tracemalloc

import edfio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captures import NO_OPTIONS, ReadOptions, RecordingError, open_recording
from captures.recording import CHUNK_SAMPLES

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


# The format


def test_samples_are_millivolts_and_the_choice_is_told(tmp_path):
    resp = signal("RESP", 25, unit="mV")
    record = read(tmp_path, edf(resp, signal(samples=100)))
    assert record.mv == pytest.approx(np.resize(RAMP, 400) * 0.1 / 1000, abs=1e-9)
    assert (record.rate_hz, record.start_us, record.kind, record.name) == (100, NOON_US, "ecg", "r")
    assert record.notes == ("signal 2 of 2 (ECG) in uV, 100 Hz",)
    assert record.segments == ((0.0, 0, 399),)


def test_digital_extremes_are_samples_and_limits_need_not_be_reached(tmp_path):
    data = [-32768, 32767, -1000, 3000] * 25
    record = read(tmp_path, edf(signal(data=data, low="-2", high="2", first="-2000", last="2000")))
    assert record.mv == pytest.approx(np.array(data) * 1e-6)


def test_bdf_has_samples_of_three_bytes(tmp_path):
    data = [-8388608, 8388607, -1, 0, 1, 255, 256, -65536, 65535, 1 << 22]
    limits = {"first": "-8388608", "last": "8388607", "low": "-8388608", "high": "8388607"}
    status = signal("Status", 10, [0x10000] * 10, **limits, unit="Boolean")
    record = read(tmp_path, edf(status, signal("ECG1", 10, data, **limits, unit="nV"), version=b"\xffBIOSEMI", kind="24BIT"))
    assert record.mv == pytest.approx(np.array(data) * 1e-6)
    assert record.rate_hz == 10


@pytest.mark.parametrize(
    ("duration", "rate_hz"),
    [("0.5", 200), ("0,25", 400), ("60", 100 / 60), ("1 ", 100), ("1.000", 100), ("1e-1", 1000), ("+1", 100)],
)
def test_records_of_any_duration(duration, rate_hz, tmp_path):
    assert read(tmp_path, edf(signal(), duration=duration)).rate_hz == pytest.approx(rate_hz)


def test_numbers_may_have_decimal_commas_blanks_and_zeros(tmp_path):
    odd = signal(low="-3276,8", high=b" 3276.7\0", first="- 32768", last="32767.0", samples=100)
    record = read(tmp_path, edf(odd, records=" 4 ", padding=b"", length=b"512\0\0\0\0\0"))
    assert record.mv == pytest.approx(np.resize(RAMP, 400) * 1e-4, abs=1e-9)
    assert len(record.notes) == 1


def test_a_physical_minimum_above_the_maximum_turns_the_signal_over(tmp_path):
    record = read(
        tmp_path,
        edf(
            signal(low="3276.7", high="-3276.8", unit="mV"),
        ),
        ReadOptions(unit="uV"),
    )
    assert record.mv == pytest.approx((-0.1 * np.resize(RAMP, 400) - 0.1) / 1000, abs=1e-9)
    assert "the signal is turned over" in told(record)


def test_records_longer_than_a_chunk_are_read_in_parts(tmp_path):
    data = np.resize(RAMP, 2 * 150_000)
    record = read(tmp_path, edf(signal("RESP", 10, data[:20]), signal(samples=150_000, data=data), duration="300"))
    chunks = list(record.read_chunks())
    assert max(chunk.values.size for chunk in chunks) == CHUNK_SAMPLES
    np.testing.assert_allclose(np.concatenate([chunk.values for chunk in chunks]), data * 1e-4, atol=1e-9)
    assert [chunk.start_s for chunk in chunks] == pytest.approx(
        [0, 65536 / 500, 131072 / 500, 300, 300 + 65536 / 500, 300 + 131072 / 500]
    )
    assert len(record.segments) == 1


def test_a_thousand_signals(tmp_path):
    others = [signal(f"EEG {i}", 2) for i in range(1999)]
    record = read(tmp_path, edf(*others, signal("EKG", 100)))
    assert record.notes == ("signal 2000 of 2000 (EKG) in uV, 100 Hz",)


@pytest.mark.parametrize("name", ["r.edf", "R.EDF", "r.rec", "r.bdf", "night", "night.csv"])
def test_the_content_tells_the_kind_not_the_name(name, tmp_path):
    assert read(tmp_path, edf(signal()), name=name).mv.size == 400


def test_a_damaged_version_is_recognised_by_the_length_of_the_header(tmp_path):
    assert read(tmp_path, edf(signal(), version=b"\xe90")).mv.size == 400


def test_a_text_that_starts_with_zero_is_not_an_edf_file(tmp_path):
    (tmp_path / "r.txt").write_text("0       1.5\n" * 100)
    with pytest.raises(RecordingError) as error:
        open_recording(tmp_path / "r.txt")
    assert "EDF header" not in str(error.value)
    with pytest.raises(RecordingError, match="holds no row of numbers"):
        read(tmp_path, b"SR_RESEARCH_COMB_FILE".ljust(300))


def test_a_gzipped_file_is_read(tmp_path):
    record = read(tmp_path, gzip.compress(edf(signal(), records=-1)), name="r.edf.gz")
    assert record.name == "r"
    assert record.mv == pytest.approx(np.resize(RAMP, 400) * 1e-4, abs=1e-9)


def test_a_cut_gzip_file_is_read_as_far_as_it_goes(tmp_path):
    raw = edf(signal(samples=100, data=np.random.default_rng(1).integers(-2000, 2000, 4000)), records=-1)
    record = read(tmp_path, gzip.compress(raw)[:-2000], name="r.edf.gz")
    assert "the gzip file ends too early: what it holds is read" in record.notes
    whole = read(tmp_path, raw)
    assert 0 < record.mv.size < whole.mv.size
    assert record.mv == pytest.approx(whole.mv[: record.mv.size])


def test_a_damaged_gzip_file_and_a_bomb_are_refused(tmp_path):
    whole = gzip.compress(edf(signal(data=np.random.default_rng(1).integers(-2000, 2000, 4000))))
    assert "damaged gzip file" in fails(tmp_path, whole[:1000] + bytes(500) + whole[1500:], name="r.edf.gz")
    bomb = gzip.compress(edf(signal()) + bytes(50_000_000))
    assert "decompress it and check" in fails(tmp_path, bomb, name="r.edf.gz")


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "r.edf")
    with pytest.raises(RecordingError, match="not a regular file"):
        open_recording(tmp_path / "r.edf")


# Length


@pytest.mark.parametrize(
    ("records", "extra", "held", "note"),
    [
        ("-1", b"", 4, "leaves the number of data records open: the file holds 4"),
        ("", b"", 4, "leaves the number of data records open"),
        ("?", b"abc", 4, "the 3 bytes after the last complete data record are not read"),
        ("4", b"abc", 4, "the 3 bytes after"),
        ("9", b"", 4, "cut: holds 4 of 9 data records"),
        ("9", bytes(199), 4, "the 199 bytes after"),
        ("2", b"", 4, "states 2 data records, the file holds 4: all are read"),
        ("0", b"", 4, "states 0 data records, the file holds 4"),
    ],
)
def test_the_length_follows_from_the_file(records, extra, held, note, tmp_path):
    record = read(tmp_path, edf(signal(), records=records) + extra)
    assert record.mv.size == held * 100
    assert note in told(record)


def test_a_header_that_states_another_length_of_its_own(tmp_path):
    record = read(tmp_path, edf(signal(), length=768))
    assert record.mv == pytest.approx(np.resize(RAMP, 400) * 1e-4, abs=1e-9)
    assert "the header states a length of '768' bytes, its 1 signals take 512" in told(record)
    padded = read(tmp_path, edf(signal(), length=768, padding=bytes(256)))
    assert padded.mv == pytest.approx(np.resize(RAMP, 400) * 1e-4, abs=1e-9)


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path):
    record = read(tmp_path, edf(signal()))
    (tmp_path / "r.edf").write_bytes(edf(signal())[:-1])
    with pytest.raises(RecordingError, match="became shorter"):
        list(record.read_chunks())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (edf(signal())[:200], "cut within its EDF header, at byte 200 of 256; fetch the file again"),
        (edf(signal())[:400], "cut within its header, which describes 1 signals"),
        (edf(signal())[:600], "holds no complete data record"),
        (edf(signal(), count=0), "states '0' signals"),
        (edf(signal(), count="x"), "states 'x' signals"),
        (edf(signal(), count="9e99"), "states '9e99' signals"),
        (edf(signal(), duration="0"), "no duration of a data record; give the sampling rate with --rate"),
        (edf(signal(), duration="-1"), "no duration"),
        (edf(signal(), duration="1e-300"), "Hz is not possible"),
        (edf(signal(), duration="9e9"), "is not possible"),
        (edf(signal(unit="")), r"signal 1 \('ECG'\) has no unit; give the unit with --unit"),
        (edf(signal(unit="mmHg")), "'mmHg', which is not a unit of voltage; give the unit with --unit"),
        (edf(signal(first="7", last="7")), "does not define the scale of signal 1 .*digital 7 to 7.*--unit 200/mV"),
        (edf(signal(low="x")), "does not define the scale of signal 1 .*physical unknown to 3276.7"),
        (edf(signal(low="1", high="1")), "does not define the scale"),
        (edf(signal(unit="mV", low="-32768")), "spans .* mV, too large for an ECG; give the unit with --unit"),
        (edf(signal("EEG Fpz-Cz"), signal("EOG horizontal")), r"no ECG among its signals \(EEG Fpz-Cz \[uV\], EOG horizontal"),
        (edf(signal("Pleth")), "to replay the pulse wave, give --signal 'Pleth'"),
        (edf(annotations([onset("+0")])), "holds only annotations, no signals"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_gives_one_line(raw, message, tmp_path):
    assert re.search(message, fails(tmp_path, raw))


# Options


def test_options_settle_what_the_header_leaves_open(tmp_path):
    raw = edf(signal(unit=""), duration="0")
    record = read(tmp_path, raw, ReadOptions(unit="mV", rate_hz=250))
    assert record.rate_hz == 250
    assert record.mv == pytest.approx(np.resize(RAMP, 400) / 10)
    assert record.notes == ("signal 1 of 1 (ECG) in mV, 250 Hz",)
    counts = read(tmp_path, edf(signal(first="0", last="0")), ReadOptions(unit="200/mV"))
    assert counts.mv == pytest.approx(np.resize(RAMP, 400) / 200)


def test_a_unit_that_makes_the_signal_too_small_is_told(tmp_path):
    record = read(tmp_path, edf(signal(unit="nV")))
    assert "the signal spans only 0.00015 mV; if its unit 'nV' is wrong, give the unit with --unit" in told(record)
    record = read(tmp_path, edf(signal(unit="nV")), ReadOptions(unit="uV", rate_hz=500.0))
    assert record.notes[1:] == (
        "500 Hz as stated with --rate, not 100 Hz as in the file",
        "unit uV as stated, not 'nV' as in the header",
    )


def test_the_user_names_a_signal_by_name_or_number(tmp_path):
    raw = edf(signal("Chan 1", 10), signal("Chan 2", 20), signal("Pleth", 50, unit=""), annotations([onset("+0")] * 4))
    assert read(tmp_path, raw, ReadOptions(signal="chan 2")).rate_hz == 20
    assert read(tmp_path, raw, ReadOptions(signal="1")).rate_hz == 10
    pulse = read(tmp_path, raw, ReadOptions(signal="Pleth"))
    assert (pulse.kind, pulse.rate_hz) == ("ppg", 50)
    assert pulse.mv == pytest.approx(np.resize(RAMP, 200) / 10)
    assert "no signal '4'" in fails(tmp_path, raw, ReadOptions(signal="4"))


# Names and units


@pytest.mark.parametrize(
    "label",
    [
        "ECG", "Ecg", "EKG", "ECG I", "ECG II", "I", "aVR", "ECG V5", "ECG1-ECG2", "EKG L-R", "ECG L-ECG R", "ECGL", "EKGR",
        "ECGII", "ECG 1", "ECG_I", "ECG EKG", "EEG EKG-REF", "EEG ECG", "ECG-LA", "MLII", "ECG\xe9", "Einthoven ECG",
    ],
)  # fmt: skip
def test_ecgs_are_found_under_the_names_that_recorders_give(label, tmp_path):
    others = [
        signal(name, 10)
        for name in ("EEG Fp1-REF", "EOG Right", "EMG Submental", "ECG Quality", "ECG Imp", "HR", "RESP", "Pleth", "Status")
    ]
    assert read(tmp_path, edf(*others, signal(label))).rate_hz == 100


@pytest.mark.parametrize(
    ("unit", "mv"),
    [
        ("uV", 1e-4), ("mV", 0.1), ("\xb5V", 1e-4), ("µV".encode(), 1e-4), ("μV".encode(), 1e-4), (b"\x83\xcaV", 1e-4),
        (b"\xe6V", 1e-4), ("UV", 1e-4), ("mv\0", 0.1), (" uV", 1e-4),
    ],
)  # fmt: skip
def test_units_of_voltage_in_any_code_page(unit, mv, tmp_path):
    record = read(tmp_path, edf(signal(samples=19, unit=unit, data=RAMP[190:209])))
    assert record.mv == pytest.approx(RAMP[190:209] * mv, abs=1e-9)


def test_a_flat_first_lead_is_told(tmp_path):
    record = read(tmp_path, edf(signal("ECG I", 100, [7] * 400), signal("ECG II", 100)))
    assert record.notes[0] == "signal 2 of 2 (ECG II) in uV, 100 Hz"
    assert "signal ECG I is constant (flat)" in record.notes[1]


def test_a_signal_without_scale_comes_after_one_with(tmp_path):
    record = read(tmp_path, edf(signal("ECG I", first="1", last="1"), signal("ECG II")))
    assert record.notes[0].startswith("signal 2 of 2 (ECG II)")


# Start


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
        ("01.01.85", "00.00.00", "Startdate X X X X", None, "stands for a removed one"),
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


# Annotations and gaps


def plus(onsets, kind="EDF+D", samples=100, duration="1"):
    return edf(
        signal(samples=samples, data=np.resize(RAMP, len(onsets) * samples)),
        annotations(list(map(onset, onsets))),
        kind=kind,
        duration=duration,
    )


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
    assert "2 data records state no time: they are taken to follow without a gap" in told(record)
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


# edfio


@pytest.mark.parametrize("kind", ["edf", "bdf"])
def test_agrees_with_edfio(kind, tmp_path):
    make, one = (edfio.Edf, edfio.EdfSignal) if kind == "edf" else (edfio.Bdf, edfio.BdfSignal)
    random = np.random.default_rng(3)
    data = random.normal(0, 0.7, 256 * 40)
    signals = [
        one(random.normal(0, 50, 32 * 40), 32, label="Resp", physical_dimension="uV"),
        one(data, 256, label="ECG II", physical_dimension="mV", physical_range=(-4.0, 5.5)),
    ]
    path = tmp_path / f"r.{kind}"
    file = make(
        signals, recording=edfio.Recording(startdate=datetime.date(2031, 3, 2)), starttime=datetime.time(4, 5, 6, 125_000),
        annotations=[edfio.EdfAnnotation(3.5, None, "lead off"), edfio.EdfAnnotation(7, 2, "noise")], data_record_duration=4,
    )  # fmt: skip
    file.write(path)
    record = open_recording(path)
    again = (edfio.read_edf if kind == "edf" else edfio.read_bdf)(path).signals[1]
    assert record.mv == pytest.approx(again.data, abs=1e-9)
    assert record.mv == pytest.approx(np.clip(data, -4, 5.5), abs=9.5 / 65535)
    start = datetime.datetime(2031, 3, 2, 4, 5, 6, 125_000, tzinfo=datetime.UTC)
    assert record.start_us == round(start.timestamp() * 1e6)
    assert record.notes == ("signal 2 of 3 (ECG II) in mV, 256 Hz", "2 annotations are not read")


def test_edfio_reads_the_same_from_these_bytes(tmp_path):
    raw = edf(
        signal("RESP", 7),
        signal(low="-5000", high="4000", first="-2048", last="2047"),
        annotations([onset(f"+{i}") for i in range(4)]),
        kind="EDF+C",
        duration="0.4",
    )
    record = read(tmp_path, raw)
    (other,) = [one for one in edfio.read_edf(tmp_path / "r.edf").signals if one.label == "ECG"]
    assert record.mv == pytest.approx(other.data / 1000)
    assert record.rate_hz == other.sampling_frequency


# Faults

WHOLE = plus(["+0", "+1", "+5", "+6"])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 1100), st.binary(min_size=1, max_size=9)), max_size=6),
    cut=st.integers(0, len(WHOLE)),
)
def test_damaged_files_give_a_recording_or_one_line(tmp_path, changes, cut):
    raw = bytearray(WHOLE)
    for at, part in changes:
        raw[at : at + len(part)] = part
    (tmp_path / "d.edf").write_bytes(bytes(raw[: cut or None]))
    message = ""
    try:
        record = open_recording(tmp_path / "d.edf")
        assert all(0 < chunk.values.size <= CHUNK_SAMPLES for chunk in record.read_chunks())
        assert all(len(note) < 300 for note in record.notes)
    except RecordingError as error:
        message = str(error)
    assert len(message) < 600
