"""`python -m tests.traceability`: check that requirements, hazards, limits, pages and tests agree."""

import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Final

from config.limits import Limits
from tests.traceability.documents import DocumentError, read_hazards, read_requirements
from tests.traceability.rules import check_hazards, check_ids, check_limits, check_page, check_requirements
from tests.traceability.source_index import SourceIndex

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ("attacks.md", "compliance.md", "threat-model.md")


def check(root: Path) -> tuple[list[str], str]:
    """What is wrong in a checkout, and its counts in one line."""
    docs, index = root / "docs", SourceIndex(root)
    try:
        requirements, hazards = read_requirements(docs / "requirements.toml"), read_hazards(docs / "hazards.toml")
    except DocumentError as error:
        return [str(error)], ""
    by_id = {requirement.id: requirement for requirement in requirements}
    limits = {field.name: getattr(Limits(), field.name).requirement for field in fields(Limits)}
    problems = [
        *check_ids(requirements, hazards),
        *check_requirements(requirements, index),
        *check_hazards(hazards, by_id),
        *check_limits(limits, by_id),
        *(problem for page in PAGES for problem in check_page(page, (docs / page).read_text(), index, by_id, hazards)),
    ]
    counts = Counter(requirement.status for requirement in requirements)
    return (
        problems,
        f"{counts['met']} requirements met, {counts['planned']} planned, {counts['open']} open; {len(hazards)} hazards",
    )


def main() -> int:
    problems, counts = check(ROOT)
    if problems:
        sys.stderr.write("\n".join(problems) + "\n")
        return 1
    sys.stdout.write(f"{counts}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
