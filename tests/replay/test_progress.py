"""The line that shows how far a replay has come: on a terminal only, and never among the output."""

import io
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from gateway.replay.progress import Progress, show_progress
from gateway.replay.sources import Source, Step, arrival_at
from tests.terminals import open_terminal, read_terminal


def source(name: str, seconds: int) -> Source:
    steps = (Step(arrival_at(0, float(second))) for second in range(1, seconds + 1))
    return Source(Path("folder") / name, "strap", 0, False, (), steps)


def test_names_the_file_and_how_much_of_it_is_replayed() -> None:
    shown: list[str] = []
    clock = count()
    progress = Progress(2, shown.append, lambda: 0.5 * next(clock))
    for name in ("a\x1b.hea", "b.hea"):
        assert len(list(progress.watch(source(name, 3600)).steps)) == 3600
    assert "\\x1b" in shown[0]
    assert shown[0].startswith(r"a\x1b.hea (1 of 2): 0:0")
    assert r"a\x1b.hea (1 of 2): 1:00:00 replayed" in shown
    assert shown[-1] == "b.hea (2 of 2): 1:00:00 replayed"


def test_a_short_replay_shows_nothing_and_a_long_one_a_few_lines_a_second() -> None:
    shown: list[str] = []
    clock = count()
    list(Progress(1, shown.append, lambda: 0.01 * next(clock)).watch(source("a.hea", 90)).steps)
    assert shown == []
    clock = count()
    list(Progress(1, shown.append, lambda: 0.01 * next(clock)).watch(source("a.hea", 1000)).steps)
    assert 30 < len(shown) <= 50


def test_without_a_terminal_the_steps_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    original = source("a.hea", 3)
    with show_progress(1, json_output=False) as progress:
        assert progress.watch(original) is original


def on_terminal(folder: Path, *arguments: str | Path, output: Path | None) -> str:
    """Runs a replay of 11 s of ECG at eight times its speed, with stderr on a terminal, and stdout too if it is not a file.

    Returns what is written to the terminal.
    """
    command = [sys.executable, "-m", "gateway.cli", "replay", "--speed", "8", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    file = None if output is None else output.open("wb")
    with (
        open_terminal(folder) as (ours, theirs),
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file or theirs, stderr=theirs, env=environment) as process,
    ):
        os.close(theirs)
        written = read_terminal(ours)
        os.close(ours)
    if file:
        file.close()
    assert process.returncode == 0
    return written.decode()


def test_a_terminal_shows_it_and_the_output_does_not_contain_it(data: Path, tmp_path: Path) -> None:
    recording, output = data / "cinc2017-sample" / "A00178.hea", tmp_path / "out.jsonl"
    assert "A00178.hea: 0:" in on_terminal(tmp_path, recording, "--json", output=output)
    lines = output.read_text().splitlines()
    assert all(line.startswith("{") for line in lines)
    assert '"type": "summary"' in lines[-1]


def test_json_lines_on_the_same_terminal_are_not_disturbed(data: Path, tmp_path: Path) -> None:
    written = on_terminal(tmp_path, data / "cinc2017-sample" / "A00178.hea", "--json", output=None)
    assert all(line.startswith("{") for line in written.splitlines())


def test_the_table_follows_on_the_same_terminal(data: Path, tmp_path: Path) -> None:
    written = on_terminal(tmp_path, data / "cinc2017-sample" / "A00178.hea", output=None)
    assert "A00178.hea: 0:" in written
    assert "Replayed" in written[written.rindex("replayed") :]
