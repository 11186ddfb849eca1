"""Where `pulsegate replay` writes its report, and what it does not replace."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.terminals import open_terminal, read_terminal

COMMAND = [sys.executable, "-m", "gateway.cli", "replay"]


@pytest.fixture
def recording(data: Path) -> Path:
    return data / "cinc2017-sample" / "A00178.hea"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    report = tmp_path / "out.html"
    report.write_text("the older one")
    return report


def answer(text: str, folder: Path, *arguments: str | Path) -> tuple[int, str]:
    """Runs the command on a terminal and answers its question; returns its status and what it wrote to the terminal."""
    with (
        open_terminal(folder) as (ours, theirs),
        subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs) as process,
    ):
        os.close(theirs)
        written = b""
        while b"[y/N]" not in written:
            written += os.read(ours, 4096)
        os.write(ours, text.encode())
        written += read_terminal(ours)
        os.close(ours)
    return process.returncode, written.decode()


def test_an_existing_report_is_kept_without_a_terminal(run: Any, recording: Path, older: Path) -> None:
    result = run(recording, "--report", older)
    assert (result.status, result.lines) == (1, []), "it fails before the replay"
    assert result.errors == [
        f"pulsegate replay: {older}: exists already; replace it with --force, or choose another name for the report"
    ]
    assert older.read_text() == "the older one"


def test_force_replaces_a_report(run: Any, recording: Path, older: Path) -> None:
    assert run(recording, "--report", older, "--force").status == 0
    assert older.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(("text", "is_replaced"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_on_a_terminal_the_user_is_asked(recording: Path, older: Path, tmp_path: Path, text: str, is_replaced: bool) -> None:
    status, written = answer(text, tmp_path, recording, "--report", older)
    assert f"{older} exists already. Replace it? [y/N]" in written
    assert status == (0 if is_replaced else 1)
    assert (older.read_text() == "the older one") is not is_replaced


def test_a_link_to_a_report_is_an_existing_report(run: Any, recording: Path, older: Path) -> None:
    link = older.with_name("link.html")
    link.symlink_to(older)
    assert run(recording, "--report", link).status == 1
    assert run(recording, "--report", link, "--force").status == 0
    assert link.is_symlink()
    assert older.read_text().startswith("<!DOCTYPE html>")


def test_a_recording_is_never_replaced(run: Any, recording: Path, tmp_path: Path) -> None:
    header = tmp_path / "A00178.hea"
    header.write_text(recording.read_text())
    (tmp_path / "A00178.mat").write_bytes(recording.with_suffix(".mat").read_bytes())
    (tmp_path / "link").symlink_to(header)
    result = run(header, "--report", tmp_path / "link", "--force")
    assert result.status == 1
    assert "is one of the recordings; give another name" in result.errors[0]
    assert header.read_text() == recording.read_text()


def test_a_folder_is_not_a_report(run: Any, recording: Path, tmp_path: Path) -> None:
    result = run(recording, "--report", tmp_path, "--force")
    assert (result.status, result.lines) == (1, [])
    assert "is a folder; give the name of a file" in result.errors[0]


def test_a_device_is_written_to_without_a_question(recording: Path, tmp_path: Path) -> None:
    output = tmp_path / "all.txt"
    with output.open("wb") as file:
        done = subprocess.run([*COMMAND, recording, "--report", "/dev/stdout"], stdout=file, check=False)
    assert done.returncode == 0
    table, page = output.read_text().split("<!DOCTYPE html>")
    assert "A00178.hea" in table, "what was written before the report is kept"
    assert page.endswith("</html>\n")


def test_a_refused_file_leaves_the_name_of_the_report_free(run: Any, recording: Path, tmp_path: Path) -> None:
    report = tmp_path / "out.html"
    assert run(tmp_path / "missing.csv", "--report", report).status == 1
    assert not report.exists()
    assert run(recording, "--report", report).status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beats"], "--beats: the table has no room for single beats; add --json"),
        (["--force"], "--force: there is no report to replace; add --report OUT.html"),
        (["--unit", "kg"], "--unit kg: not a unit of voltage; give V, mV, uV, nV or counts per millivolt such as 200/mV"),
    ],
)
def test_options_that_have_no_effect_are_bad_usage(
    command: Any, recording: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert command(recording, *arguments) == 2
    written = capsys.readouterr()
    assert (written.out, written.err) == ("", f"pulsegate replay: {message}\n")
