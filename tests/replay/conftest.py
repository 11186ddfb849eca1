"""Runs `pulsegate replay` in this process and reads what it wrote."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drivers.registry import load_drivers
from gateway.models import load_models
from gateway.replay.run import Player, add_arguments, empty_result, replay
from gateway.replay.sources import open_source
from reporting.result import Line, Replayed


@dataclass(frozen=True)
class Ran:
    """What one run of the command left behind."""

    status: int
    lines: list[dict[str, Any]]
    errors: list[str]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one type."""
        return [line for line in self.lines if line["type"] == kind]

    @property
    def summary(self) -> dict[str, Any]:
        """The only summary."""
        (line,) = self.of("summary")
        return line


@pytest.fixture
def command() -> Callable[..., int]:
    """`pulsegate replay` with these arguments; returns its exit status."""

    def command_(*arguments: str | Path) -> int:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return replay(parser.parse_args([str(argument) for argument in arguments]))

    return command_


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], command: Callable[..., int]) -> Callable[..., Ran]:
    """The same with `--json --beats`; returns what it wrote."""

    def run_(*arguments: str | Path) -> Ran:
        status = command("--json", "--beats", *arguments)
        written = capsys.readouterr()
        return Ran(status, [json.loads(line) for line in written.out.splitlines()], written.err.splitlines())

    return run_


@pytest.fixture
def play() -> Callable[..., tuple[Replayed, list[Line]]]:
    """One file through a player with these settings; returns its result and everything that became final."""

    def play_(path: Path, **settings: Any) -> tuple[Replayed, list[Line]]:
        registry = load_drivers()
        source = open_source(path, registry)
        result = empty_result(source)
        lines = list(Player(load_models(), registry, **settings).play(source, result))
        return result, lines

    return play_
