"""Runs `pulsegate replay` in this process and reads what it wrote."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.replay.run import add_arguments, replay


@dataclass(frozen=True)
class Ran:
    status: int
    lines: list[dict[str, Any]]
    errors: list[str]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == kind]

    @property
    def summary(self) -> dict[str, Any]:
        (line,) = self.of("summary")
        return line


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_(*arguments: str | Path) -> Ran:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        status = replay(parser.parse_args(["--json", "--beats", *map(str, arguments)]))
        written = capsys.readouterr()
        return Ran(status, [json.loads(line) for line in written.out.splitlines()], written.err.splitlines())

    return run_
