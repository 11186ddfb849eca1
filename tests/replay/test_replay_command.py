"""`pulsegate replay` on real recordings and on files that are not recordings."""

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

from captures import Recording, open_recording
from captures.annotations import read_annotations
from tests.cloud.synthetic import ecg_mv


def distance_to_nearest(times: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns for each of `times` the distance in s to the nearest of `others`; positive if that is later."""
    after = np.clip(np.searchsorted(others, times), 1, others.size - 1)
    distances = np.stack((others[after - 1] - times, others[after] - times))
    best: NDArray[np.float64] = np.take_along_axis(distances, np.abs(distances).argmin(axis=0)[None], axis=0)[0]
    return best


def beat_times(result: Any) -> NDArray[np.float64]:
    return np.array([beat["t"] for beat in result.of("beat")])


def test_finds_af_in_the_records_that_have_it_and_in_no_other(run: Any, data: Path) -> None:
    records = {name: data / "mitdb" / f"{name}.hea" for name in ("201", "203", "101", "112", "122")}
    result = run(*records.values())
    assert (result.status, result.errors) == (0, [])
    found = {Path(alert["file"]).stem for alert in result.of("alert") if alert["kind"] == "af"}
    assert found == {"201", "203"}
    assert [line["file"] for line in result.of("summary")] == [str(path) for path in records.values()]
    for alert in result.of("alert"):
        assert 0 <= alert["onset"] <= alert["end"] <= 1805.556
        assert alert["t"] == alert["onset"]
        assert alert["priority"] in {"high", "medium", "low"}
        assert alert["onset"] <= alert["raised"] <= 1805.556
    stages = [(alert["id"], alert["kind"], alert["priority"]) for alert in result.of("alert")]
    assert len(set(stages)) == len(stages)


def test_beats_match_the_annotations(run: Any, data: Path) -> None:
    result = run(data / "mitdb" / "101.hea")
    annotated = read_annotations(data / "mitdb" / "101.atr").beats() / 360.0
    detected = beat_times(result)
    assert np.mean(np.abs(distance_to_nearest(annotated, detected)) <= 0.15) >= 0.995
    assert np.mean(np.abs(distance_to_nearest(detected, annotated)) <= 0.15) >= 0.995
    assert abs(np.median(distance_to_nearest(annotated, detected))) <= 0.010
    assert {beat["label"] for beat in result.of("beat")} <= {"N", "S", "V", "F"}
    assert result.summary["beats"] == detected.size
    assert result.summary["duration"] == pytest.approx(650_000 / 360, abs=0.001)
    assert result.summary["ecg_seconds"] == pytest.approx(650_000 / 360, abs=0.001)


@pytest.mark.parametrize(
    ("seconds", "said"), [(8, "the recording is too short to say"), (20, "normal, by a model"), (70, None)]
)
def test_the_table_is_followed_by_the_verdict_on_a_short_recording(
    capsys: pytest.CaptureFixture[str], command: Any, tmp_path: Path, seconds: int, said: str | None
) -> None:
    path = tmp_path / "short.csv"
    mv = ecg_mv(np.arange(0.5, seconds, 0.8).tolist(), float(seconds))
    path.write_text("ecg[mV]\n" + "\n".join(f"{value:.3f}" for value in mv))
    assert command(path, "--rate", "130") == 0
    verdicts = re.findall("short.csv: rhythm: (.*)", capsys.readouterr().out)
    assert [line.strip() for line in verdicts] == ([said] if said else [])


@pytest.mark.parametrize("seconds", [8, 9, 14, 30, 45, 60])
def test_a_short_recording_gets_a_verdict(run: Any, data: Path, tmp_path: Path, seconds: int) -> None:
    """The first seconds of a person in sinus rhythm, and of one in atrial fibrillation."""
    for record, verdict in (("101", "normal"), ("203", "af")):
        recording = open_recording(data / "mitdb" / f"{record}.hea")
        assert isinstance(recording, Recording)
        mv = next(recording.read_chunks()).values[: seconds * 360]
        path = tmp_path / f"{record}.csv"
        path.write_text("ecg[mV]\n" + "\n".join(f"{value:.3f}" for value in mv))
        result = run(path, "--rate", "360")
        assert result.summary["verdict"] in ({"too_short"} if seconds < 9 else {verdict, "out_of_distribution"})
        assert all(finding["end"] <= seconds for finding in result.of("finding") if finding["kind"].startswith("rhythm"))


def test_intervals_agree_with_those_of_the_strap(run: Any, data: Path) -> None:
    path = data / "polar-h10" / "polar_h10.csv"
    result = run(path)
    assert (result.status, result.errors) == (0, [])
    detected, rr = beat_times(result), open_recording(path).rr_s
    ends = np.cumsum(rr)
    lag = min(
        np.arange(-3.0, 8.0, 0.01), key=lambda shift: float(np.median(np.abs(distance_to_nearest(ends + shift, detected))))
    )
    beats = ends + lag + distance_to_nearest(ends + lag, detected)
    typical = np.array([np.median(rr[max(0, i - 10) : i + 11]) for i in range(rr.size)])
    premature, late = rr < 0.8 * typical, rr > 1.3 * typical
    ectopic = premature | late | np.roll(premature, 1)
    difference = np.abs(np.diff(beats) - rr[1:])[~ectopic[1:]]
    assert difference.size > 300
    assert np.median(difference) <= 0.010


@pytest.mark.parametrize("name", ["A00178", "A00321"])
def test_replays_the_matlab_files_of_wfdb_records(run: Any, data: Path, name: str) -> None:
    by_header = run(data / "cinc2017-sample" / f"{name}.hea")
    by_signal = run(data / "cinc2017-sample" / f"{name}.mat")
    assert by_header.status == by_signal.status == 0
    assert by_header.summary["beats"] > 5
    assert [line["t"] for line in by_header.of("beat")] == [line["t"] for line in by_signal.of("beat")]


def test_output_is_reproducible(run: Any, data: Path) -> None:
    path = data / "cinc2017-sample" / "A00178.hea"
    assert run(path).lines == run(path).lines


def _invalid_file(folder: Path, name: str) -> Path:
    """Creates a file of that name that cannot be replayed."""
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
def test_an_invalid_file_gives_one_line_and_status_1(run: Any, tmp_path: Path, name: str) -> None:
    path = _invalid_file(tmp_path, name)
    result = run(path)
    assert result.status == 1
    assert result.lines == []
    (error,) = result.errors
    assert error.startswith("pulsegate replay: ")
    assert name.rpartition(".")[0] in error
    assert ";" in error, "an error says what is wrong and, after a semicolon, what to do"


def test_replays_the_other_files_after_an_invalid_one(run: Any, data: Path, tmp_path: Path) -> None:
    good = data / "cinc2017-sample" / "A00178.hea"
    result = run(_invalid_file(tmp_path, "alone.hea"), good, _invalid_file(tmp_path, "junk"))
    assert result.status == 1
    assert len(result.errors) == 2
    assert [line["file"] for line in result.of("summary")] == [str(good)]


def test_the_sensor_name_can_be_replaced(run: Any, data: Path) -> None:
    path = data / "cinc2017-sample" / "A00178.hea"
    assert run(path).summary["sensor"] == "A00178"
    assert run(path, "--as", "strap").summary["sensor"] == "strap"


def test_writes_beats_only_with_the_option(capsys: pytest.CaptureFixture[str], data: Path, command: Any) -> None:
    assert command(str(data / "cinc2017-sample" / "A00178.hea"), "--json") == 0
    assert '"type": "beat"' not in capsys.readouterr().out


def test_prints_a_table_without_json(capsys: pytest.CaptureFixture[str], data: Path, command: Any) -> None:
    assert command(str(data / "cinc2017-sample" / "A00178.hea")) == 0
    written = capsys.readouterr().out
    assert re.search(r"A00178\.hea +0:11 +17 +93 +0 +0 +0", written)


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan", "inf"])
def test_an_invalid_speed_is_bad_usage(capsys: pytest.CaptureFixture[str], command: Any, speed: str) -> None:
    with pytest.raises(SystemExit) as ended:
        command("record.hea", "--speed", speed)
    assert ended.value.code == 2
    assert f"'{speed}' is neither max nor a number above 0" in capsys.readouterr().err


def test_a_missing_report_folder_fails_before_the_replay(run: Any, data: Path, tmp_path: Path) -> None:
    result = run(data / "cinc2017-sample" / "A00178.hea", "--report", tmp_path / "nowhere" / "out.html")
    assert (result.status, result.lines) == (1, [])
    assert result.errors == [f"pulsegate replay: {tmp_path / 'nowhere'}: no such folder for the report; create it"]


def test_writes_no_report_when_no_file_was_replayed(run: Any, tmp_path: Path) -> None:
    result = run(tmp_path / "missing.csv", "--report", tmp_path / "out.html")
    assert result.status == 1
    assert result.errors[1:] == [
        "pulsegate replay: no file was replayed, so no report was written; correct the files named above"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["f\udcffe.hea", "Größe.hea"])
def test_handles_any_file_name(data: Path, tmp_path: Path, name: str) -> None:
    """With an ASCII output: a file name need not be valid Unicode, and the encoding of the output may lack a character."""
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
    assert name.replace("\udcff", r"\udcff") in report.read_text("utf-8")


def test_a_failed_write_keeps_the_older_report(run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    report = tmp_path / "out.html"
    report.write_text("the older one")
    monkeypatch.setattr(Path, "replace", full)
    result = run(data / "cinc2017-sample" / "A00178.hea", "--report", report, "--force")
    assert result.status == 1
    assert result.errors == [
        f"pulsegate replay: cannot write the report {report}: No space left on device; choose another destination"
    ]
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the older one"]


def test_a_speed_spreads_the_replay_over_time(data: Path, play: Any) -> None:
    waited: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    played, _ = play(data / "cinc2017-sample" / "A00178.hea", speed=10.0, now=lambda: now[0], sleep=sleep)
    assert sum(waited) == pytest.approx(played.duration_s / 10, abs=0.01)
    assert max(waited) == pytest.approx(0.1, abs=0.01)


def test_a_closed_output_pipe_gives_no_traceback(data: Path) -> None:
    command = [sys.executable, "-m", "gateway.cli", "replay", "--json", "--beats", str(data / "polar-h10" / "polar_h10.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize("name", ["\x1b[2Jodd", "plain"])
def test_names_in_files_cannot_control_the_terminal(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.dat").write_bytes(bytes(2 * 2 * 2500))
    header = "x 2 250 2500\n" + 2 * "x.dat 16 200/mV 16 0 0 0 0 ECG \x1b[2J\n"
    (tmp_path / f"{name}.hea").write_text(header)
    files = [tmp_path / f"{name}.hea", tmp_path / f"{name}.missing.csv"]
    done = subprocess.run([sys.executable, "-m", "gateway.cli", "replay", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert r"ECG \x1b[2J" in done.stdout
    assert "no such file" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_long_name_keeps_its_ends_in_the_table(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for suffix in (".hea", ".mat"):
        source = (data / "cinc2017-sample" / "A00178").with_suffix(suffix)
        (tmp_path / (f"begin{'-' * 200}end.hea" if suffix == ".hea" else source.name)).write_bytes(source.read_bytes())
    assert command(tmp_path / f"begin{'-' * 200}end.hea") == 0
    assert re.search(r"begin-{35}…-{33}end\.hea ", capsys.readouterr().out)
