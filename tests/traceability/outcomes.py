"""Fail a whole run of the tests if a test that a requirement names did not pass.

With pytest-xdist the reports of all workers come to the controller, so only the controller takes part.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import pytest

from tests.traceability.documents import DocumentError, Requirement, read_requirements

_SELECTIONS: Final = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "maxfail", "stepwise", "collectonly")
"""Options of pytest by which a run is not that of all tests."""


def register_outcomes(config: pytest.Config) -> None:
    """Watch this run, unless it is a part of one: a worker's, or one of chosen tests.

    Raises:
        pytest.UsageError: the requirements cannot be read.
    """
    is_worker = hasattr(config, "workerinput")
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if is_whole and not is_worker and not any(config.getoption(name, None) for name in _SELECTIONS):
        try:
            requirements = read_requirements(config.rootpath / "docs" / "requirements.toml")
        except (OSError, DocumentError) as error:
            raise pytest.UsageError(str(error)) from None
        config.pluginmanager.register(Outcomes(requirements))


def unproven(requirements: Iterable[Requirement], outcomes: Mapping[str, set[str]]) -> list[tuple[str, str, str]]:
    """Requirement, test and what happened to it, for each test that did not pass.

    `outcomes` are those of each node id, all parameters and phases together. Of what a requirement names, be it a test, a
    class or a module, something must have passed and nothing may have failed.
    """
    seen: dict[str, set[str]] = defaultdict(set)
    for node_id, of_test in outcomes.items():
        parts = node_id.split("::")
        for length in range(1, len(parts) + 1):
            seen["::".join(parts[:length])] |= of_test
    named = [(requirement.id, test, seen[test]) for requirement in requirements for test in requirement.tests]
    return [(name, test, _describe(what)) for name, test, what in named if "failed" in what or "passed" not in what]


def _describe(outcomes: set[str]) -> str:
    if "failed" in outcomes:
        return "failed"
    return "was skipped" if outcomes else "did not run"


class Outcomes:
    """The outcomes of a run, as a plugin."""

    def __init__(self, requirements: Iterable[Requirement]) -> None:
        self._requirements = tuple(requirements)
        self._outcomes: dict[str, set[str]] = defaultdict(set)
        self._unproven: list[tuple[str, str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an outcome under the node id without parameters and without the group that pytest-xdist appends to it."""
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[re.split(r"[\[@]", report.nodeid)[0]].add(report.outcome)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        self._unproven = unproven(self._requirements, self._outcomes)
        if self._unproven:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._unproven:
            terminalreporter.section("requirements without a passing test", red=True)
        for requirement, test, what in self._unproven:
            terminalreporter.line(f"{requirement}: {test} {what}")
