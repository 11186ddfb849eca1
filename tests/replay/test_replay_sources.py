"""Synthetic files with known samples: gaps, scales, sensor frames, damage in the middle."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from captures.jsonl import CaptureHeader, CaptureWriter
from drivers.device import DeviceInformation
from drivers.readings import Waveform
from drivers.registry import load_drivers
from gateway.replay.sources import SourceError, open_source
from sync.records import GapRecord, QuarantinedRecord
from tests.captures.bluetooth_files import btsnoop, heart_rate_session

HEART_RATE = "00002a37-0000-1000-8000-00805f9b34fb"
MODEL_NUMBER = "00002a24-0000-1000-8000-00805f9b34fb"
PMD_DATA = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"
START_US = 1_714_920_600_000_000


def ecg_mv(seconds: float, rate_hz: float, rr_s: float) -> NDArray[np.float64]:
    """A QRS of 1 mV and 40 ms width every `rr_s`, the first one at `rr_s`, with a small T wave."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    from_peak = (t + rr_s / 2) % rr_s - rr_s / 2
    qrs = np.exp(-0.5 * (from_peak / 0.012) ** 2) * (t > rr_s / 2)
    return qrs + 0.15 * np.exp(-0.5 * ((from_peak - 0.25) / 0.04) ** 2)


def csv_file(folder: Path, mv: NDArray[np.float64], rate_hz: float, start_s: float = 0.0) -> Path:
    rows = (f"{start_s + i / rate_hz:.6f},{'' if np.isnan(v) else f'{v:.3f}'}\n" for i, v in enumerate(mv))
    path = folder / "made.csv"
    path.write_text("time [s],ecg [mV]\n" + "".join(rows))
    return path


def wfdb_record(folder: Path, adc: NDArray[np.int16]) -> Path:
    """Format 16, 250 Hz, 1000 units per mV, started on 5 May 2024 at 14:50 UTC."""
    (folder / "made.dat").write_bytes(adc.astype("<i2").tobytes())
    path = folder / "made.hea"
    path.write_text(f"made 1 250 {adc.size} 14:50:00 05/05/2024\nmade.dat 16 1000/mV 16 0 {adc[0]} 0 0 II\n")
    return path


def heart_rate(bpm: int, *ticks: int) -> bytes:
    """Heart Rate Measurement with RR intervals: Heart Rate Service 1.0, section 3.1."""
    return struct.pack(f"<BB{len(ticks)}H", 0x10, bpm, *ticks)


def pmd_frame(microvolts: NDArray[np.int64], last_ns: int) -> bytes:
    """ECG, uncompressed frame type 0: 3 bytes per sample, two's complement: Polar PMD specification."""
    samples = b"".join(int(value).to_bytes(3, "little", signed=True) for value in microvolts)
    return struct.pack("<BQB", 0, last_ns, 0) + samples


def test_every_sample_is_passed_on_unchanged(tmp_path: Path) -> None:
    adc = np.random.default_rng(1).integers(-32767, 32767, 1100).astype(np.int16)
    source = open_source(wfdb_record(tmp_path, adc), load_drivers())
    waves = [reading for step in source.steps for reading in step.readings if isinstance(reading, Waveform)]
    values = np.concatenate([np.array(wave.samples) * wave.scale for wave in waves])
    assert np.abs(values - adc / 1000).max() < 1e-9
    assert [wave.last_ns for wave in waves] == [996_000_000, 1_996_000_000, 2_996_000_000, 3_996_000_000, 4_396_000_000]
    assert (source.start_us, source.start_known) == (START_US, True)


def test_invalid_samples_in_a_record_are_a_gap(run: Any, tmp_path: Path) -> None:
    adc = np.round(1000 * ecg_mv(40, 250, 0.8)).astype(np.int16)
    adc[250 * 20 : 250 * 26] = -32768
    result = run(wfdb_record(tmp_path, adc))
    assert result.status == 0
    (gap,) = result.of("gap")
    assert (gap["onset"], gap["end"], gap["missing"]) == (19.996, 26.0, 1500)
    assert gap["reason"] == "no valid samples in the recording"
    assert result.summary["ecg_seconds"] == pytest.approx(34.0)
    assert result.summary["duration"] == pytest.approx(40.0)
    assert result.summary["start"] == "2024-05-05T14:50:00.000Z"
    assert result.summary["mean_rate"] == pytest.approx(75.0, abs=0.2)
    assert not result.of("alert"), "missing samples are not a pause"


def test_invalid_samples_at_either_end_are_reported(run: Any, tmp_path: Path) -> None:
    mv = ecg_mv(40, 250, 0.8)
    mv[:500], mv[-1000:] = np.nan, np.nan
    result = run(csv_file(tmp_path, mv, 250))
    (gap,) = result.of("gap")
    assert (gap["onset"], gap["end"]) == (35.996, 40.0)
    assert "the first 2.000 s contain no valid sample" in result.summary["notes"]
    assert result.summary["ecg_seconds"] == pytest.approx(34.0)
    assert result.summary["duration"] == pytest.approx(40.0)


def test_jittered_times_do_not_make_a_gap(run: Any, tmp_path: Path) -> None:
    times = np.arange(7800) / 130 + np.random.default_rng(1).uniform(-0.003, 0.003, 7800)
    path = tmp_path / "jittered.csv"
    rows = zip(times, ecg_mv(60, 130, 0.8), strict=True)
    path.write_text("time [s],ecg [mV]\n" + "".join(f"{t:.5f},{mv:.4f}\n" for t, mv in rows))
    result = run(path)
    assert (result.status, result.of("gap")) == (0, [])
    assert result.summary["duration"] == pytest.approx(60, abs=0.05)
    assert result.summary["mean_rate"] == pytest.approx(75.0, abs=0.3)


def test_beats_are_found_at_their_true_times(run: Any, tmp_path: Path) -> None:
    beats = np.array([beat["t"] for beat in run(csv_file(tmp_path, ecg_mv(60, 250, 0.8), 250)).of("beat")])
    inside = beats[beats > 3.0]
    assert inside.size >= 70
    assert np.abs(inside / 0.8 - np.round(inside / 0.8)).max() * 0.8 <= 0.004


def test_the_drivers_decode_a_capture(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "strap.jsonl"
    microvolts = np.round(1000 * ecg_mv(60, 130, 0.75)).astype(np.int64)
    epoch_ns = 600_000_000_000_000_000
    with CaptureWriter(path, CaptureHeader("H10", START_US, DeviceInformation("Polar Electro Oy", "H10"))) as writer:
        writer.write_event(0.0, "connected")
        writer.write_payload(0.2, MODEL_NUMBER, b"H10")
        writer.write_payload(0.5, HEART_RATE, heart_rate(80, 512, 1024))
        for second in (*range(1, 21), *range(31, 61)):
            if second == 31:
                writer.write_event(22.0, "disconnected")
                writer.write_event(30.0, "connected")
            frame = microvolts[130 * (second - 1) : 130 * second]
            last_ns = epoch_ns + round((130 * second - 1) / 130 * 1e9)
            writer.write_payload(float(second), PMD_DATA, pmd_frame(frame, last_ns))
        writer.write_payload(60.5, HEART_RATE, b"\x10")
        writer.write_payload(60.6, "00002a19-0000-1000-8000-00805f9b34fb", b"\x5a")
    result = run(path)
    assert (result.status, result.errors) == (0, [])
    assert result.summary["sensor"] == "H10"
    (vital,) = result.of("vital")
    assert (vital["kind"], vital["value"], vital["unit"], vital["t"]) == ("heart_rate", 80.0, "/min", 0.5)
    assert [(line["ms"], line["t"]) for line in result.of("interval")] == [(500.0, -0.5), (1000.0, 0.5)]
    assert {(line["kind"], line["value"]) for line in result.of("status")} >= {("model", "H10"), ("battery", 90)}
    (undecoded,) = result.of("quarantined")
    assert (undecoded["characteristic"], undecoded["payload"], undecoded["t"]) == (HEART_RATE, "10", 60.5)
    assert result.summary["quarantined"] == 1
    (gap,) = (line for line in result.of("gap") if line["kind"] == "ecg")
    assert (gap["missing"], gap["reason"]) == (1300, "the link was lost")
    assert gap["end"] - gap["onset"] == pytest.approx(10.0, abs=0.02)
    assert result.summary["ecg_seconds"] == pytest.approx(50.0, abs=0.01)
    assert result.summary["mean_rate"] == pytest.approx(80.0, abs=0.3)
    assert not result.of("alert"), "a lost link is not a pause"


def test_a_truncated_last_line_gives_a_note(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "strap.jsonl"
    with CaptureWriter(path, CaptureHeader("H10", START_US)) as writer:
        writer.write_payload(1.0, HEART_RATE, heart_rate(80))
    path.write_text(path.read_text() + '{"t": 2.0, "char"')
    result = run(path)
    assert (result.status, result.errors, len(result.of("vital"))) == (0, [], 1)
    assert result.summary["notes"] == ["line 3, the last one, is truncated and ignored; the lines before it are complete"]


def test_damage_in_the_middle_keeps_the_lines_before_it(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "strap.jsonl"
    with CaptureWriter(path, CaptureHeader("H10", START_US)) as writer:
        writer.write_payload(1.0, HEART_RATE, heart_rate(80))
    path.write_text(path.read_text() + "garbage\n" + '{"t": 2.0, "event": "connected"}\n')
    result = run(path)
    assert result.status == 1
    assert result.errors == [f"pulsegate replay: {path}: line 3: not JSON in UTF-8; correct or remove the line"]
    assert len(result.of("vital")) == 1
    assert result.summary["complete"] is False
    assert result.summary["duration"] == 1.0


def test_an_unreadable_file_gives_an_error(tmp_path: Path) -> None:
    path = tmp_path / "loop.csv"
    path.symlink_to(path)
    with pytest.raises(SourceError, match=r"loop\.csv: cannot read the file: .*; check its permissions"):
        open_source(path, load_drivers())


def test_keeps_a_limited_number_of_undecoded_payloads_for_the_report(play: Any, tmp_path: Path) -> None:
    path = tmp_path / "strap.jsonl"
    with CaptureWriter(path, CaptureHeader("H10", START_US)) as writer:
        for index in range(150):
            writer.write_payload(float(index), HEART_RATE, b"\x10")
    result, lines = play(path)
    assert len(lines) == result.quarantined_count == 150
    assert all(isinstance(line, QuarantinedRecord) for line in lines)
    assert len(result.quarantined) == 100
    assert not any(isinstance(line, GapRecord) for line in lines)


def test_reads_a_capture_with_a_byte_order_mark(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "strap.jsonl"
    with CaptureWriter(path, CaptureHeader("H10", START_US)) as writer:
        writer.write_payload(1.0, HEART_RATE, heart_rate(80))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    result = run(path)
    assert (result.status, result.errors, len(result.of("vital"))) == (0, [], 1)


def test_replays_a_capture_that_spans_years(play: Any, tmp_path: Path) -> None:
    path = tmp_path / "strap.jsonl"
    with CaptureWriter(path, CaptureHeader("H10", START_US)) as writer:
        for t in (0.0, 999_999_999.0):
            writer.write_payload(t, PMD_DATA, pmd_frame(np.zeros(73, np.int64), 600_000_000_000_000_000 + round(t * 1e9)))
    result, _ = play(path)
    assert result.failure is None
    assert result.duration_s == pytest.approx(1e9, rel=1e-6)


def test_an_unsupported_file_gives_an_error_that_lists_the_supported_kinds(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(
        SourceError, match=r"picture\.png: neither a recording nor a capture; give a WFDB header .*csv.*capture"
    ):
        open_source(path, load_drivers())


def test_the_user_names_the_sensor_of_a_capture_that_does_not(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "unnamed.jsonl"
    payload = json.dumps({"t": 1, "char": HEART_RATE, "hex": heart_rate(60, 1024).hex()})
    path.write_text(f'{{"format": "pulsegate-capture", "version": 1, "started_us": {START_US}}}\n{payload}\n')
    assert run(path).errors == [f"pulsegate replay: {path}: does not name its sensor; name it with --as SENSOR"]
    replayed = run(path, "--as", "strap")
    assert replayed.status == 0
    assert replayed.summary["sensor"] == "strap"


def test_a_bluetooth_capture_without_discovery_is_replayed_with_the_map_that_the_error_names(run: Any, tmp_path: Path) -> None:
    session = heart_rate_session(4)
    path, gatt = tmp_path / "btsnoop_hci.log", tmp_path / "map.json"
    path.write_bytes(btsnoop(session.packets[:1] + session.packets[-4:]))
    (error,) = run(path).errors
    assert 'give --gatt MAP.json with {"0x0011": "UUID"}' in error
    gatt.write_text('{"0x0011": "2a37"}')
    replayed = run(path, "--gatt", gatt)
    assert [line["ms"] for line in replayed.of("interval")] == pytest.approx(
        [1000 * (1000 + n) / 1024 for n in range(4)], abs=1e-3
    )


def test_a_capture_without_payloads_says_so(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    CaptureWriter(path, CaptureHeader("strap", START_US)).close()
    assert run(path).summary["notes"] == ["the capture holds no payload of a sensor"]
