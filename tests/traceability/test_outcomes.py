"""A whole run fails if a test that a requirement names did not pass; a part of a run does not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.traceability.documents import Requirement
from tests.traceability.outcomes import unproven

ROOT: Final = Path(__file__).parents[2]
CONFTEST: Final = """
from tests.traceability.outcomes import register_outcomes

def pytest_configure(config):
    register_outcomes(config)
"""
CASES: Final = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_passes(n): ...

def test_skips():
    pytest.skip("no data")
"""


def requirement(name: str, *tests: str) -> Requirement:
    return Requirement(name, "It works.", "design", "met", (), tests)


@pytest.mark.parametrize(
    ("named", "outcomes", "what"),
    [
        ("a.py::test_x", {"a.py::test_x": {"passed"}}, None),
        ("a.py::test_x", {"a.py::test_x": {"passed", "skipped"}}, None),
        ("a.py::test_x", {"a.py::test_x": {"passed", "failed"}}, "failed"),
        ("a.py::test_x", {"a.py::test_x": {"skipped"}}, "was skipped"),
        ("a.py::test_x", {"a.py::test_xy": {"passed"}}, "did not run"),
        ("a.py", {"a.py::test_x": {"passed"}, "a.py::TestY::test_y": {"passed"}}, None),
        ("a.py", {"a.py::test_x": {"passed"}, "a.py::TestY::test_y": {"failed"}}, "failed"),
        ("a.py::TestY", {"a.py::test_x": {"failed"}, "a.py::TestY::test_y": {"passed"}}, None),
    ],
)
def test_something_passed_and_nothing_failed(named: str, outcomes: dict[str, set[str]], what: str | None) -> None:
    assert unproven([requirement("R-A-1", named)], outcomes) == ([("R-A-1", named, what)] if what else [])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of two test modules whose requirement names what passes and what is skipped."""
    for folder in ("docs", "cases"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\ntestpaths = ["cases"]\naddopts = "--import-mode=importlib"\n'
    )
    (tmp_path / "cases" / "conftest.py").write_text(CONFTEST)
    (tmp_path / "cases" / "test_a.py").write_text(CASES)
    (tmp_path / "cases" / "test_b.py").write_text(CASES)
    return tmp_path


def run_tests(project: Path, named: str, *options: str) -> subprocess.CompletedProcess[str]:
    (project / "docs" / "requirements.toml").write_text(
        f"[[requirement]]\nid = 'R-A-1'\ntext = 'It works.'\nsource = 'design'\ntests = ['{named}']\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "options", [(), ("-p", "xdist.plugin", "-n", "2", "--dist", "loadfile")], ids=["one process", "two workers"]
)
def test_a_whole_run_fails_where_a_named_test_was_skipped(options: tuple[str, ...], project: Path) -> None:
    run = run_tests(project, "cases/test_b.py::test_skips", *options)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "R-A-1: cases/test_b.py::test_skips was skipped" in run.stdout


@pytest.mark.parametrize(
    ("named", "options"),
    [
        ("cases/test_b.py::test_passes", ()),
        ("cases/test_b.py::test_skips", ("cases/test_a.py",)),
        ("cases/test_b.py::test_skips", ("-k", "test_a")),
    ],
    ids=["whole", "one file", "chosen by name"],
)
def test_a_whole_run_that_proves_all_and_a_part_of_a_run_succeed(named: str, options: tuple[str, ...], project: Path) -> None:
    run = run_tests(project, named, *options)
    assert run.returncode == pytest.ExitCode.OK, run.stdout + run.stderr
    assert "R-A-1" not in run.stdout


def test_a_whole_run_without_readable_requirements_does_not_start(project: Path) -> None:
    run = run_tests(project, "'")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "requirements.toml is not TOML" in run.stderr


def test_a_test_that_fails_names_its_requirement(project: Path) -> None:
    (project / "cases" / "test_c.py").write_text("def test_fails():\n    assert False\n")
    run = run_tests(project, "cases/test_c.py")
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "R-A-1: cases/test_c.py failed" in run.stdout
