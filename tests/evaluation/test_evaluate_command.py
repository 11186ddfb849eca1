"""`pulsegate evaluate` from the command line: one JSON object or tables, damaged records named, errors on one line."""

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
from evaluation.command import beat_labeller, to_json
from evaluation.detection import detect, evaluate_qrs
from evaluation.perturbations import list_perturbations
from evaluation.tables import build_tables
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
    """The first 330 s of a record: its header states fewer samples than the file holds."""
    header = (data / "mitdb" / "101.hea").read_text()
    (tmp_path / "101.hea").write_text(header.replace(" 650000", f" {330 * 360}", 1))
    for suffix in (".dat", ".atr"):
        (tmp_path / f"101{suffix}").symlink_to(data / "mitdb" / f"101{suffix}")
    return tmp_path


@pytest.fixture
def records(beginning: Path, data: Path) -> Path:
    """A good record, one with a truncated signal, one without annotations, and one with an invalid header."""
    for suffix in (".hea", ".atr"):
        (beginning / f"118{suffix}").symlink_to(data / "mitdb" / f"118{suffix}")
    (beginning / "118.dat").write_bytes((data / "mitdb" / "118.dat").read_bytes()[:999])
    for suffix in (".hea", ".dat"):
        (beginning / f"119{suffix}").symlink_to(data / "mitdb" / f"119{suffix}")
    (beginning / "bad.hea").write_bytes(b"\xff\xfe")
    return beginning


def test_qrs_prints_one_object_with_the_documented_keys(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "truncated" in report["skipped"]["118"]


def test_perturbations_are_in_the_json_report(beginning: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "qrs", "--data", beginning, "--json", "--drop")
    report = json.loads(out)
    assert status == 0
    assert list(report["drop"]) == ["1", "2", "5", "10", "20"]
    assert report["drop"]["20"]["with_lost_beats"]["50ms"]["f1"] < report["drop"]["20"]["50ms"]["f1"]
    assert abs(report["drop"]["5"]["f1_change"]["150ms"]) < 1


def test_noise_is_reported_by_kind_and_snr(beginning: Path, data: Path) -> None:
    every = list_perturbations(data / "noise", drop=False, fs=False)
    report = evaluate_qrs(beginning, Progress(disable=True), [step for step in every if step.path[1:2] in ((), ("mix",))])
    assert list(report["noise"]["mix"]) == ["24", "18", "12", "6", "0", "-6"]
    falling = [report["noise"]["mix"][snr_db]["50ms"]["f1"] for snr_db in ("24", "12", "0", "-6")]
    assert falling == sorted(falling, reverse=True)
    assert report["noise"]["mix"]["-6"]["f1_change"]["50ms"] == round(falling[-1] - report["50ms"]["f1"], 2)


def test_prints_tables_without_json(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "qrs", "--data", records)
    assert status == 0
    assert "101" in out
    assert "left out" in out
    with pytest.raises(json.JSONDecodeError):
        json.loads(out)


def test_accepts_the_folder_above_the_database(beginning: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mitdb").symlink_to(beginning)
    status, out, _ = run(capsys, "qrs", "--data", tmp_path / "data", "--json")
    assert status == 0
    assert json.loads(out)["records"].keys() == {"101"}


@pytest.mark.parametrize("task", ["qrs", "beats", "rhythm", "rr-af", "pulse"])
def test_an_empty_folder_gives_a_one_line_error(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, task, "--data", tmp_path)
    assert (status, out) == (1, "")
    assert one_line(err)


def test_a_missing_folder_gives_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "qrs", "--data", tmp_path / "none")
    assert status == 1
    assert "no such folder" in one_line(err)


def test_fails_when_every_record_is_damaged(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (records / "101.dat").unlink()
    status, out, err = run(capsys, "qrs", "--data", records)
    assert (status, out) == (1, "")
    assert "101.dat" in one_line(err)


def test_a_missing_float_model_names_the_command_that_makes_it(
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
    """Only perturbations need it."""
    program = "import sys; sys.modules['scipy'] = None; from gateway.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, "evaluate", "qrs", "--data", str(records), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "101" in json.loads(done.stdout)["records"]


@pytest.mark.parametrize("form", [("--json",), ()])
def test_an_output_error_gives_one_line(beginning: Path, form: tuple[str, ...]) -> None:
    words = [sys.executable, "-m", "gateway.cli", "evaluate", "qrs", "--data", str(beginning), *form]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    expected = "pulsegate: cannot write the output: No space left on device; free space or choose another destination"
    assert (done.returncode, one_line(done.stderr)) == (1, expected)


def test_every_beat_is_normal_without_the_beat_model(data: Path) -> None:
    mv = open_recording(data / "mitdb" / "101.hea").mv[: 360 * 30]
    times_s, labels = beat_labeller(Models())(mv, 360.0)
    assert times_s.tolist() == detect(mv, 360.0).tolist()
    assert set(labels) == {"N"}


def test_to_json_replaces_numbers_that_json_cannot_hold() -> None:
    value: Any = {"a": np.float32(0.5), "b": [np.nan, float("inf")], 3: (np.int64(2), np.array([1.0])), "c": np.bool_(True)}
    assert to_json(value) == {"a": 0.5, "b": [None, None], "3": [2, [1.0]], "c": True}


def test_each_perturbation_becomes_a_row_of_a_table() -> None:
    figures = {"f1_mean": 80.0, "f1": {"N": 90.0}}
    report = {"records": {}, **figures, "noise": {"BW": {"24": figures, "-6": figures}}, "fs": {"128": figures}}
    shown = {table.title: table.row_count for table in build_tables("rhythm", report)}
    assert shown == {"rhythm, over all records": 2, "noise": 2, "fs": 1}
