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
from gateway.recording_arguments import add_replay_arguments
from gateway.replay.run import Player, empty_result, replay
from gateway.replay.sources import open_source
from reporting.result import OutputRecord, ReplayResult


@dataclass(frozen=True)
class CommandResult:
    """Exit status and output of one run of the command."""

    status: int
    lines: list[dict[str, Any]]
    errors: list[str]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Returns the lines of one type."""
        return [line for line in self.lines if line["type"] == kind]

    @property
    def summary(self) -> dict[str, Any]:
        """The summary, of which there is exactly one."""
        (line,) = self.of("summary")
        return line


@pytest.fixture
def command() -> Callable[..., int]:
    """Runs `pulsegate replay` with these arguments; returns its exit status."""

    def command_(*arguments: str | Path) -> int:
        parser = argparse.ArgumentParser()
        add_replay_arguments(parser)
        return replay(parser.parse_args([str(argument) for argument in arguments]))

    return command_


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], command: Callable[..., int]) -> Callable[..., CommandResult]:
    """Runs `pulsegate replay --json --beats`; returns its status and output."""

    def run_(*arguments: str | Path) -> CommandResult:
        status = command("--json", "--beats", *arguments)
        written = capsys.readouterr()
        return CommandResult(status, [json.loads(line) for line in written.out.splitlines()], written.err.splitlines())

    return run_


@pytest.fixture
def play() -> Callable[..., tuple[ReplayResult, list[OutputRecord]]]:
    """Plays one file with these settings of `Player`; returns its result and all output records."""

    def play_(path: Path, **settings: Any) -> tuple[ReplayResult, list[OutputRecord]]:
        registry = load_drivers()
        source = open_source(path, registry)
        result = empty_result(source)
        lines = list(Player(load_models(), registry, **settings).play(source, result))
        return result, lines

    return play_
