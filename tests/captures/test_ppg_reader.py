"""The two formats of PPG recordings, and files that are unusual, truncated or not recordings."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from captures.ppg import find_ppg, read_ppg
from captures.recording import RecordingError

RR_MS = [800, 820, 790, 810] * 10


def camera(folder: Path, table: str | None = None, intervals: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RR.txt").write_text(" ".join(map(str, RR_MS)) if intervals is None else intervals)
    path = folder / "PPG.csv"
    path.write_text(table if table is not None else frames())
    return path


def frames(seconds: float = 30.0, step_ms: int = 33, red: str = "{pulse:.3f}", green: str = "0.0") -> str:
    rows = ["time,R,G,B"]
    for at in range(0, int(seconds * 1000), step_ms):
        pulse = 200 - 2 * np.sin(2 * np.pi * 1.25 * at / 1000)
        rows.append(f"{at},{red.format(pulse=pulse)},{green.format(pulse=pulse)},0.1")
    return "\n".join(rows) + "\n"


def monitor(path: Path, head: str = "Time [s], RESP, PLETH, II", seconds: int = 12) -> Path:
    rows = [head]
    rows += [
        f"{k / 125:g},0.3,{0.4 + 0.1 * np.sin(k / 20):.5f},{1.0 if k % 100 == 0 else 0.3:.5f}" for k in range(seconds * 125)
    ]
    path.write_bytes(gzip.compress("\n".join(rows).encode()) if path.suffix == ".gz" else "\n".join(rows).encode())
    return path


def test_reads_a_camera_recording(tmp_path: Path) -> None:
    found = read_ppg(camera(tmp_path / "subject_09"))
    assert (found.name, found.rate_hz, found.same_clock, found.notes) == ("subject_09", 50.0, False, ("column R",))
    assert found.ppg.size == pytest.approx(30 * 50, abs=3)
    assert np.allclose(np.diff(found.beats_s), np.array(RR_MS) / 1000)
    at = np.arange(found.ppg.size) / 50
    assert np.abs(found.ppg - (200 - 2 * np.sin(2 * np.pi * 1.25 * at))).max() < 0.05


def test_chooses_the_column_with_the_clearest_pulse(tmp_path: Path) -> None:
    path = camera(tmp_path / "s", frames(red="255.0", green="{pulse:.3f}"))
    assert read_ppg(path).notes == ("column G",)


def test_reads_a_monitor_recording(tmp_path: Path) -> None:
    found = read_ppg(monitor(tmp_path / "bidmc_07_Signals.csv.gz", seconds=60))
    assert (found.name, found.same_clock) == ("bidmc_07", True)
    assert found.rate_hz == pytest.approx(125.0)
    assert np.allclose(np.diff(found.beats_s[2:-2]), 0.8, atol=0.02)


def test_reads_recordings_of_bidmc_and_welltory(data: Path) -> None:
    bidmc = read_ppg(data / "bidmc01" / "bidmc_01_Signals.csv.gz")
    assert (bidmc.rate_hz, bidmc.ppg.size) == (125.0, 60_001)
    assert read_ppg(data / "welltory-ppg" / "subject_20" / "PPG.csv").notes == ("column G",)


def test_missing_frames_leave_a_gap(tmp_path: Path) -> None:
    rows = frames().splitlines()
    found = read_ppg(camera(tmp_path / "s", "\n".join([*rows[:300], *rows[400:]])))
    missing = np.flatnonzero(np.isnan(found.ppg)) / 50
    assert missing[0] == pytest.approx(299 * 0.033, abs=0.05)
    assert missing[-1] == pytest.approx(399 * 0.033, abs=0.05)


def test_cells_that_are_not_numbers_and_truncated_rows_are_missing_samples(tmp_path: Path) -> None:
    rows = frames().splitlines()
    rows[50], rows[60], rows[70] = "1617,,0,0", "1947,oops,0,0", "2277"
    found = read_ppg(camera(tmp_path / "s", "\n".join(rows) + "\n29900,20"))
    assert np.isfinite(found.ppg).mean() > 0.98


def test_rows_out_of_order_are_sorted_and_repeated_rows_are_left_out(tmp_path: Path) -> None:
    rows = frames().splitlines()
    straight = read_ppg(camera(tmp_path / "a", "\n".join(rows)))
    rows[100], rows[101] = rows[101], rows[100]
    sorted_ = read_ppg(camera(tmp_path / "b", "\n".join([*rows, rows[-1]])))
    assert np.array_equal(sorted_.ppg, straight.ppg, equal_nan=True)
    assert "rows left out because their time is missing or repeated: 1" in sorted_.notes


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3, 1e6])
def test_reads_times_in_s_ms_us_and_ns(tmp_path: Path, unit: float) -> None:
    rows = [row.split(",") for row in frames().splitlines()]
    table = "\n".join([",".join(rows[0]), *(f"{float(t) * unit!r},{','.join(rest)}" for t, *rest in rows[1:])])
    assert read_ppg(camera(tmp_path / "s", table)).ppg.size == pytest.approx(1500, abs=5)


@pytest.mark.parametrize(
    ("table", "intervals", "message"),
    [
        ("", None, "0 rows"),
        ("time,R,G,B\n", None, "1 rows"),
        ("a,b\n1,2\n3,4\n5,6\n", None, "no time column"),
        ("time\n1\n2\n3\n", None, "no column besides"),
        ("time,R\n0,1\n33,x\n66,\n", None, "s long"),
        ("time,R\n" + "5,1\n" * 50, None, "fewer than three"),
        (frames(seconds=3), None, "s long"),
        (frames(step_ms=900), None, "steps of"),
        (None, "", "RR.txt"),
        (None, "800 abc 900", "RR.txt"),
        (None, "800 -5 900", "RR.txt"),
        ("\x00\x01\x02" * 100, None, "PPG.csv"),
    ],
)
def test_an_invalid_recording_gives_an_error_with_its_name(
    tmp_path: Path, table: str | None, intervals: str | None, message: str
) -> None:
    with pytest.raises(RecordingError, match=message):
        read_ppg(camera(tmp_path / "s", table, intervals))


def test_the_error_names_a_missing_reference(tmp_path: Path) -> None:
    path = camera(tmp_path / "s")
    (tmp_path / "s" / "RR.txt").unlink()
    with pytest.raises(RecordingError, match=r"RR\.txt: no such file"):
        read_ppg(path)


def test_damaged_gzip_and_a_missing_column_give_errors(tmp_path: Path) -> None:
    path = monitor(tmp_path / "x_Signals.csv.gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RecordingError, match="damaged"):
        read_ppg(path)
    with pytest.raises(RecordingError, match="no column PLETH"):
        read_ppg(monitor(tmp_path / "y_Signals.csv", "Time [s], RESP, ABP, II"))


def test_finds_recordings_at_any_depth(tmp_path: Path) -> None:
    paths = [camera(tmp_path / "b" / "subject_02"), camera(tmp_path / "subject_01"), monitor(tmp_path / "z_Signals.csv.gz")]
    (tmp_path / "other.csv").write_text("time,R\n")
    assert sorted(find_ppg(tmp_path)) == sorted(paths)
    assert find_ppg(tmp_path / "nowhere") == []
