"""Which file of a WFDB record is read, by the names that people and headers give, and which of its signals."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from captures import ReadOptions, Recording, RecordingError, open_recording
from evaluation.records import has_signals

WAVE = (np.sin(np.arange(500) / 9) * 200).astype(int)


def write_record(folder: Path, signals: list[str], *columns: np.ndarray, header: str = "r.hea", file: str = "r.dat") -> Path:
    """Write a record at 250 Hz in format 16; `signals` are signal lines from the gain on."""
    adc = np.stack(columns or [WAVE] * len(signals), axis=1)
    lines = [f"r {len(signals)} 250 {len(adc)}", *(f"r.dat 16 {signal}" for signal in signals)]
    (folder / header).write_text("\n".join(lines) + "\n")
    (folder / file).write_bytes(adc.astype("<i2").tobytes())
    return folder / header


@pytest.mark.parametrize("given", ["r", "r.hea", "r.dat"])
def test_a_record_is_named_with_or_without_suffix(tmp_path: Path, given: str) -> None:
    write_record(tmp_path, ["200 12 0 0 0 0 II"])
    assert open_recording(tmp_path / given).mv == pytest.approx(WAVE / 200)


@pytest.mark.parametrize(("header", "file"), [("R.HEA", "R.DAT"), ("R.HEA", "r.dat"), ("r.hea", "R.DAT"), ("R.hea", "r.DAT")])
def test_the_case_of_names_does_not_matter(tmp_path: Path, header: str, file: str) -> None:
    write_record(tmp_path, ["200 12 0 0 0 0 II"], header=header, file=file)
    for given in (header, file, "r", "R", "r.hea"):
        assert open_recording(tmp_path / given).mv.size == 500


def test_a_name_with_dots_is_no_suffix(tmp_path: Path) -> None:
    write_record(tmp_path, ["200 12 0 0 0 0 II"], header="rec.v1.hea")
    assert open_recording(tmp_path / "rec.v1").name == "rec.v1"


def test_a_folder_with_one_record_is_that_record(tmp_path: Path) -> None:
    write_record(tmp_path, ["200 12 0 0 0 0 II"], header="s1.hea")
    (tmp_path / "whole.hea").write_text("whole/2 1 250 1000\ns1 500\ns1 500\n")
    assert open_recording(tmp_path).mv.size == 1000


def test_a_folder_with_several_records_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"is a folder without a WFDB header \(.hea\); give the files in it"):
        open_recording(tmp_path)
    for number in range(8):
        write_record(tmp_path, ["200 12 0 0 0 0 II"], header=f"{number}.hea")
    with pytest.raises(RecordingError, match=r"folder with 8 records \(0.hea, .*4.hea and 3 more\); give one or more of them"):
        open_recording(tmp_path)


def test_a_record_beside_a_folder_of_its_name_is_read(tmp_path: Path) -> None:
    write_record(tmp_path, ["200 12 0 0 0 0 II"])
    (tmp_path / "r").mkdir()
    assert open_recording(tmp_path / "r").mv.size == 500


@pytest.mark.parametrize(("name", "content"), [("A1.mat", b"\0\0\0\0val"), ("A1.dat", bytes(40)), ("A1.MAT", b"MATLAB 5.0")])
def test_samples_without_a_header_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordingError, match=r"its header A1.hea is missing; put it beside the file"):
        open_recording(tmp_path / name)


def test_matlab_files_are_read_by_their_header(tmp_path: Path) -> None:
    (tmp_path / "a.hea").write_text("a 1 300 500\na.mat 16+24 200/mV 16 0 0 0 0 ECG\n")
    (tmp_path / "a.mat").write_bytes(struct.pack("<5i4s", 30, 1, 500, 0, 4, b"val\0") + WAVE.astype("<i2").tobytes())
    assert open_recording(tmp_path / "a.mat").mv == pytest.approx(WAVE / 200)


def test_no_more_is_read_than_the_header_states(tmp_path: Path) -> None:
    path = write_record(tmp_path, ["200 12 0 0 0 0 II"])
    with (tmp_path / "r.dat").open("r+b") as file:
        file.truncate(1 << 40)
    recording = open_recording(path)
    assert recording.mv.size == 500
    assert recording.notes[0].startswith("r.dat holds 549755813888 samples per signal, the header states 500")


@pytest.mark.parametrize("lost", [1, 2, 500, 998])
def test_a_truncated_signal_file_is_read_with_a_note(tmp_path: Path, lost: int) -> None:
    path = write_record(tmp_path, ["200 12 0 0 0 0 II"])
    os.truncate(tmp_path / "r.dat", 1000 - lost)
    recording = open_recording(path)
    held = (1000 - lost) // 2
    assert recording.mv == pytest.approx(WAVE[:held] / 200)
    assert recording.notes[0] == f"r.dat is truncated: it holds {held} of 500 samples per signal, {500 - held} are missing"
    assert recording.is_truncated


def test_a_file_that_becomes_shorter_after_it_was_opened_is_told(tmp_path: Path) -> None:
    recording = open_recording(write_record(tmp_path, ["200 12 0 0 0 0 II"]))
    os.truncate(tmp_path / "r.dat", 500)
    with pytest.raises(RecordingError, match="became shorter while it was read"):
        list(recording.read_pieces())


def read(folder: Path, signals: list[str], *columns: np.ndarray, **options: object) -> Recording:
    return open_recording(write_record(folder, signals, *columns), ReadOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "MLII",
        "V5",
        "ECG1",
        "ECG",
        "II",
        "AVR",
        "MCL1",
        "i",
        "v1",
        "vx",
        "II,",
        "ECG lead II",
        "EKG",
        "aVF",
        "MLIII",
        "CM5",
        "ML5",
        "V3R",
    ],
)
def test_the_ecg_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    others = [
        "200 12 0 0 0 0 RESP",
        "200 12 0 0 0 0 PLETH,",
        "200 12 0 0 0 0 Lead off",
        "10/uV 12 0 0 0 0 EEG Fpz-Cz",
        "200 12 0 0 0 0 ABP",
    ]
    recording = read(tmp_path, [*others, f"200 12 0 0 0 0 {name}"])
    assert recording.notes == (f"signal 6 of 6 ({name.strip(',')}) in mV, 250 Hz",)


@pytest.mark.parametrize(
    "names", [["RESP"], ["PLETH", "RESP"], ["EEG Fpz-Cz", "EOG horizontal"], ["Lead off"], ["noise1"], ["ABP"]]
)
def test_a_record_without_an_ecg_is_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(RecordingError, match=r"no ECG among its signals .*--signal"):
        read(tmp_path, [f"200 12 0 0 0 0 {name}" for name in names])


def test_the_signal_that_the_user_names_is_read(tmp_path: Path) -> None:
    signals = ["200 12 0 0 0 0 II", "400 12 0 0 0 0 FECG", "1000/NU 12 0 0 0 0 PLETH"]
    fetal = read(tmp_path, signals, signal="FECG")
    assert fetal.mv == pytest.approx(WAVE / 400)
    assert "FECG is not named like an ECG, but read as one, as stated" in fetal.notes
    assert read(tmp_path, signals, signal="2").mv == pytest.approx(WAVE / 400)
    pulse = read(tmp_path, signals, signal="pleth")
    assert pulse.kind == "ppg"
    assert pulse.mv == pytest.approx(WAVE / 1000)


def off_after(samples: int) -> np.ndarray:
    """A wave whose electrode comes off after some samples: every sample is invalid from there on."""
    return np.where(np.arange(WAVE.size * 4) < samples, np.tile(WAVE, 4), -32768)


def spiky(*places: int) -> np.ndarray:
    """A flat signal with some artefacts."""
    flat = np.full(WAVE.size * 4, 7)
    flat[[*places]] = 400 + np.array(places)
    return flat


@pytest.mark.parametrize(
    ("lead", "told"),
    [
        (off_after(250), "signal I is flat or invalid for 88 % of its time: signal II is read"),
        (np.flip(off_after(200)), "signal I is flat or invalid for 88 % of its time: signal II is read"),
        (spiky(100, 120, 900), "signal I is flat or invalid for 100 % of its time: signal II is read"),
        (np.arange(2000) // 100 % 2, "signal I has only two values: signal II is read"),
    ],
)
def test_a_first_lead_that_is_off_for_most_of_its_time_is_passed_over(tmp_path: Path, lead: np.ndarray, told: str) -> None:
    recording = read(tmp_path, ["200 12 0 0 0 0 I", "100 12 0 0 0 0 II"], lead, np.tile(WAVE, 4))
    assert recording.mv == pytest.approx(np.tile(WAVE, 4) / 100)
    assert told in recording.notes


def test_of_two_poor_leads_the_better_one_is_read(tmp_path: Path) -> None:
    recording = read(tmp_path, ["200 12 0 0 0 0 I", "100 12 0 0 0 0 II"], spiky(), off_after(250))
    assert np.count_nonzero(np.isfinite(recording.mv)) == 250
    told = "signal I is constant (flat), signal II is flat or invalid for 88 % of its time: signal II is read"
    assert told in recording.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08" + bytes(60), "is a gzip file; decompress it"),
        (b"fLaC" + bytes(60), "is a FLAC file"),
        (b"MATLAB 5.0 MAT-file" + bytes(60), "is a MATLAB file of version 5"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n", "is a page of a web site"),
    ],
)
def test_files_that_hold_no_samples_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = write_record(tmp_path, ["200 12 0 0 0 0 II"])
    (tmp_path / "r.dat").write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        open_recording(path)


def test_a_skewed_signal_reaches_its_end_where_the_file_goes_on(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r 1 250 500\nr.dat 16:25 200 12 0 0 0 0 II\n")
    stored = np.concatenate((np.zeros(25, int), WAVE))
    (tmp_path / "r.dat").write_bytes(stored.astype("<i2").tobytes())
    assert open_recording(tmp_path / "r.hea").mv == pytest.approx(WAVE / 200)
    (tmp_path / "r.dat").write_bytes(stored[:500].astype("<i2").tobytes())
    assert open_recording(tmp_path / "r.hea").mv == pytest.approx(WAVE[:475] / 200)


@pytest.mark.parametrize("dead", [np.zeros(500, int), np.full(500, -32768)])
def test_a_dead_first_lead_is_told_and_the_next_one_read(tmp_path: Path, dead: np.ndarray) -> None:
    recording = read(tmp_path, ["200 12 0 0 0 0 I", "100 12 0 0 0 0 II"], dead, WAVE)
    assert recording.mv == pytest.approx(WAVE / 100)
    assert any("signal I " in note and "signal II is read" in note for note in recording.notes)


def test_an_ecg_of_unknown_scale_is_read_and_told(tmp_path: Path) -> None:
    recording = read(tmp_path, ["200 12 0 0 0 0 RESP", "200/NU 12 0 0 0 0 II"])
    assert recording.mv == pytest.approx(WAVE / 200)
    assert "the unit of II is 'NU': its scale is unknown, and mV are assumed; if that is wrong, give --unit" in recording.notes


def test_counts_of_unknown_scale_are_refused_until_the_unit_is_stated(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"the unit of II is 'adu'.*state it with --unit, such as 200/mV"):
        read(tmp_path, ["1/adu 12 0 0 0 0 II"])
    assert read(tmp_path, ["1/adu 12 0 0 0 0 II"], unit="200/mV").mv == pytest.approx(WAVE / 200)
    assert read(tmp_path, ["1(50)/adu 12 0 0 0 0 II"], unit="uV").mv == pytest.approx((WAVE - 50) / 1000)


def test_an_amplitude_that_no_ecg_has_is_told(tmp_path: Path) -> None:
    recording = read(tmp_path, ["1/mV 12 0 0 0 0 II"])
    assert recording.notes[1:] == ("II has an amplitude of 398 mV, unusual for an ECG; if the gain is wrong, give --unit",)


def test_an_uncalibrated_signal_is_told(tmp_path: Path) -> None:
    recording = read(tmp_path, ["0(10)/mV 12 0 0 0 0 II"])
    assert recording.mv == pytest.approx((WAVE - 10) / 200)
    assert recording.notes[1:] == ("II is not calibrated: the default of 200 units per mV is assumed",)


def test_a_signal_that_is_not_stored_has_no_sample(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r 2 250 500\n~ 0 200 12 0 0 0 0 I\nr.dat 16 200 12 0 0 0 0 II\n")
    (tmp_path / "r.dat").write_bytes(WAVE.astype("<i2").tobytes())
    recording = open_recording(tmp_path / "r.hea")
    assert recording.mv == pytest.approx(WAVE / 200)
    assert any("signal I has no valid sample" in note for note in recording.notes)


def test_the_evaluation_finds_records_of_every_kind(tmp_path: Path) -> None:
    path = write_record(tmp_path, ["200 12 0 0 0 0 II"])
    assert has_signals(path)
    path.write_text("r/2 1 250 1000\nr1 500\nr2 500\n")
    assert has_signals(path)
    path.write_text("r 0 250 1000\n")
    assert not has_signals(path)
