"""The requirements and hazards of this checkout."""

from pathlib import Path

from tests.traceability.__main__ import PAGES, ROOT, check


def test_requirements_hazards_limits_pages_and_tests_agree() -> None:
    problems, counts = check(ROOT)
    assert problems == []
    assert "requirements met" in counts


def test_a_missing_requirement_of_a_limit_fails_the_check(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for page in (*PAGES, "hazards.toml"):
        (docs / page).write_bytes((ROOT / "docs" / page).read_bytes())
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    text = (ROOT / "docs" / "requirements.toml").read_text()
    assert 'id = "R-RULE-5"' in text
    (docs / "requirements.toml").write_text(text.replace('id = "R-RULE-5"', 'id = "R-RULE-9005"'))
    problems, _ = check(tmp_path)
    assert "limit pause implements R-RULE-5, which is not in requirements.toml" in problems


def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "requirements.toml").write_text("requirement")
    (problem,), counts = check(tmp_path)
    assert problem.startswith("requirements.toml is not TOML")
    assert not counts
