"""Each way in which requirements, hazards, pages and tests can disagree is found."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.traceability.documents import DocumentError, Hazard, Measure, Requirement, read_hazards, read_requirements
from tests.traceability.rules import check_hazards, check_ids, check_limits, check_page, check_requirements
from tests.traceability.source_index import SourceIndex

TESTS: Final = """
import pytest

def test_runs(): ...
async def test_waits(): ...
@pytest.fixture
def tested(): ...
def helper(): ...

@pytest.mark.skip(reason="slow")
def test_skipped(): ...
@pytest.mark.skipif(True, reason="never")
def test_sometimes(): ...
@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.xfail)])
def test_half_expected_to_fail(n): ...

class TestGroup:
    def test_inside(self): ...
    class TestDeeper:
        def test_inside(self): ...

@pytest.mark.xfail
class TestBroken:
    def test_inside(self): ...

class TestMarked:
    pytestmark = pytest.mark.skip
    def test_inside(self): ...

TestMachine = make_machine()
"""
MARKED_MODULE: Final = "import pytest\npytestmark = [pytest.mark.skip]\n\ndef test_a(): ...\n"
GOOD: Final = Requirement("R-A-1", "It works.", "design", "met", ("H-1",), ("tests/a/test_one.py::test_runs",))
OPEN: Final = Requirement("R-A-2", "It will work.", "design", "open", (), ())
PLANNED: Final = Requirement("R-A-3", "It will soon work.", "design", "planned", (), ())
HAZARD: Final = Hazard("H-1", "h", "s", "s", "h", 4, 3, 4, 2, "Acceptable.", (Measure("design", "m", ("R-A-1",)),))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SourceIndex:
    root = tmp_path_factory.mktemp("checkout")
    for path, text in {"a/test_one.py": TESTS, "a/test_two.py": "", "b/test_two.py": MARKED_MODULE}.items():
        (root / "tests" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "tests" / path).write_text(text)
    return SourceIndex(root)


def by_id(*requirements: Requirement) -> Mapping[str, Requirement]:
    return {requirement.id: requirement for requirement in requirements}


@pytest.mark.parametrize(
    "node_id",
    [
        "tests/a/test_one.py::test_runs",
        "tests/a/test_one.py::test_waits",
        "tests/a/test_one.py::TestGroup",
        "tests/a/test_one.py::TestGroup::test_inside",
        "tests/a/test_one.py::TestGroup::TestDeeper::test_inside",
        "tests/a/test_one.py::TestMachine",
    ],
)
def test_a_requirement_with_a_test_that_runs_is_right(node_id: str, index: SourceIndex) -> None:
    assert not list(check_requirements([replace(GOOD, tests=(node_id,))], index))


@pytest.mark.parametrize(
    ("node_id", "problem"),
    [
        ("tests/a/test_one.py::test_gone", "there is no test"),
        ("tests/a/test_one.py::test_run", "there is no test"),
        ("tests/a/test_one.py::tested", "there is no test"),
        ("tests/a/test_one.py::helper", "there is no test"),
        ("tests/a/test_one.py::test_inside", "there is no test"),
        ("tests/a/test_three.py", "there is no test"),
        ("tests/a", "there is no test"),
        ("tests/a/test_two.py", "there is no test"),
        ("tests/a/test_one.py::test_skipped", "marked skip"),
        ("tests/a/test_one.py::test_sometimes", "marked skipif"),
        ("tests/a/test_one.py::test_half_expected_to_fail", "marked xfail"),
        ("tests/a/test_one.py::TestBroken::test_inside", "marked xfail"),
        ("tests/a/test_one.py::TestMarked", "marked skip"),
        ("tests/b/test_two.py::test_a", "marked skip"),
        ("tests/a/test_one.py", "marked skip"),
    ],
)
def test_a_test_that_does_not_exist_or_may_not_pass_is_found(node_id: str, problem: str, index: SourceIndex) -> None:
    assert problem in next(check_requirements([replace(GOOD, tests=(node_id,))], index))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tests": ()}, "names no test"),
        ({"status": "open"}, "is open but names tests"),
        ({"status": "planned"}, "is planned but names tests"),
        ({"status": "done"}, "its status is done"),
        ({"id": "R1"}, "is like R-SEAL-1"),
    ],
)
def test_a_requirement_that_says_too_little_or_too_much_is_found(
    changes: dict[str, Any], problem: str, index: SourceIndex
) -> None:
    assert [problem in found for found in check_requirements([replace(GOOD, **changes)], index)] == [True]


def test_a_test_that_moved_is_said_with_its_new_place(index: SourceIndex) -> None:
    moved = replace(GOOD, tests=("tests/a/test_old.py::TestGroup::test_inside",))
    assert list(check_requirements([moved], index)) == [
        "R-A-1: there is no test tests/a/test_old.py::TestGroup::test_inside;"
        " did it move to tests/a/test_one.py::TestGroup::test_inside?"
    ]


def test_an_id_that_is_used_twice_is_found() -> None:
    assert list(check_ids([GOOD, OPEN], [HAZARD])) == []
    assert list(check_ids([GOOD, OPEN, GOOD], [HAZARD])) == ["R-A-1 is used 2 times"]
    assert list(check_ids([GOOD], [HAZARD, HAZARD])) == ["H-1 is used 2 times"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"measure": (Measure("design", "m", ("R-A-1", "R-A-9")),)}, "there is no requirement R-A-9"),
        ({"measure": (Measure("design", "m", ("R-A-1", "R-A-2")),)}, "R-A-2 does not name it"),
        ({"measure": (Measure("hope", "m", ("R-A-1",)),)}, "a measure is hope"),
        ({"measure": (Measure("design", "m", ("R-A-1",)), Measure("design", "n", ()))}, "names no requirement"),
        ({"residual_probability": 4}, "higher than the risk before"),
        ({"residual_severity": 5}, "higher than the risk before"),
        ({"severity": 6}, "are 1 to 5"),
        ({"residual_probability": 0}, "are 1 to 5"),
        ({"id": "H1"}, "the id of a hazard"),
        ({"residual": "Not acceptable."}, "4 x 2 is acceptable"),
        ({"residual_probability": 3}, "4 x 3 is not acceptable"),
    ],
)
def test_a_hazard_without_a_requirement_or_with_wrong_levels_is_found(changes: dict[str, Any], problem: str) -> None:
    found = list(check_hazards([replace(HAZARD, **changes)], by_id(GOOD, OPEN)))
    assert any(problem in each for each in found), found


def test_only_a_requirement_that_is_met_lowers_a_risk() -> None:
    assert not list(check_hazards([HAZARD], by_id(GOOD)))
    unmet = replace(GOOD, status="open", tests=())
    assert "no requirement of its measures is met" in next(check_hazards([HAZARD], by_id(unmet)))
    as_before = replace(HAZARD, residual_probability=3, residual="Not acceptable.")
    assert not list(check_hazards([as_before], by_id(unmet)))


def test_a_requirement_that_names_a_hazard_is_named_by_it() -> None:
    stranger = replace(OPEN, hazards=("H-1", "H-7"))
    assert list(check_hazards([HAZARD], by_id(GOOD, stranger))) == [
        "R-A-2 names H-1, which does not name it",
        "R-A-2 names H-7, which does not name it",
    ]


def test_a_limit_whose_requirement_is_missing_is_found() -> None:
    assert not list(check_limits({"pause": "R-A-1"}, by_id(GOOD)))
    assert list(check_limits({"pause": "R-RULE-5"}, by_id(GOOD))) == [
        "limit pause implements R-RULE-5, which is not in requirements.toml"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "see R-A-1 and H-1 and `test_one::test_runs` and `a/test_two` and `test_one.py`",
            "there is no test tests/a/test_two.py",
        ),
        ("see R-A-9", "there is no R-A-9"),
        ("see H-2", "there is no H-2"),
        ("see `test_one::test_gone`", "there is no test tests/a/test_one.py::test_gone"),
        ("see `test_one::test_skipped`", "marked skip"),
        ("see `test_three::test_a`", "there is no module of test_three::test_a"),
        ("see `test_two::test_a`", "write its folder before it"),
    ],
)
def test_a_page_that_names_what_does_not_exist_is_found(text: str, problem: str, index: SourceIndex) -> None:
    assert problem in next(check_page("page.md", text, index, by_id(GOOD), [HAZARD]))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| a | met | R-A-1 |", None),
        ("| a | met | `test_one::test_runs` |", None),
        ("| a | partly | R-A-1 R-A-2 |", None),
        ("| a | planned | R-A-3 |", None),
        ("| a | open | R-A-2 |", None),
        ("| a | not applicable | no phone app |", None),
        ("| a | met | |", "names no test"),
        ("| a | met | R-A-1 R-A-2 |", "that is not met"),
        ("| a | partly | R-A-2 |", "that is met"),
        ("| a | planned | R-A-1 |", "that is planned"),
        ("| a | open | R-A-3 |", "that is planned"),
        ("| a | done | R-A-1 |", "the state is 'done'"),
        ("| a |", "the state is ''"),
    ],
)
def test_a_state_that_is_not_that_of_the_requirements_is_found(row: str, problem: str | None, index: SourceIndex) -> None:
    page = f"| what | state | requirement |\n|---|:-:|---|\n{row}\n\n| another table |\n|---|\n| without a state |\n"
    found = list(check_page("page.md", page, index, by_id(GOOD, OPEN, PLANNED), [HAZARD]))
    assert not found if problem is None else len(found) == 1 and problem in found[0], found


REQUIREMENT_TOML: Final = "[[requirement]]\nid = 'R-A-1'\ntext = 'It works.'\nsource = 'design'\n"


def test_status_hazards_and_tests_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "requirements.toml").write_text(REQUIREMENT_TOML)
    assert read_requirements(tmp_path / "requirements.toml") == (replace(GOOD, hazards=(), tests=()),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("requirement = 1", "has no [[requirement]]"),
        ("nothing", "is not TOML"),
        (REQUIREMENT_TOML.replace("source", "sauce"), "source is missing"),
        (REQUIREMENT_TOML + "test = []", "test is unknown"),
        (REQUIREMENT_TOML + "tests = 'tests/a.py'", "tests is empty or of another type"),
        (REQUIREMENT_TOML.replace("It works.", ""), "text is empty"),
    ],
)
def test_a_requirement_that_is_written_differently_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.toml").write_text(text)
    with pytest.raises(DocumentError) as caught:
        read_requirements(tmp_path / "requirements.toml")
    assert problem in str(caught.value)


def test_a_measure_that_is_written_differently_is_refused(tmp_path: Path) -> None:
    levels = "severity = 4\nprobability = 3\nresidual_severity = 4\nresidual_probability = 2\n"
    texts = "".join(f"{name} = 'x'\n" for name in ("hazard", "sequence", "situation", "harm", "residual"))
    measure = "[[hazard.measure]]\nkind = 'design'\ntext = 'm'\n"
    (tmp_path / "hazards.toml").write_text(f"[[hazard]]\nid = 'H-1'\n{levels}{texts}{measure}requirements = ['R-A-1']\n")
    assert read_hazards(tmp_path / "hazards.toml")[0].measure == HAZARD.measure
    (tmp_path / "hazards.toml").write_text(f"[[hazard]]\nid = 'H-1'\n{levels}{texts}{measure}")
    with pytest.raises(DocumentError, match=r"hazards\.toml, m: requirements is missing"):
        read_hazards(tmp_path / "hazards.toml")
