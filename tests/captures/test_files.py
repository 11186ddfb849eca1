"""Files that never end, make the reader wait or need all memory are refused in one line, by every reader.

Nothing here measures time: an unbounded reader waits for ever, or takes hours.
"""

import gzip
import os

import pytest

from captures import RecordingError, open_recording
from captures.annotations import AnnotationError, read_annotations
from captures.files import read_file
from captures.jsonl import read_header
from captures.leads import is_ecg_name, is_ppg_name, millivolts_per_unit
from captures.ppg import read_ppg
from captures.streams import EXPANSION_LIMIT, read_text
from drivers.registry import load_drivers
from gateway.replay.sources import SourceError, open_source


def read_capture(path):
    return open_source(path, load_drivers())


READERS = {
    "r.csv": open_recording,
    "r.hea": open_recording,
    "r.jsonl": read_header,
    "PPG.csv": read_ppg,
    "r.atr": read_annotations,
}
ERRORS = (RecordingError, AnnotationError, SourceError)


def assert_refuses(reader, path, words):
    with pytest.raises(ERRORS, match=words) as error:
        reader(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", READERS)
def test_a_fifo_is_refused(name, tmp_path):
    os.mkfifo(tmp_path / name)
    assert_refuses(READERS[name], tmp_path / name, "not a regular file")
    assert_refuses(read_capture, tmp_path / name, "not a regular file")


@pytest.mark.parametrize("name", READERS)
def test_a_link_to_an_endless_device_is_refused(name, tmp_path):
    (tmp_path / name).symlink_to("/dev/zero")
    assert_refuses(READERS[name], tmp_path / name, "not a regular file")
    assert_refuses(read_capture, tmp_path / name, "not a regular file")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_signal_file_that_never_ends_is_refused(make, tmp_path):
    (tmp_path / "r.hea").write_text("r 1 250 100\nr.dat 16\n")
    make(tmp_path / "r.dat")
    assert_refuses(lambda _: open_recording(tmp_path / "r.hea"), tmp_path / "r.dat", "not a regular file")


@pytest.mark.parametrize("name", ["r.csv.gz", "PPG.csv.gz"])
def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(name, tmp_path):
    bomb = b"time,ecg\n0,1\n8,2\n16,3\n" + b"\n" * (8 << 20)
    packed = gzip.compress(bomb)
    assert EXPANSION_LIMIT * len(packed) < len(bomb)
    (tmp_path / name).write_bytes(packed)
    assert_refuses(
        read_ppg if name.startswith("PPG") else open_recording, tmp_path / name, "a gzip file that expands more than"
    )


def test_a_compressed_file_of_several_members_is_read_whole(tmp_path):
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(b"time,ecg\n") + gzip.compress(b"0,1\n8,2\n") + b"\0\0")
    assert read_text(tmp_path / "r.csv.gz") == "time,ecg\n0,1\n8,2\n"


def test_a_sparse_file_beyond_the_limit_is_refused(tmp_path):
    with (tmp_path / "r.dat").open("wb") as file:
        file.truncate(1 << 40)
    assert_refuses(read_file, tmp_path / "r.dat", "the limit is")


TITLES = {
    "open bracket": "x[" + " " * 100_000,
    "blanks": "x_" + "_ " * 50_000 + "x",
    "brackets": "([" * 50_000,
    "words": "ecg1 " * 20_000 + "x",
    "lead": "leads" + " " * 100_000,
}


@pytest.mark.parametrize("title", TITLES.values(), ids=TITLES)
def test_a_title_of_any_length_costs_time_in_proportion_to_it(title, tmp_path):
    (tmp_path / "r.csv").write_text(f"{title},time [s],ecg [mV]\n" + "".join(f"1,{i / 250},{i}\n" for i in range(10)))
    assert open_recording(tmp_path / "r.csv").mv.size == 10


@pytest.mark.parametrize(
    "name", ["ECG", "my ecg2 ", "ecg_raw", "lead: x", "  aVR", "MLII", "V12", "EcgWaveform", "ECG_LL-RA", "ecg1x", "DII"]
)
def test_names_of_ecg_leads(name):
    assert is_ecg_name(name)


@pytest.mark.parametrize("name", ["PPG_IR", "IR", "red", "Green LED", "Pleth"])
def test_names_of_pulse_waves(name):
    assert is_ppg_name(name)
    assert not is_ecg_name(name)


@pytest.mark.parametrize(
    ("unit", "millivolts"),
    [("mVolt", 1.0), ("uVolts", 1e-3), ("microV", 1e-3), (" µV ", 1e-3), ("Volt", 1e3), ("mVpp", 0), ("", 0)],
)
def test_units_of_voltage(unit, millivolts):
    assert millivolts_per_unit(unit) == millivolts


def test_a_zip_archive_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "bugreport.zip").write_bytes(b"PK\3\4" + bytes(100))
    assert_refuses(open_recording, tmp_path / "bugreport.zip", "a zip archive .*; unpack it")


@pytest.mark.parametrize("name", ["ecgx", "xecg", "ECG_RESP", "ECG HR", "ecg_timestamp", "Lead off", "lead", "volt", "pulse"])
def test_other_names(name):
    assert not is_ecg_name(name)
