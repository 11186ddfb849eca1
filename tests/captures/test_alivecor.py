"""Files of AliveCor's Kardia (.atc), made by the tables of their specification."""

import contextlib
import gzip
import struct
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import ReadOptions, RecordingError, open_recording

SIGNATURE = b"ALIVE\0\0\0" + struct.pack("<I", 5)
COUNTS = np.tile([0, 1000, -297, 393, 4893, -32768], 200)


def block(name, data, checksum=sum):
    covered = name + struct.pack("<I", len(data)) + data
    return covered + struct.pack("<I", checksum(covered))


def info(date=b"2010-12-08T15:54:23.245+10:00"):
    return block(b"info", date.ljust(264, b"\0"))


def layout(rate_hz=300, resolution_nv=500, kind=1):
    return block(b"fmt ", struct.pack("<BHHBH", kind, rate_hz, resolution_nv, 14, 0))


def lead(name=b"ecg ", counts=COUNTS, checksum=sum):
    return block(name, np.asarray(counts, "<i2").tobytes(), checksum)


def write(folder, *blocks, name="kardia.atc"):
    (folder / name).write_bytes(SIGNATURE + b"".join(blocks))
    return folder / name


def test_header_of_the_specification(tmp_path):
    # The example of the specification: 300 Hz, 500 nV a count, 2010-12-08T15:54:23.245+10:00.
    record = open_recording(write(tmp_path, info(), layout(), lead()))
    assert record.rate_hz == 300
    assert record.mv == pytest.approx(COUNTS * 500e-6)
    assert record.start_us == datetime(2010, 12, 8, 5, 54, 23, 245_000, UTC).timestamp() * 1e6
    assert record.notes == ("lead I at 300 Hz, 2000 counts per mV (AliveCor)",)


def test_checksum_may_be_the_sum_or_the_crc32(tmp_path):
    for checksum in (sum, zlib.crc32):
        assert open_recording(write(tmp_path, layout(), lead(checksum=checksum))).mv.size == COUNTS.size
    with pytest.raises(RecordingError, match="checksum of lead I is wrong"):
        open_recording(write(tmp_path, layout(), lead(checksum=lambda data: sum(data) + 1)))


def test_leads_are_chosen_by_name_or_number(tmp_path):
    path = write(
        tmp_path, layout(), lead(), lead(b"ecg2", COUNTS // 2), block(b"avg2", b"\1\0" * 450), lead(b"ecgc", -COUNTS - 1)
    )
    assert "the file holds more leads (II, V6); choose one with --signal NAME" in open_recording(path).notes
    assert open_recording(path, ReadOptions(signal="II")).mv == pytest.approx(COUNTS // 2 * 5e-4)
    assert open_recording(path, ReadOptions(signal="3")).mv == pytest.approx((-COUNTS - 1) * 5e-4)


def test_a_flat_lead_is_passed_over(tmp_path):
    record = open_recording(write(tmp_path, layout(), lead(counts=[7] * 900), lead(b"ecg2")))
    assert record.mv == pytest.approx(COUNTS * 5e-4)
    assert record.notes[0] == "signal I is constant (flat): signal II is read"


def test_a_cut_file_is_read_up_to_its_end(tmp_path):
    path = write(tmp_path, layout(), lead())
    path.write_bytes(path.read_bytes()[:-104])
    record = open_recording(path)
    assert record.is_truncated
    assert record.mv == pytest.approx(COUNTS[:-50] * 5e-4)
    assert f"the file is cut: {COUNTS.size - 50} of {COUNTS.size} samples are left" in record.notes


def test_gzip(tmp_path):
    path = tmp_path / "kardia.atc.gz"
    path.write_bytes(gzip.compress(write(tmp_path, layout(), lead()).read_bytes()))
    assert open_recording(path).mv.size == COUNTS.size


def test_options_state_what_the_header_does_not(tmp_path):
    path = write(tmp_path, layout(rate_hz=0, resolution_nv=0), lead())
    with pytest.raises(RecordingError, match="no sampling rate or scale; give --rate HZ and --unit N/mV"):
        open_recording(path)
    record = open_recording(path, ReadOptions(rate_hz=250.0, unit="1000/mV"))
    assert (record.rate_hz, record.mv[1]) == (250, 1)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ((), "without samples of an ECG"),
        ((layout(), block(b"avg ", b"\1\0" * 450)), "without samples of an ECG"),
        ((layout(kind=2), lead()), "AliveCor samples of format 2, which is not supported"),
        ((lead(),), "no sampling rate or scale"),
    ],
)
def test_what_is_missing_is_named(blocks, words, tmp_path):
    with pytest.raises(RecordingError, match=words):
        open_recording(write(tmp_path, *blocks))


@given(tail=st.binary(max_size=120), cut=st.integers(0, 400))
def test_damage_gives_declared_errors_only(tail, cut, tmp_path_factory):
    path = tmp_path_factory.mktemp("atc") / "kardia.atc"
    whole = SIGNATURE + info() + layout() + lead(counts=[1, 2, 3])
    path.write_bytes(whole[: len(SIGNATURE) + cut] + tail)
    with contextlib.suppress(RecordingError):
        assert np.isfinite(open_recording(path).mv).all()
