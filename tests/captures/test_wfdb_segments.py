"""WFDB records of several segments, of fixed and of variable layout, compared with wfdb and worked out by hand."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

from captures import ReadOptions, Recording, RecordingError, open_recording

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 calls what pandas 3 deprecates
    import wfdb

RATE_HZ = 250


def write_segment(folder: Path, name: str, signals: dict[str, str], length: int, seed: int) -> np.ndarray:
    """Write a segment of format 16 with signals of random samples; `signals` are names and gain fields."""
    adc = np.random.default_rng(seed).integers(-1000, 1000, (length, len(signals)))
    (folder / f"{name}.dat").write_bytes(adc.astype("<i2").tobytes())
    lines = [f"{name} {len(signals)} {RATE_HZ} {length}"]
    lines += [
        f"{name}.dat 16 {gain} 16 0 {adc[0, at]} {adc[:, at].sum() & 0xFFFF} 0 {key}"
        for at, (key, gain) in enumerate(signals.items())
    ]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    return adc


def write_variable(folder: Path) -> Path:
    write_segment(folder, "a", {"II": "500(7)/mV", "RESP": "400/mV"}, 300, 1)
    write_segment(folder, "b", {"RESP": "400/mV", "V": "100/mV", "II": "250/mV"}, 200, 2)
    write_segment(folder, "c", {"V": "100/mV"}, 100, 3)
    layout = [f"~ 0 500/mV 16 0 0 0 0 {name}" for name in ("RESP", "II", "V")]
    (folder / "layout.hea").write_text(f"layout 3 {RATE_HZ} 0\n" + "\n".join(layout) + "\n")
    (folder / "r.hea").write_text(f"r/6 3 {RATE_HZ} 850 10:00:00 02/04/2024\nlayout 0\na 300\n~ 150\nb 200\nc 100\n~ 100\n")
    return folder / "r.hea"


def lay_out(recording: Recording, length: int) -> np.ndarray:
    values = np.full(length, np.nan)
    for piece in recording.read_pieces():
        first = round(piece.start_s * recording.rate_hz)
        values[first : first + piece.values.size] = piece.values
    return values


@pytest.mark.parametrize(("signal", "segments"), [("II", "2 of 3 segments hold II"), ("V", "2 of 3 segments hold V")])
def test_a_variable_layout_agrees_with_wfdb(tmp_path: Path, signal: str, segments: str) -> None:
    recording = open_recording(write_variable(tmp_path), ReadOptions(signal=signal))
    expected = wfdb.rdrecord(str(tmp_path / "r"))
    np.testing.assert_allclose(lay_out(recording, 850), expected.p_signal[:, expected.sig_name.index(signal)], equal_nan=True)
    assert segments in recording.notes
    assert recording.start_us == 1712052000_000_000


def test_lengths_that_differ_from_the_master_header_are_told(tmp_path: Path) -> None:
    path = write_variable(tmp_path)
    path.write_text("r/3 3 250 900\nlayout 0\na 200\nb 200\n")
    recording = open_recording(path)
    assert "the header states 900 samples, its segments have 400: these are read" in recording.notes
    assert any(note.startswith("1 segments are longer") and "a (300 samples, not 200)" in note for note in recording.notes)
    assert recording.mv.size == 400


def test_segments_may_be_named_with_their_suffix_and_signals_with_dots(tmp_path: Path) -> None:
    first = write_segment(tmp_path, "a", {"II.": "500(7)/mV"}, 300, 1)
    second = write_segment(tmp_path, "b", {"ii,": "500(7)/mV"}, 200, 2)
    (tmp_path / "r.hea").write_text("r/2 1 250 500\na.hea 300\nb.hea 200\n")
    recording = open_recording(tmp_path / "r.hea")
    assert recording.mv == pytest.approx((np.concatenate((first, second))[:, 0] - 7) / 500)


def test_a_record_of_gaps_alone_has_no_signals(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r/1 1 250 500\n~ 500\n")
    with pytest.raises(RecordingError, match="no signals, only gaps"):
        open_recording(tmp_path / "r.hea")


def test_the_first_ecg_of_the_layout_is_read_with_its_gaps(tmp_path: Path) -> None:
    recording = open_recording(write_variable(tmp_path))
    assert [(segment.start_s, segment.last - segment.first + 1) for segment in recording.segments] == [(0.0, 300), (1.8, 200)]
    assert list(recording.read_pieces())[-1].start_s == 850 / RATE_HZ
    assert f"signal 2 of 3 (II) in mV, {RATE_HZ:g} Hz" in recording.notes


def test_a_fixed_layout_is_one_recording_without_a_gap(tmp_path: Path) -> None:
    parts = [
        write_segment(tmp_path, name, {"ECG": "500/mV"}, length, length)
        for name, length in (("a", 200), ("b", 150), ("c", 250))
    ]
    (tmp_path / "r.hea").write_text(f"r/3 1 {RATE_HZ} 600 08:15:00 01/03/2024 # three\na 200\nb\t150\n c  250 # last\n")
    recording = open_recording(tmp_path / "r.hea")
    assert recording.mv == pytest.approx(np.concatenate(parts)[:, 0] / 500)
    assert recording.segments == ((0.0, 0, 599),)
    assert recording.rate_hz == RATE_HZ


def test_segments_in_a_fixed_layout_are_joined_by_name(tmp_path: Path) -> None:
    first = write_segment(tmp_path, "a", {"II": "500/mV", "V": "500/mV"}, 100, 1)
    second = write_segment(tmp_path, "b", {"V": "500/mV", "II": "250/mV"}, 100, 2)
    (tmp_path / "r.hea").write_text(f"r/2 2 {RATE_HZ} 200\na 100\nb 100\n")
    assert open_recording(tmp_path / "r.hea").mv == pytest.approx(np.concatenate((first[:, 0] / 500, second[:, 1] / 250)))


def test_the_rate_and_start_may_stand_in_the_segments_alone(tmp_path: Path) -> None:
    write_segment(tmp_path, "a", {"ECG": "500/mV"}, 100, 1)
    text = (tmp_path / "a.hea").read_text().replace(f"{RATE_HZ} 100", "500 100 09:00:00 01/02/2020")
    (tmp_path / "a.hea").write_text(text)
    (tmp_path / "r.hea").write_text("r/2 1\na 100\na 100\n")
    recording = open_recording(tmp_path / "r.hea")
    assert recording.rate_hz == 500
    assert recording.start_us == 1580547600_000_000


def test_a_segment_may_lie_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    adc = write_segment(tmp_path / "parts", "a", {"ECG": "500/mV"}, 100, 1)
    (tmp_path / "r.hea").write_text(f"r/1 1 {RATE_HZ} 100\nparts/a 100\n")
    assert open_recording(tmp_path / "r.hea").mv == pytest.approx(adc[:, 0] / 500)


def test_a_truncated_segment_leaves_a_gap_and_a_note(tmp_path: Path) -> None:
    path = write_variable(tmp_path)
    (tmp_path / "a.dat").write_bytes((tmp_path / "a.dat").read_bytes()[:-40])
    recording = open_recording(path)
    assert [(segment.start_s, segment.last - segment.first + 1) for segment in recording.segments] == [(0.0, 290), (1.8, 200)]
    assert "a.dat is truncated: it holds 290 of 300 samples per signal, 10 are missing" in recording.notes


def test_a_record_that_is_one_gap_has_no_sample(tmp_path: Path) -> None:
    write_variable(tmp_path)
    (tmp_path / "r.hea").write_text(f"r/2 3 {RATE_HZ} 750\nlayout 0\n~ 750\n")
    recording = open_recording(tmp_path / "r.hea")
    assert recording.mv.size == 0
    assert any("has no valid sample" in note for note in recording.notes)


@pytest.mark.parametrize(
    ("master", "message"),
    [
        ("r/2 1 250 600\na 300\ngone 300\n", "its segment gone.hea is missing; put it beside the header"),
        ("r/1 1 250 600\nr 300\n", "has segments of its own; give the segments one by one"),
        ("r/2 1 250 600\na 300\nnodat 300\n", "nodat.hea: its signal file nodat.dat is missing"),
        ("r/2 1 250 600\na 300\nfast 300\n", "fast.hea: a segment at 500 Hz in a record at 250 Hz"),
        ("r/2 1 250 600\na 300\nframes 300\n", "signal 'II' has 2 samples per frame, in another segment 1"),
        ("r/2 1 250 600\na 300\nb\n", "invalid segment line 'b'"),
        ("r/2 1 250 600\na 300\nb x\n", "invalid number of samples of a segment"),
        ("r/0 1 250 600\na 300\n", "states 0 segments"),
        ("r/2 1 250 600\na 300\n~ 999999999999999\n", "31 years"),
    ],
)
def test_an_invalid_record_of_segments_is_refused(tmp_path: Path, master: str, message: str) -> None:
    path = write_variable(tmp_path)
    path.write_text(master)
    (tmp_path / "nodat.hea").write_text("nodat 1 250 300\nnodat.dat 16 200/mV 16 0 0 0 0 II\n")
    (tmp_path / "fast.hea").write_text("fast 1 500 300\na.dat 16 200/mV 16 0 0 0 0 II\n")
    (tmp_path / "frames.hea").write_text("frames 1 250 300\na.dat 16x2 200/mV 16 0 0 0 0 II\n")
    with pytest.raises(RecordingError, match=message) as error:
        open_recording(path)
    assert str(tmp_path) in str(error.value)


def test_many_gaps_take_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(struct.pack("<4h", 1, 2, 3, 4))
    (tmp_path / "a.hea").write_text("a 1 250 4\na.dat 16 1/mV 16 0 0 0 0 II\n")
    (tmp_path / "r.hea").write_text("r/3 1 250\na 4\n~ 200000000000\na 4\n")
    pieces = list(open_recording(tmp_path / "r.hea").read_pieces())
    assert [(piece.start_s, piece.values.size) for piece in pieces] == [(0.0, 4), (800_000_000.016, 4)]
