"""`pulsegate evaluate` as a person types it: one JSON object or tables, odd records named, failures one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from captures import open_recording
from captures.annotations import read_annotations
from evaluation.command import beat_labeller, plain
from evaluation.detection import detect, evaluate_qrs
from evaluation.ladders import rungs
from evaluation.tables import tables
from gateway.cli import main
from models.inference.models import Models


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["evaluate", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def one_line(err: str) -> str:
    (line,) = err.strip().splitlines()
    assert line.startswith("pulsegate: ")
    return line


@pytest.fixture
def beginning(tmp_path: Path, data: Path) -> Path:
    """The first 330 s of a record: its header announces less than is stored."""
    header = (data / "mitdb" / "101.hea").read_text()
    (tmp_path / "101.hea").write_text(header.replace(" 650000", f" {330 * 360}", 1))
    for suffix in (".dat", ".atr"):
        (tmp_path / f"101{suffix}").symlink_to(data / "mitdb" / f"101{suffix}")
    return tmp_path


@pytest.fixture
def records(beginning: Path, data: Path) -> Path:
    """A good record, one cut in its signal, one without annotations, one that is nonsense."""
    for suffix in (".hea", ".atr"):
        (beginning / f"118{suffix}").symlink_to(data / "mitdb" / f"118{suffix}")
    (beginning / "118.dat").write_bytes((data / "mitdb" / "118.dat").read_bytes()[:999])
    for suffix in (".hea", ".dat"):
        (beginning / f"119{suffix}").symlink_to(data / "mitdb" / f"119{suffix}")
    (beginning / "bad.hea").write_bytes(b"\xff\xfe")
    return beginning


def test_qrs_prints_one_object_with_the_agreed_keys(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "qrs", "--data", records, "--json")
    assert status == 0
    assert len(out.splitlines()) == 1
    report = json.loads(out)
    for window in ("150ms", "50ms"):
        assert report[window].keys() >= {"se", "ppv", "f1"}
        assert report[window] == report["records"]["101"][window]
        assert report["average"][window]["se"] == report[window]["se"] > 90
    annotated = read_annotations(records / "101.atr").beats()
    counted = np.count_nonzero((annotated >= 300 * 360) & (annotated < 330 * 360))
    assert report["150ms"]["tp"] + report["150ms"]["fn"] == counted
    assert report["skipped"].keys() == {"118", "119", "bad"}
    assert "cut" in report["skipped"]["118"]


def test_ladders_are_in_the_object(beginning: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "qrs", "--data", beginning, "--json", "--drop")
    report = json.loads(out)
    assert status == 0
    assert list(report["drop"]) == ["1", "2", "5", "10", "20"]
    assert report["drop"]["20"]["with_lost_beats"]["50ms"]["f1"] < report["drop"]["20"]["50ms"]["f1"]
    assert abs(report["drop"]["5"]["f1_change"]["150ms"]) < 1


def test_noise_is_a_ladder_by_kind_and_ratio(beginning: Path, data: Path) -> None:
    every = rungs(data / "noise", drop=False, fs=False)
    report = evaluate_qrs(beginning, Progress(disable=True), [rung for rung in every if rung.path[1:2] in ((), ("mix",))])
    assert list(report["noise"]["mix"]) == ["24", "18", "12", "6", "0", "-6"]
    falling = [report["noise"]["mix"][snr_db]["50ms"]["f1"] for snr_db in ("24", "12", "0", "-6")]
    assert falling == sorted(falling, reverse=True)
    assert report["noise"]["mix"]["-6"]["f1_change"]["50ms"] == round(falling[-1] - report["50ms"]["f1"], 2)


def test_tables_are_for_people(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "qrs", "--data", records)
    assert status == 0
    assert "101" in out
    assert "left out" in out
    with pytest.raises(json.JSONDecodeError):
        json.loads(out)


def test_the_data_folder_works_too(beginning: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mitdb").symlink_to(beginning)
    status, out, _ = run(capsys, "qrs", "--data", tmp_path / "data", "--json")
    assert status == 0
    assert json.loads(out)["records"].keys() == {"101"}


@pytest.mark.parametrize("task", ["qrs", "beats", "rhythm", "rr-af", "pulse"])
def test_an_empty_folder_is_one_line_that_says_what_to_give(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, task, "--data", tmp_path)
    assert (status, out) == (1, "")
    assert one_line(err)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "qrs", "--data", tmp_path / "none")
    assert status == 1
    assert "no such folder" in one_line(err)


def test_nothing_but_odd_records_is_a_failure(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (records / "101.dat").unlink()
    status, out, err = run(capsys, "qrs", "--data", records)
    assert (status, out) == (1, "")
    assert "101.dat" in one_line(err)


def test_missing_float_models_say_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("evaluation.command.RUNS", tmp_path)
    status, _, err = run(capsys, "rhythm", "--data", tmp_path, "--precision", "fp32")
    assert status == 1
    assert "make train" in one_line(err)


@pytest.mark.parametrize("words", [(), ("qrs",), ("dance", "--data", "."), ("qrs", "--data", ".", "--precision", "int4")])
def test_bad_usage_is_exit_status_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(capsys, *words)
    assert ended.value.code == 2


def test_scoring_needs_no_scipy(records: Path) -> None:
    """Only ladders do."""
    program = "import sys; sys.modules['scipy'] = None; from gateway.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, "evaluate", "qrs", "--data", str(records), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "101" in json.loads(done.stdout)["records"]


@pytest.mark.parametrize("form", [("--json",), ()])
def test_output_that_cannot_be_written_is_one_line(beginning: Path, form: tuple[str, ...]) -> None:
    words = [sys.executable, "-m", "gateway.cli", "evaluate", "qrs", "--data", str(beginning), *form]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "pulsegate: the output cannot be written (No space left on device); make room or choose another place"
    assert (done.returncode, one_line(done.stderr)) == (1, said)


def test_labels_of_beats_do_not_depend_on_the_model_being_there(data: Path) -> None:
    mv = open_recording(data / "mitdb" / "101.hea").mv[: 360 * 30]
    times_s, labels = beat_labeller(Models())(mv, 360.0)
    assert times_s.tolist() == detect(mv, 360.0).tolist()
    assert set(labels) == {"N"}


def test_json_has_no_number_that_json_has_not() -> None:
    value: Any = {"a": np.float32(0.5), "b": [np.nan, float("inf")], 3: (np.int64(2), np.array([1.0])), "c": np.bool_(True)}
    assert plain(value) == {"a": 0.5, "b": [None, None], "3": [2, [1.0]], "c": True}


def test_ladders_become_lines_of_a_table() -> None:
    figures = {"f1_mean": 80.0, "f1": {"N": 90.0}}
    report = {"records": {}, **figures, "noise": {"BW": {"24": figures, "-6": figures}}, "fs": {"128": figures}}
    shown = {table.title: table.row_count for table in tables("rhythm", report)}
    assert shown == {"rhythm, over all records": 2, "noise": 2, "fs": 1}
