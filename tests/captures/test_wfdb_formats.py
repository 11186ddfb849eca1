"""Signal formats of WFDB: bytes worked out by hand from signal(5), and files that wfdb and soundfile write."""

import io
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from captures import Recording, RecordingError, open_recording
from captures.recording import CHUNK_SAMPLES
from captures.wfdb.formats import FORMATS

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 calls what pandas 3 deprecates
    import wfdb


def read(folder: Path, header: str, content: bytes) -> Recording:
    (folder / "r.hea").write_text(header)
    (folder / "r.dat").write_bytes(content)
    return open_recording(folder / "r.hea")


@pytest.mark.parametrize(
    ("number", "content", "expected"),
    [
        (16, "64009cff0080", [100, -100, np.nan]),
        (61, "0064ff9c8000", [100, -100, np.nan]),
        (24, "640000 9cffff 000080 ffff7f", [100, -100, np.nan, 8388607]),
        (32, "64000000 9cffffff 00000080", [100, -100, np.nan]),
        (80, "e41c00ff", [100, -100, np.nan, 127]),
        (160, "64809c7f0000", [100, -100, np.nan]),
        (212, "64f09c 000708", [100, -100, 1792, 8]),
        (212, "0088000000", [np.nan, np.nan, 0]),  # the last block is incomplete: it holds one sample
        # 310: 100 << 1 | 5 low bits of the third sample << 11; -100 & 0x3FF = 924, its bits 1 to 10; third 5 | 1 << 5 = 37
        (310, struct.pack("<HH", 100 << 1 | 5 << 11, 924 << 1 | 1 << 11).hex(), [100, -100, 37]),
        (310, struct.pack("<HHH", 0x400, 0, 2).hex(), [np.nan, 0, 0, 1]),
        (311, struct.pack("<I", 100 | 924 << 10 | 512 << 20).hex(), [100, -100, np.nan]),
        (311, struct.pack("<I", 3 | 5 << 10)[:3].hex(), [3, 5]),
        (8, "05ff80", [15, 14, -114]),  # differences from the initial value of 10; -128 is a difference like others
    ],
)
def test_values_worked_out_by_hand(tmp_path: Path, number: int, content: str, expected: list[float]) -> None:
    found = read(tmp_path, f"r 1 250\nr.dat {number} 1 0 0 10 0 0 II\n", bytes.fromhex(content))
    assert found.mv.tolist() == pytest.approx(expected, nan_ok=True)


@given(samples=st.lists(st.integers(-511, 511), min_size=1, max_size=40), data=st.data())
def test_ten_bit_formats_hold_what_was_packed(samples: list[int], data: st.DataObject) -> None:
    number = data.draw(st.sampled_from([310, 311]))
    padded = [value & 0x3FF for value in samples] + [0] * (-len(samples) % 3)
    blocks = [padded[at : at + 3] for at in range(0, len(padded), 3)]
    if number == 311:
        raw = b"".join(struct.pack("<I", a | b << 10 | c << 20) for a, b, c in blocks)
    else:
        raw = b"".join(struct.pack("<HH", a << 1 | (c & 31) << 11, b << 1 | c >> 5 << 11) for a, b, c in blocks)
    assert FORMATS[number].decode(raw)[: len(samples)].tolist() == samples


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb 4.3 calls what pandas 3 deprecates
@pytest.mark.parametrize("number", ["16", "24", "32", "80", "212"])
def test_several_chunks_agree_with_wfdb(tmp_path: Path, number: str) -> None:
    adc = np.random.default_rng(3).integers(-128, 128, (CHUNK_SAMPLES + 7, 3))
    wfdb.wrsamp(
        "r", fs=250, units=["mV"] * 3, sig_name=["RESP1", "II", "V"], d_signal=adc, fmt=[number] * 3, adc_gain=[200.0] * 3,
        baseline=[0, 3, 0], write_dir=str(tmp_path),
    )  # fmt: skip
    recording = open_recording(tmp_path / "r.hea")
    expected = wfdb.rdrecord(str(tmp_path / "r")).p_signal[:, 1]
    np.testing.assert_allclose(recording.mv, expected, atol=1e-12, equal_nan=True)
    assert max(chunk.values.size for chunk in recording.read_chunks()) <= CHUNK_SAMPLES


@pytest.mark.parametrize(("number", "frames"), [(310, 65536), (311, 65538), (8, 70000)])
def test_several_chunks_of_formats_that_wfdb_does_not_write(tmp_path: Path, number: int, frames: int) -> None:
    kind = FORMATS[number]
    raw = np.random.default_rng(4).integers(0, 256, kind.count_bytes(2 * frames), np.uint8)
    if number == 311:
        raw[3::4] &= 63  # wfdb takes the two bits that the format leaves unused for a part of the third sample
    recording = read(
        tmp_path, f"r 2 250 {frames}\nr.dat {number} 1 0 0 0 0 0 RESP\nr.dat {number} 1 0 0 0 0 0 II\n", raw.tobytes()
    )
    expected = wfdb.rdrecord(str(tmp_path / "r")).p_signal[:, 1]
    np.testing.assert_allclose(recording.mv, expected, equal_nan=True)


def test_frames_skew_and_offset_agree_with_wfdb(tmp_path: Path) -> None:
    raw = b"abc" + np.random.default_rng(5).integers(-2000, 2000, 4 * 100, np.int16).tobytes()
    header = "r 3 125 100\nr.dat 16+3 200 12 0 0 0 0 RESP\nr.dat 16x2:5+3 200 12 0 0 0 0 II\nr.dat 16+3 200 12 0 0 0 0 ABP\n"
    recording = read(tmp_path, header, raw)
    expected = wfdb.rdrecord(str(tmp_path / "r"), smooth_frames=False).e_p_signal[1]
    assert recording.rate_hz == 250
    assert recording.mv.tolist() == pytest.approx(expected[:190].tolist())
    assert expected.size == 200  # of the last ten, which the skew lacks, wfdb marks the last five only


def test_signals_in_several_files_and_formats_agree_with_wfdb(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    (tmp_path / "a.dat").write_bytes(rng.integers(0, 256, 300, np.uint8).tobytes())
    (tmp_path / "b.dat").write_bytes(rng.integers(0, 256, 200, np.uint8).tobytes())
    header = "r 3 250 100\na.dat 212 200 12 0 0 0 0 RESP\na.dat 212 200 12 0 0 0 0 ABP\nb.dat 16 200 12 7 0 0 0 V5\n"
    (tmp_path / "r.hea").write_text(header)
    expected = wfdb.rdrecord(str(tmp_path / "r")).p_signal[:, 2]
    np.testing.assert_allclose(open_recording(tmp_path / "r.hea").mv, expected, equal_nan=True)


def flac(samples: np.ndarray, bits: int) -> bytes:
    """A FLAC file of these samples; soundfile takes them at the upper end of 16 or 32 bits."""
    file = io.BytesIO()
    shifted = samples.astype(np.int16) << (16 - bits) if bits <= 16 else samples.astype(np.int32) << (32 - bits)
    soundfile.write(file, shifted, 250, format="FLAC", subtype={8: "PCM_S8", 16: "PCM_16", 24: "PCM_24"}[bits])
    return file.getvalue()


@pytest.mark.parametrize(("number", "bits"), [(508, 8), (516, 16), (516, 8), (524, 24)])
def test_flac_files_hold_what_was_encoded(tmp_path: Path, number: int, bits: int) -> None:
    samples = np.random.default_rng(8).integers(-(1 << (bits - 1)), 1 << (bits - 1), (CHUNK_SAMPLES + 99, 2))
    checksum = int(samples[2:, 1].sum()) & 0xFFFF
    header = f"r 2 250\nr.dat {number}+2 200/mV 8 0 0 0 0 RESP\nr.dat {number}+2 200/mV 8 0 0 {checksum} 0 II\n"
    recording = read(tmp_path, header, flac(samples, bits))
    expected = samples[2:, 1] / 200
    expected[samples[2:, 1] == -1 << (number - 501)] = np.nan
    np.testing.assert_allclose(recording.mv, expected, equal_nan=True)
    assert not any("checksum" in note or "truncated" in note for note in recording.notes)


def test_a_flac_file_in_frames_agrees_with_wfdb(tmp_path: Path) -> None:
    samples = np.random.default_rng(9).integers(-2000, 2000, (400, 2))
    recording = read(
        tmp_path, "r 2 125 200\nr.dat 516x2 200/mV 12 0 0 0 0 RESP\nr.dat 516x2 200/mV 12 0 0 0 0 II\n", flac(samples, 16)
    )
    expected = wfdb.rdrecord(str(tmp_path / "r"), smooth_frames=False).e_p_signal[1]
    assert recording.rate_hz == 250
    np.testing.assert_allclose(recording.mv, expected)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("r 1 250 300\nr.dat 516 200\n", "holds 2 channels of PCM_16, not the 1 signals in format 516"),
        ("r 2 250 300\nr.dat 508 200\nr.dat 508 200\n", "format 508"),
        ("r 2 250 300\nr.dat 516 200\nr.dat 516x2 200\n", "differ in samples per frame"),
    ],
)
def test_a_flac_file_that_differs_from_the_header_is_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        read(tmp_path, header, flac(np.zeros((300, 2)), 16))


def test_a_flac_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="not a FLAC file"):
        read(tmp_path, "r 1 250 300\nr.dat 516 200\n", bytes(600))


def test_a_truncated_flac_file_is_read_with_a_note(tmp_path: Path) -> None:
    samples = np.random.default_rng(10).integers(-2000, 2000, (20_000, 1))
    content = flac(samples, 16)
    recording = read(tmp_path, "r 1 250 20000\nr.dat 516 1 12 0 0 0 0 II\n", content[: len(content) // 2])
    held = recording.mv.size
    assert 0 < held < 20_000
    assert recording.mv.tolist() == samples[:held, 0].tolist()
    assert f"r.dat is truncated: it holds {held} of 20000 samples per signal, {20_000 - held} are missing" in recording.notes


def test_without_soundfile_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(RecordingError, match=r"pip install 'pulsegate\[captures\]'"):
        read(tmp_path, "r 1 250 300\nr.dat 516 200\n", flac(np.zeros((300, 1)), 16))
