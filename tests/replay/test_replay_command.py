"""`pulsegate replay` on real recordings and on what is no recording."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from captures import open_recording
from captures.annotations import read_annotations


def nearest(times: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each of `times` the distance to the nearest of `others`, in s; positive where it comes later."""
    after = np.clip(np.searchsorted(others, times), 1, others.size - 1)
    distances = np.stack((others[after - 1] - times, others[after] - times))
    best: NDArray[np.float64] = np.take_along_axis(distances, np.abs(distances).argmin(axis=0)[None], axis=0)[0]
    return best


def beat_times(ran: Any) -> NDArray[np.float64]:
    return np.array([beat["t"] for beat in ran.of("beat")])


def test_af_is_found_where_it_is_and_nowhere_else(run: Any, data: Path) -> None:
    records = {name: data / "mitdb" / f"{name}.hea" for name in ("201", "203", "101", "112", "122")}
    ran = run(*records.values())
    assert (ran.status, ran.errors) == (0, [])
    found = {Path(alert["file"]).stem for alert in ran.of("alert") if alert["kind"] == "af"}
    assert found == {"201", "203"}
    assert [line["file"] for line in ran.of("summary")] == [str(path) for path in records.values()]
    for alert in ran.of("alert"):
        assert 0 <= alert["onset"] <= alert["end"] <= 1805.556
        assert alert["t"] == alert["onset"]
        assert alert["priority"] in {"high", "medium", "low"}
    identities = [alert["id"] for alert in ran.of("alert")]
    assert len(set(identities)) == len(identities)


def test_beats_are_the_annotated_ones(run: Any, data: Path) -> None:
    ran = run(data / "mitdb" / "101.hea")
    annotated = read_annotations(data / "mitdb" / "101.atr").beats() / 360.0
    detected = beat_times(ran)
    assert np.mean(np.abs(nearest(annotated, detected)) <= 0.15) >= 0.995
    assert np.mean(np.abs(nearest(detected, annotated)) <= 0.15) >= 0.995
    assert abs(np.median(nearest(annotated, detected))) <= 0.010
    assert {beat["label"] for beat in ran.of("beat")} <= {"N", "S", "V", "F"}
    assert ran.summary["beats"] == detected.size
    assert ran.summary["duration"] == pytest.approx(650_000 / 360, abs=0.001)
    assert ran.summary["ecg_seconds"] == pytest.approx(650_000 / 360, abs=0.001)


def test_intervals_agree_with_the_straps_own(run: Any, data: Path) -> None:
    path = data / "polar-h10" / "polar_h10.csv"
    ran = run(path)
    assert (ran.status, ran.errors) == (0, [])
    detected, rr = beat_times(ran), open_recording(path).rr_s
    ends = np.cumsum(rr)
    lag = min(np.arange(-3.0, 8.0, 0.01), key=lambda shift: float(np.median(np.abs(nearest(ends + shift, detected)))))
    beats = ends + lag + nearest(ends + lag, detected)
    typical = np.array([np.median(rr[max(0, i - 10) : i + 11]) for i in range(rr.size)])
    premature, late = rr < 0.8 * typical, rr > 1.3 * typical
    ectopic = premature | late | np.roll(premature, 1)
    difference = np.abs(np.diff(beats) - rr[1:])[~ectopic[1:]]
    assert difference.size > 300
    assert np.median(difference) <= 0.010


@pytest.mark.parametrize("name", ["A00178", "A00321"])
def test_matlab_files_of_wfdb_records_are_replayed(run: Any, data: Path, name: str) -> None:
    by_header = run(data / "cinc2017-sample" / f"{name}.hea")
    by_signal = run(data / "cinc2017-sample" / f"{name}.mat")
    assert by_header.status == by_signal.status == 0
    assert by_header.summary["beats"] > 5
    assert [line["t"] for line in by_header.of("beat")] == [line["t"] for line in by_signal.of("beat")]


def test_the_same_file_gives_the_same_lines(run: Any, data: Path) -> None:
    path = data / "cinc2017-sample" / "A00178.hea"
    assert run(path).lines == run(path).lines


def _bad(folder: Path, name: str) -> Path:
    """A file of that name that cannot be replayed."""
    path = folder / name
    match name:
        case "alone.hea":
            path.write_text("alone 1 360 1000\nalone.dat 212 200 11 1024 0 0 0 MLII\n")
        case "columns.csv":
            path.write_text("time,temperature\n0,36.6\n1,36.7\n2,36.8\n")
        case "empty.csv" | "empty.hea" | "empty.jsonl":
            path.touch()
        case "folder":
            path.mkdir()
        case "junk" | "junk.csv" | "junk.hea":
            path.write_bytes(bytes(range(128, 256)) * 40)
        case "quiet.csv":
            path.write_text("time [s],ecg [mV]\n" + "".join(f"{index / 100},\n" for index in range(300)))
        case "slow.csv":
            path.write_text("time [s],ecg [mV]\n" + "".join(f"{index / 60},{index % 7}\n" for index in range(300)))
        case "other.jsonl":
            path.write_text('{"log": {"version": "1.2"}}\n')
        case _:
            pass
    return path


@pytest.mark.parametrize(
    "name",
    [
        "alone.hea",
        "columns.csv",
        "empty.csv",
        "empty.hea",
        "empty.jsonl",
        "folder",
        "junk",
        "junk.csv",
        "junk.hea",
        "missing.csv",
        "missing.hea",
        "other.jsonl",
        "quiet.csv",
        "slow.csv",
    ],
)
def test_what_is_no_recording_is_one_line_and_status_1(run: Any, tmp_path: Path, name: str) -> None:
    path = _bad(tmp_path, name)
    ran = run(path)
    assert ran.status == 1
    assert ran.lines == []
    (error,) = ran.errors
    assert error.startswith("pulsegate replay: ")
    assert name.rpartition(".")[0] in error
    assert ";" in error, "an error says what is wrong; what to do"


def test_the_other_files_go_on(run: Any, data: Path, tmp_path: Path) -> None:
    good = data / "cinc2017-sample" / "A00178.hea"
    ran = run(_bad(tmp_path, "alone.hea"), good, _bad(tmp_path, "junk"))
    assert ran.status == 1
    assert len(ran.errors) == 2
    assert [line["file"] for line in ran.of("summary")] == [str(good)]


def test_a_file_plays_as_another_sensor(run: Any, data: Path) -> None:
    path = data / "cinc2017-sample" / "A00178.hea"
    assert run(path).summary["sensor"] == "A00178"
    assert run(path, "--as", "strap").summary["sensor"] == "strap"


def test_only_asked_beats_are_written(capsys: pytest.CaptureFixture[str], data: Path, command: Any) -> None:
    assert command(str(data / "cinc2017-sample" / "A00178.hea"), "--json") == 0
    assert '"type": "beat"' not in capsys.readouterr().out


def test_people_get_a_table(capsys: pytest.CaptureFixture[str], data: Path, command: Any) -> None:
    assert command(str(data / "cinc2017-sample" / "A00178.hea")) == 0
    written = capsys.readouterr().out
    assert re.search(r"A00178\.hea +0:11 +17 +93 +0 +0 +0", written)


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan", "inf"])
def test_a_speed_that_cannot_be_is_bad_usage(capsys: pytest.CaptureFixture[str], command: Any, speed: str) -> None:
    with pytest.raises(SystemExit) as ended:
        command("record.hea", "--speed", speed)
    assert ended.value.code == 2
    assert f"'{speed}' is neither max nor a number above 0" in capsys.readouterr().err


def test_a_report_with_no_place_is_told_before_anything_is_replayed(run: Any, data: Path, tmp_path: Path) -> None:
    ran = run(data / "cinc2017-sample" / "A00178.hea", "--report", tmp_path / "nowhere" / "out.html")
    assert (ran.status, ran.lines) == (1, [])
    assert ran.errors == [f"pulsegate replay: {tmp_path / 'nowhere'}: no such folder for the report; create it"]


def test_no_report_is_written_about_nothing(run: Any, tmp_path: Path) -> None:
    ran = run(tmp_path / "missing.csv", "--report", tmp_path / "out.html")
    assert ran.status == 1
    assert ran.errors[1:] == ["pulsegate replay: no file was replayed, so no report is written; correct the files named above"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["f\udcffe.hea", "Größe.hea"])
def test_any_file_name_can_be_told(data: Path, tmp_path: Path, name: str) -> None:
    """By a process with an ASCII output: names of files need not be text, and an output need not know every letter."""
    for suffix in (".hea", ".mat"):
        source = (data / "cinc2017-sample" / "A00178").with_suffix(suffix)
        (tmp_path / (name if suffix == ".hea" else source.name)).write_bytes(source.read_bytes())
    report = tmp_path / "out.html"
    for arguments in (["--json"], ["--report", str(report)]):
        command = [sys.executable, "-m", "gateway.cli", "replay", str(tmp_path / name), *arguments]
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        if "--json" in arguments:
            assert json.loads(done.stdout.splitlines()[-1])["file"] == str(tmp_path / name)
    assert name.replace("\udcff", "?") in report.read_text("utf-8")


def test_a_report_that_cannot_be_written_costs_no_older_one(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    report = tmp_path / "out.html"
    report.write_text("the older one")
    monkeypatch.setattr(Path, "replace", full)
    ran = run(data / "cinc2017-sample" / "A00178.hea", "--report", report)
    assert ran.status == 1
    assert ran.errors == [
        f"pulsegate replay: {report}: the report cannot be written (No space left on device); choose another place"
    ]
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the older one"]


def test_a_speed_spreads_the_steps_over_time(data: Path, play: Any) -> None:
    waited: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    result, _ = play(data / "cinc2017-sample" / "A00178.hea", speed=10.0, now=lambda: now[0], sleep=sleep)
    assert sum(waited) == pytest.approx(result.duration_s / 10, abs=0.01)
    assert max(waited) == pytest.approx(0.1, abs=0.01)


def test_a_reader_that_goes_away_is_no_traceback(data: Path) -> None:
    command = [sys.executable, "-m", "gateway.cli", "replay", "--json", "--beats", str(data / "polar-h10" / "polar_h10.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
