"""Tables with a recording in each row, as Withings exports its ECGs."""

import contextlib
import gzip
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import ReadOptions, RecordingError, open_recording

TITLES = "type,date,duration,frequency,wearposition,signal"
ECG = [round(900 * math.sin(n / 5)) for n in range(600)]
OTHER = [n % 300 for n in range(40)]


def row(kind="Electrocardiogram", date="2024-05-05T10:30:00+02:00", rate="512", values=ECG, wear="1"):
    return f'{kind},{date},30,{rate},{wear},"{values}"'


def write(folder, *rows, titles=TITLES, encoding="utf-8"):
    path = folder / "signal.csv"
    path.write_bytes("\n".join((titles, *rows, "")).encode(encoding))
    return path


def test_ecg_of_a_row(tmp_path):
    record = open_recording(write(tmp_path, row()))
    assert record.rate_hz == 512
    assert record.mv == pytest.approx(np.array(ECG) / 1000)
    assert record.start_us == datetime(2024, 5, 5, 8, 30, tzinfo=UTC).timestamp() * 1e6
    assert record.notes == ("signal 1 (ECG in uV) at 512 Hz is read",)


def test_pressure_is_no_ecg(tmp_path):
    path = write(tmp_path, row("ADC pressure", rate="100", values=OTHER), row(), row(values=[2 * value for value in ECG]))
    record = open_recording(path)
    assert record.mv == pytest.approx(np.array(ECG) / 1000)
    assert "the file holds 1 more ECG signal; choose one with --signal N" in record.notes
    assert open_recording(path, ReadOptions(signal="3")).mv == pytest.approx(np.array(ECG) / 500)


def test_pressure_alone_is_refused(tmp_path):
    with pytest.raises(RecordingError, match=r"no ECG among its signals \(ADC pressure\)"):
        open_recording(write(tmp_path, row("ADC pressure", values=OTHER)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_order_of_columns_and_lists_without_quotes(encoding, tmp_path):
    path = write(tmp_path, f"7,{ECG},2,300", titles="no,signal,wearposition,frequency", encoding=encoding)
    record = open_recording(path)
    assert (record.rate_hz, record.start_us) == (300, None)
    assert record.mv == pytest.approx(np.array(ECG) / 1000)


def test_rate_and_unit_are_asked_for(tmp_path):
    path = write(tmp_path, f'rest,"{ECG}"', titles="label,ecg")
    with pytest.raises(RecordingError, match=r"sampling rate \(--rate HZ\) and the unit of its samples \(--unit"):
        open_recording(path)
    assert open_recording(path, ReadOptions(rate_hz=250.0, unit="uV")).mv == pytest.approx(np.array(ECG) / 1000)


def test_gzip(tmp_path):
    packed = tmp_path / "signal.csv.gz"
    packed.write_bytes(gzip.compress(write(tmp_path, row()).read_bytes()))
    assert open_recording(packed).mv.size == len(ECG)


def test_short_lists_in_a_table_of_samples_change_nothing(tmp_path):
    rows = [f'{n / 100},{math.sin(n)},"[1,2,3]"' for n in range(300)]
    record = open_recording(write(tmp_path, *rows, titles="time [s],ecg [mV],acc"))
    assert record.rate_hz == pytest.approx(100)
    assert record.mv == pytest.approx([math.sin(n) for n in range(300)])


def test_a_cut_list_is_refused(tmp_path):
    with pytest.raises(RecordingError):
        open_recording(write(tmp_path, row()[:-20]))


@given(text=st.text(max_size=200), cut=st.integers(0, 400))
def test_damage_gives_declared_errors_only(text, cut, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("rows"), row(values=ECG[:60])[:cut] + text)
    with contextlib.suppress(RecordingError):
        assert not np.isinf(open_recording(path).mv).any()
