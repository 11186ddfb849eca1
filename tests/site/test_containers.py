"""The container files: who runs in the images, what is copied into them, and which commands they start."""

import json
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from cloud.cli import main as clinic_main
from gateway.cli import main as hub_main

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "Containerfile"


class Stage(NamedTuple):
    """One target, with what it takes from the stages before it."""

    name: str
    base: str
    lines: list[tuple[str, str]]

    def last(self, word: str) -> str:
        return [rest for name, rest in self.lines if name == word][-1]


def read_stages() -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in FILE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        word, rest = line.split(" ", 1)
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            inherited = list(stages[base].lines) if base in stages else []
            current = stages[name] = Stage(name, base, inherited)
        assert current is not None
        current.lines.append((word, rest))
    return stages


STAGES = read_stages()
TARGETS = ("ingest", "opener", "page", "enrolment", "hub")


def test_the_targets_are_those_of_the_services() -> None:
    assert STAGES.keys() == {"base", "clinic", *TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_runs_as_root(target: str) -> None:
    assert STAGES[target].last("USER") == "10001"
    words = [word for word, _ in STAGES[target].lines]
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in {"RUN", "COPY"})


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_exists(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = json.loads(STAGES[target].last("ENTRYPOINT")) + json.loads(STAGES[target].last("CMD"))
    if target == "enrolment":
        words += ["--host", "clinic.example", "--broker", "clinic.example:8883"]
    main = {"pulsegate": hub_main, "pulsegate-cloud": clinic_main}[Path(program).name]
    try:
        status = main([*words, "--no-such-option"])
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 2
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


def test_packages_are_installed_by_their_hashes_only() -> None:
    installs = {rest for stage in STAGES.values() for word, rest in stage.lines if word == "RUN" and "pip install" in rest}
    assert installs
    for install in installs:
        words = shlex.split(install)
        assert "--require-hashes" in words or "--no-deps" in words


def test_an_image_holds_the_packages_of_the_wheel_and_no_secret() -> None:
    ignored = (FILE.parent / "Containerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert next(line for line in ignored if not line.startswith("#")) == "*"
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["build-backend"]["module-name"]
    assert allowed == {"requirements", "pyproject.toml", "README.md", "LICENSE", *packages}
    tracked = subprocess.run(["git", "ls-files", "--", *allowed], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in tracked.splitlines() if Path(name).suffix in {".key", ".p12", ".db"} or ".env" in name] == []
