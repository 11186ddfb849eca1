"""EDF and BDF files: bytes built from the specification (edfplus.info), and edfio as an independent writer and reader."""

import datetime
import gzip
import os
import re

import edfio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captures import ReadOptions, RecordingError, open_recording
from captures.recording import CHUNK_SAMPLES
from tests.captures.edf_files import NOON_US, RAMP, annotations, edf, fails, onset, plus, read, signal, told

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
    assert "the signal is inverted" in told(record)


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
