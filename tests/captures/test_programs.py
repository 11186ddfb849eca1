"""Texts of devices and programs, made here in the layouts that their documentation and public files show."""

import json
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import ReadOptions, RecordingError, open_recording
from captures.table.programs import recognise_program

START_US = 1_714_912_200_000_000
"""2024-05-05T12:30:00Z."""
COUNT = 1_000


def wave(count=COUNT):
    """Two thirds of a millivolt of P and T waves, and R peaks of 1.2 mV, in mV."""
    places = np.arange(count)
    return np.round(0.1 * np.sin(places / 20) + 1.2 * (places % 150 == 50), 4)


def breath(count=COUNT):
    return np.round(0.4 * np.sin(np.arange(count) / 300), 4)


def write(folder, text, name="export.txt", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def watch(keys, unit_row, rows, gap="\n"):
    return "\n".join(keys) + gap + unit_row + gap + rows


ENGLISH = [
    "Name,Test Person",
    'Date of Birth,"Jan 1, 1970"',
    "Recorded Date,2024-05-05 14:30:00 +0200",
    "Classification,Sinus Rhythm",
    "Symptoms,",
    "Software Version,1.90",
    'Device,"Watch6,7"',
    "Sample Rate,512.844 hertz",
]
GERMAN = [
    "Name",
    'Geburtstag,"01.01.1970"',
    "Aufzeichnungsdatum,2024-05-05 14:30:00 +0200",
    "Klassifizierung,Sinusrhythmus",
    "Symptome,",
    "Softwareversion,1.90",
    'Gerät,"Watch6,7"',
    '"Messrate","512,844 Hertz"',
]
SPANISH = [
    "Nombre,Persona",
    "Fecha de registro,2024-05-05 14:30:00 +0200",
    "Clasificación,Ritmo sinusal",
    "Dispositivo,Watch",
    "Frecuencia de muestreo,512.844 hercios",
]
OTHER = ["名前,テスト", "記録日,2024-05-05 14:30:00 +0200", "分類,洞調律", "サンプルレート,512.844 unknown"]


@pytest.mark.parametrize("keys", [ENGLISH, GERMAN, SPANISH, OTHER, [*ENGLISH[2:], "Average Heart Rate,72 BPM"]])
@pytest.mark.parametrize("comma", [False, True])
@pytest.mark.parametrize("gap", ["\n", "\n\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_apple_watch_in_any_language(keys, comma, gap, encoding, tmp_path):
    values = np.round(wave() * 1000, 3)
    rows = "".join(f"{value:.3f}\n" for value in values)
    text = watch(keys, "Lead,Lead I\nUnit,µV\n", rows.replace(".", ",") if comma else rows, gap)
    record = open_recording(write(tmp_path, text, "ecg_2024-05-05.csv", encoding))
    assert record.rate_hz == pytest.approx(512.844)
    assert record.start_us == START_US
    assert record.mv == pytest.approx(values / 1000)
    assert "Apple Watch" in record.notes[0]


def test_apple_watch_without_a_unit_is_read_with_the_one_that_is_given(tmp_path):
    path = write(tmp_path, watch(ENGLISH, "", "".join(f"{value}\n" for value in wave() * 1000)), "e.csv")
    assert open_recording(path, ReadOptions(unit="uV")).mv == pytest.approx(wave())


@pytest.mark.parametrize("title", ["Lead,Voltage", "Lead,Voltage (mV)"])
@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_apple_watch_with_the_lead_in_each_row(title, gap, tmp_path):
    rows = "".join(f"Lead I,{value:.4f}\n" for value in wave())
    record = open_recording(
        write(tmp_path, watch(ENGLISH, title + "\n", rows, "\n\n").replace("\n\nLead I", "\nLead I"), "e.csv")
    )
    assert (record.rate_hz, record.start_us) == (pytest.approx(512.844), START_US)
    assert record.mv == pytest.approx(wave())


def opensignals(sensors, columns, resolution, device="biosignalsplux", rate=200, first_line="", **more):
    header = {
        "sensor": sensors,
        "device name": "00:07:80:00:00:00",
        "column": columns,
        "time": "12:30:0.250",
        "date": "2024-5-5",
        "sampling rate": rate,
        "resolution": resolution,
        "device": device,
    }
    text = json.dumps({"00:07:80:00:00:00": {**header, **more}})
    return f"# OpenSignals Text File Format{first_line}\n# {text}\n# EndOfHeader\n"


@pytest.mark.parametrize("first_line", ["", ". Version 1"])
@pytest.mark.parametrize("tab", ["", "\t"])
def test_opensignals_of_biosignalsplux_with_the_transfer_function_of_its_data_sheet(first_line, tab, tmp_path):
    counts = np.rint((wave() / 3 + 0.5) * 2**16).astype(int)  # ±1.5 mV at 16 bits: VCC 3 V, gain 1000
    rows = "".join(f"{place % 65536}\t0\t{30_000 + place}\t{count}{tab}\n" for place, count in enumerate(counts))
    head = opensignals(["RESP", "ECG"], ["nSeq", "DI", "CH1", "CH2"], [16, 16], first_line=first_line)
    record = open_recording(write(tmp_path, head + rows))
    assert (record.rate_hz, record.start_us) == (200, START_US + 250_000)
    assert np.ptp(record.mv) == pytest.approx(np.ptp(wave()), abs=1e-3)


def test_opensignals_of_bitalino_has_a_resolution_for_each_column(tmp_path):
    columns = ["nSeq", "I1", "I2", "O1", "O2", "A1", "A2"]
    counts = np.rint((wave() * 1.1 / 3.3 + 0.5) * 2**10).astype(int)  # VCC 3.3 V, gain 1100
    rows = "".join(f"{place % 16}\t0\t0\t0\t0\t512\t{count}\n" for place, count in enumerate(counts))
    head = opensignals(["RAW", "ECGBIT"], columns, [4, 1, 1, 1, 1, 10, 10], "bitalino_rev", 100)
    record = open_recording(write(tmp_path, head + rows))
    assert record.rate_hz == 100
    assert np.ptp(record.mv) == pytest.approx(np.ptp(wave()), abs=0.01)


def test_opensignals_with_converted_values_is_in_millivolts(tmp_path):
    rows = "".join(f"{place}\t0\t{value}\n" for place, value in enumerate(wave()))
    head = opensignals(["ECG"], ["nSeq", "DI", "CH1"], [16], convertedValues=1)
    assert open_recording(write(tmp_path, head + rows)).mv == pytest.approx(wave())


def test_opensignals_without_a_named_sensor_asks_for_the_column(tmp_path):
    rows = "".join(f"{place}\t0\t{30_000 + 2000 * value:.0f}\n" for place, value in enumerate(wave()))
    path = write(tmp_path, opensignals(["RAW"], ["nSeq", "DI", "CH1"], [16]) + rows)
    with pytest.raises(RecordingError, match=r"CH1.*--column"):
        open_recording(path)
    assert open_recording(path, ReadOptions(signal="CH1", unit="2000/mV")).rate_hz == 200


def test_opensignals_of_an_unknown_device_asks_for_the_unit(tmp_path):
    rows = "".join(f"{place}\t0\t{value}\n" for place, value in enumerate(np.rint(30_000 + wave() * 2000)))
    path = write(tmp_path, opensignals(["ECG"], ["nSeq", "DI", "CH1"], [16], "scientisst") + rows)
    with pytest.raises(RecordingError, match="--unit"):
        open_recording(path)
    assert np.ptp(open_recording(path, ReadOptions(unit="2000/mV")).mv) == pytest.approx(np.ptp(wave()), abs=1e-3)


@pytest.mark.parametrize(
    "head",
    [
        "# Simple Text Format\n# Sampling Rate (Hz):= 250.00\n# Resolution:= 12\n# Labels:= ECG\n",
        "# Simple Text Format\n# Sampling Rate (Hz):= 250.00\n# Date:= 2024-05-05T12:30:00\n# Labels:= ECG\n",
        "# sampling frequency: 250 Hz\n",
        "% fs = 250\n",
        "# Sample rate 0.25 kHz\n\n",
    ],
)
def test_numbers_below_comments_with_the_rate_ask_for_the_unit_only(head, tmp_path):
    path = write(tmp_path, head + "".join(f"{value:.0f}\n" for value in wave() * 1000))
    with pytest.raises(RecordingError, match="--unit"):
        open_recording(path, ReadOptions(signal="1"))
    record = open_recording(path, ReadOptions(signal="1", unit="uV"))
    assert record.rate_hz == 250
    assert record.mv == pytest.approx(np.rint(wave() * 1000) / 1000)


def test_biosppy_with_several_labels(tmp_path):
    head = "# Simple Text Format\n# Sampling Rate (Hz):= 1000.00\n# Resolution:= 12\n# Labels:= RESP\tECG\n"
    rows = "".join(f"{a:.0f}\t{b:.0f}\n" for a, b in zip(breath() * 1000, wave() * 1000, strict=True))
    record = open_recording(write(tmp_path, head + rows), ReadOptions(unit="uV"))
    assert (record.rate_hz, np.ptp(record.mv)) == (1000, pytest.approx(np.ptp(wave()), abs=2e-3))


def acqknowledge(times, counts, rate="4 msec/sample", before="demo.acq\n", delimiter="\t"):
    head = f"{before}{rate}\n2 channels\nRSP, X, RSPEC-R\nVolts\nECG, Y, ECG100C\nmV\n"
    titles = delimiter.join([*(["milliSec"] if times else []), "CH1", "CH2"])
    total = delimiter.join([*([""] if times else []), str(COUNT), str(COUNT)])
    rows = [
        delimiter.join([*([f"{place * 4.0:.1f}"] if times else []), f"{a:.4f}", f"{b:.4f}"])
        for place, (a, b) in enumerate(zip(breath(), wave(), strict=True))
    ]
    return head + titles + "\n" + (total + "\n" if counts else "") + "\n".join(rows) + "\n"


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("rate", ["4 msec/sample", "4 msec/sample\tSample rate =\t250Hz", "0.004 sec/sample"])
@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_acqknowledge_with_and_without_times(times, counts, rate, delimiter, tmp_path):
    record = open_recording(write(tmp_path, acqknowledge(times, counts, rate, delimiter=delimiter)))
    assert record.rate_hz == pytest.approx(250)
    assert record.mv == pytest.approx(wave())


def test_acqknowledge_states_when_it_recorded(tmp_path):
    text = acqknowledge(times=True, counts=True, before="demo.acq\nRecording on: 2024-05-05 12:30:00.000\n")
    assert open_recording(write(tmp_path, text)).start_us == START_US


LABCHART = (
    "Interval=\t{interval}\nExcelDateTime=\t4.5417520833333332e+04\t05/05/24 12:30:00.000000\nTimeFormat=\tStartOfBlock\n"
    "DateFormat=\t\nChannelTitle=\tResp\tECG\nRange=\t10.000 V\t2.000 mV\nUnitName=\tV\tmV\nTopValue=\t10.000\t2.000\n"
    "BottomValue=\t-10.000\t-2.000\n"
)


@pytest.mark.parametrize("interval", ["0.005 s", "5 ms", "5000 µs"])
@pytest.mark.parametrize("times", [True, False])
def test_labchart_states_interval_start_titles_and_units(interval, times, tmp_path):
    rows = "".join(
        (f"{place * 0.005:.4f}\t" if times else "") + f"{a:.4f}\t{b:.4f}\n"
        for place, (a, b) in enumerate(zip(breath(), wave(), strict=True))
    )
    record = open_recording(write(tmp_path, LABCHART.format(interval=interval) + rows))
    assert record.rate_hz == pytest.approx(200)
    assert record.start_us == pytest.approx(START_US, abs=1000)
    assert record.mv == pytest.approx(wave())


@pytest.mark.parametrize("text", [acqknowledge(times=True, counts=True), acqknowledge(times=False, counts=True)])
def test_acqknowledge_with_decimal_commas(text, tmp_path):
    head, rows = text.split("CH2\n", 1)
    record = open_recording(write(tmp_path, head + "CH2\n" + rows.replace(".", ",")))
    assert record.mv == pytest.approx(wave())


def test_labchart_with_decimal_commas(tmp_path):
    rows = "".join(
        f"{place * 0.005:.4f}\t{a:.4f}\t{b:.4f}\n" for place, (a, b) in enumerate(zip(breath(), wave(), strict=True))
    )
    record = open_recording(write(tmp_path, LABCHART.format(interval="0,005 s") + rows.replace(".", ",")))
    assert record.rate_hz == pytest.approx(200)
    assert record.mv == pytest.approx(wave())


def test_labchart_writes_comments_behind_a_row(tmp_path):
    rows = [f"{place * 0.005:.4f}\t{a:.4f}\t{b:.4f}" for place, (a, b) in enumerate(zip(breath(), wave(), strict=True))]
    rows[0] += "\t#1 electrode moved"
    rows[500] += "\t#* subject\tcoughs"
    record = open_recording(write(tmp_path, LABCHART.format(interval="0.005 s") + "\n".join(rows) + "\n"))
    assert record.mv == pytest.approx(wave())


def test_openbci_asks_for_the_column_and_keeps_the_rate_of_its_header(tmp_path):
    head = "%OpenBCI Raw EEG Data\n%\n%Sample Rate = 250.0 Hz\n%First Column = SampleIndex\n%Last Column = Timestamp\n"
    rows = "".join(
        f"{place % 256}, {1000 * value:.2f}, 0.016, 12:30:0{place // 250}.044\n" for place, value in enumerate(wave())
    )
    path = write(tmp_path, head + rows)
    with pytest.raises(RecordingError, match=r"channel 1 \[uV\].*--column"):
        open_recording(path)
    record = open_recording(path, ReadOptions(signal="2"))
    assert (record.rate_hz, record.mv.size) == (250, COUNT)
    assert record.mv == pytest.approx(wave(), abs=1e-4)


def test_openbci_of_version_5_has_titles(tmp_path):
    head = "%OpenBCI Raw EXG Data\n%Number of channels = 2\n%Sample Rate = 250 Hz\n%Board = OpenBCI_GUI$BoardGanglionNative\n"
    titles = "Sample Index, EXG Channel 0, EXG Channel 1, Accel Channel 0, Timestamp, Timestamp (Formatted)\n"
    rows = "".join(
        f"{place % 256}, 0.0, {1000 * value:.2f}, 0.016, 1714912200.5, 2024-05-05 12:30:00.500\n"
        for place, value in enumerate(wave())
    )
    record = open_recording(write(tmp_path, head + titles + rows), ReadOptions(signal="EXG Channel 1"))
    assert record.rate_hz == 250
    assert record.mv == pytest.approx(wave(), abs=1e-4)


@pytest.mark.parametrize("interval", ["0.004 sec", "(4 ms)", "0.004 s"])
def test_physiobank_atm_with_sample_numbers_states_their_interval(interval, tmp_path):
    rows = "".join(f"{place},{a:.3f},{b:.3f}\n" for place, (a, b) in enumerate(zip(breath(), wave(), strict=True)))
    record = open_recording(write(tmp_path, f"'sample interval','RESP','MLII'\n'{interval}','mV','mV'\n{rows}", "samples.csv"))
    assert record.rate_hz == pytest.approx(250)
    assert record.mv == pytest.approx(wave(), abs=1e-3)


@pytest.mark.parametrize(
    ("unit", "stamp"),
    [
        ("hh:mm:ss.mmm", lambda ms: f"{ms // 60000}:{ms // 1000 % 60:02}.{ms % 1000:03}"),
        ("hh:mm:ss.mmm dd/mm/yyyy", lambda ms: f"[12:{30 + ms // 60000}:{ms // 1000 % 60:02}.{ms % 1000:03} 05/05/2024]"),
    ],
)
def test_physiobank_atm_with_times(unit, stamp, tmp_path):
    rows = "".join(f"'{stamp(place * 4)}',{a:.3f},{b:.3f}\n" for place, (a, b) in enumerate(zip(breath(), wave(), strict=True)))
    record = open_recording(write(tmp_path, f"'Elapsed time','RESP','MLII'\n'{unit}','mV','mV'\n{rows}", "samples.csv"))
    assert record.rate_hz == pytest.approx(250)
    assert record.mv == pytest.approx(wave(), abs=1e-3)
    assert record.start_us in (None, START_US)


def test_mitbih_of_kaggle_asks_for_rate_and_unit(tmp_path):
    rows = "".join(f"{place},{1024 + 200 * value:.0f},1024\n" for place, value in enumerate(wave()))
    path = write(tmp_path, "'sample #','MLII','V5'\n" + rows, "100.csv")
    with pytest.raises(RecordingError, match=r"--rate.*--unit"):
        open_recording(path)
    record = open_recording(path, ReadOptions(rate_hz=360.0, unit="200/mV"))
    assert (record.rate_hz, np.ptp(record.mv)) == (360, pytest.approx(np.ptp(wave()), abs=0.02))


def test_empatica_bvp_is_a_pulse_wave_and_no_ecg(tmp_path):
    path = write(tmp_path, "1714912200.000000\n64.000000\n" + "".join(f"{value:.2f}\n" for value in 50 * wave()), "BVP.csv")
    with pytest.raises(
        RecordingError, match=r"no ECG among its columns \(BVP\); to replay the pulse wave, give --column 'BVP'"
    ):
        open_recording(path)
    record = open_recording(path, ReadOptions(signal="BVP"))
    assert (record.kind, record.rate_hz, record.start_us) == ("ppg", 64, START_US)
    assert record.mv == pytest.approx(50 * wave(), abs=0.01)


def test_empatica_acc_is_not_offered_as_an_ecg(tmp_path):
    text = "1714912200.0, 1714912200.0, 1714912200.0\n32.0, 32.0, 32.0\n" + "1,2,60\n" * 500
    with pytest.raises(RecordingError, match=r"no ECG among its columns \(acc x, acc y, acc z\)"):
        open_recording(write(tmp_path, text, "ACC.csv"))


@pytest.mark.parametrize("more", ["timestamp [ms];", ""])
def test_polar_sensor_logger_takes_the_times_of_the_sensor_and_the_start_of_the_phone(more, tmp_path):
    titles, rows = f"Phone timestamp;sensor timestamp [ns];{more}ecg [uV]", []
    for place, value in enumerate(wave()):
        phone = f"2024-05-05T12:30:0{place // 130}.{place // 73 % 10}00"
        ms = f"{place * 1000 / 130:.6f};" if more else ""
        rows.append(f"{phone};{768_225_000_000_000_000 + round(place * 1e9 / 130)};{ms}{1000 * value:.0f}\n")
    record = open_recording(write(tmp_path, titles + "\n" + "".join(rows)))
    assert record.rate_hz == pytest.approx(130, abs=0.01)
    assert record.start_us == START_US
    assert len(record.segments) == 1
    assert record.mv == pytest.approx(wave(), abs=1e-3)


def test_shimmer_consensys_reads_the_lead_and_not_the_respiration(tmp_path):
    titles = ("Timestamp_Unix_CAL", "ECG_RESP_24BIT_CAL", "ECG_LL-RA_24BIT_CAL", "Battery_CAL")
    head = '"sep=\t"\n' + "".join(f"Shimmer_00AA_{title}\t" for title in titles) + "\nms\tmV\tmV\tmV\t\n"
    rows = "".join(
        f"{START_US / 1000 + place * 7.8125:.3f}\t{a:.4f}\t{b:.4f}\t3812.5\t\n"
        for place, (a, b) in enumerate(zip(breath(), wave(), strict=True))
    )
    record = open_recording(write(tmp_path, head + rows, "shimmer.csv"))
    assert record.rate_hz == pytest.approx(128, abs=0.01)
    assert record.start_us == START_US
    assert record.mv == pytest.approx(wave())


@pytest.mark.parametrize("link", ["", "(/api/datatype/4113/)"])
def test_hexoskin_counts_time_in_parts_of_a_second(link, tmp_path):
    first = START_US * 256 // 1_000_000
    rows = "".join(f"{first + place},{value:.4f}\n" for place, value in enumerate(wave()))
    record = open_recording(write(tmp_path, f"time [s/256],ECG_I [mV]{link}\n{rows}", "hexoskin.csv"))
    assert record.rate_hz == pytest.approx(256)
    assert record.start_us == START_US
    assert record.mv == pytest.approx(wave())


EXAMPLES = [
    watch(ENGLISH, "Lead,Lead I\nUnit,µV\n", "1.0\n2.0\n3.0\n"),
    watch(ENGLISH, "Lead,Voltage\n", "Lead I,1.0\n" * 5),
    opensignals(["ECG"], ["nSeq", "DI", "CH1"], [16]) + "0\t0\t1\t\n1\t0\t2\t\n",
    "# Simple Text Format\n# Sampling Rate (Hz):= 250.00\n# Labels:= ECG\n1\n2\n3\n",
    acqknowledge(times=True, counts=True)[:200] + "\n",
    LABCHART.format(interval="0.005 s") + "0\t1\t2\n",
    "%OpenBCI Raw EEG Data\n%Sample Rate = 250 Hz\n0, 1, 2, 12:30:00.1\n1, 1, 2, 12:30:00.1\n",
    "'sample interval','ECG'\n'0.004 sec','mV'\n0,1\n1,2\n",
    "1714912200.000000\n64.000000\n1.0\n2.0\n3.0\n",
    "Phone timestamp;sensor timestamp [ns];ecg [uV]\n2024-05-05T12:30:00.000;1;2\n",
]


@given(
    text=st.sampled_from(EXAMPLES),
    cuts=st.lists(st.integers(0, 600), min_size=2, max_size=6),
    junk=st.text("0123456789,;\t\n'\"{}[]:=#%.µVmsHz -", max_size=30),
)
def test_any_changed_text_is_recognised_or_not_and_nothing_else_happens(text, cuts, junk):
    places = sorted(min(cut, len(text)) for cut in cuts)
    changed = junk.join(text[a:b] for a, b in pairwise([0, *places, len(text)]))
    layout = recognise_program(changed.split("\n"))
    if layout is not None:
        assert 0 <= layout.first_line <= len(changed.split("\n"))
        assert [column.number for column in layout.columns] == list(range(1, len(layout.columns) + 1))
        assert layout.rate_hz is None or 0 < layout.rate_hz < 1e6


@given(text=st.sampled_from(EXAMPLES), cut=st.integers(0, 600), junk=st.binary(max_size=20))
def test_any_damaged_text_is_read_or_gives_a_recording_error(text, cut, junk, tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "x.txt"
    raw = text.encode()
    path.write_bytes(raw[:cut] + junk + raw[cut:])
    with suppress(RecordingError):
        assert open_recording(path, ReadOptions(unit="mV", rate_hz=100.0)).mv.size
