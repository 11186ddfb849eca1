"""What must hold between requirements, hazards, limits, pages and tests. Each function returns its findings as sentences."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from tests.traceability.documents import LEVELS, MEASURE_KINDS, STATUSES, Hazard, Measure, Requirement
from tests.traceability.source_index import SourceIndex

NOT_ACCEPTABLE: Final = 10
"""The least product of severity and probability that is not acceptable; `docs/hazards.toml` states it."""

_REQUIREMENT_ID: Final = re.compile(r"R-[A-Z]+-\d+")
_HAZARD_ID: Final = re.compile(r"H-\d+")
_CITED_ID: Final = re.compile(r"\b(?:R-[A-Z]+|H)-\d+\b")
_CITED_TEST: Final = re.compile(r"`((?:\w+/)*test_\w+(?:::\w+)*)`")
_STATES: Final = ("met", "partly", "planned", "open", "not applicable")


def check_requirements(requirements: Iterable[Requirement], index: SourceIndex) -> Iterator[str]:
    """A met requirement names tests that exist and run; a planned or open one names none."""
    for requirement in requirements:
        if not _REQUIREMENT_ID.fullmatch(requirement.id):
            yield f"{requirement.id}: the id of a requirement is like R-SEAL-1"
        if requirement.status not in STATUSES:
            yield f"{requirement.id}: its status is {requirement.status}; use {', '.join(STATUSES)}"
        elif requirement.status != "met" and requirement.tests:
            yield f"{requirement.id} is {requirement.status} but names tests: delete its status, or the tests"
        elif requirement.status == "met" and not requirement.tests:
            yield f"{requirement.id} names no test: add one, or set status = 'open'"
        for node_id in requirement.tests:
            yield from (f"{requirement.id}: {problem}" for problem in check_test(node_id, index))


def check_test(node_id: str, index: SourceIndex) -> Iterator[str]:
    """The test exists, and no mark keeps it from running or passing."""
    tests = index.find(node_id)
    if not tests:
        moved = index.find_name(node_id)
        yield f"there is no test {node_id}" + (f"; did it move to {' or '.join(moved)}?" if moved else "")
    for test in tests:
        if test.marks:
            yield f"{node_id} is marked {', '.join(test.marks)} at {test.name}: a requirement needs a test that runs and passes"


def check_ids(requirements: Iterable[Requirement], hazards: Iterable[Hazard]) -> Iterator[str]:
    """No id is used twice."""
    ids = Counter([item.id for item in requirements] + [item.id for item in hazards])
    yield from (f"{name} is used {count} times" for name, count in ids.items() if count > 1)


def check_hazards(hazards: Iterable[Hazard], requirements: Mapping[str, Requirement]) -> Iterator[str]:
    """Hazards are complete, and hazards and requirements name each other."""
    for hazard in hazards:
        yield from (f"{hazard.id}: {problem}" for problem in _check_hazard(hazard, requirements))
    names = {hazard.id: {name for measure in hazard.measure for name in measure.requirements} for hazard in hazards}
    for requirement in requirements.values():
        for name in requirement.hazards:
            if requirement.id not in names.get(name, set()):
                yield f"{requirement.id} names {name}, which does not name it"


def _check_hazard(hazard: Hazard, requirements: Mapping[str, Requirement]) -> Iterator[str]:
    if not _HAZARD_ID.fullmatch(hazard.id):
        yield "the id of a hazard is like H-1"
    before = (hazard.severity, hazard.probability)
    residual = (hazard.residual_severity, hazard.residual_probability)
    if any(level not in LEVELS for level in before + residual):
        yield f"severity and probability are {LEVELS.start} to {LEVELS.stop - 1}"
    if residual[0] > before[0] or residual[1] > before[1]:
        yield "the residual risk is higher than the risk before"
    accepted = residual[0] * residual[1] < NOT_ACCEPTABLE
    if not hazard.residual.startswith("Acceptable" if accepted else "Not acceptable"):
        yield f"the residual risk {residual[0]} x {residual[1]} is {'' if accepted else 'not '}acceptable: say so first"
    names = [name for measure in hazard.measure for name in measure.requirements]
    if residual != before and not any(name in requirements and requirements[name].status == "met" for name in names):
        yield "the residual risk is lower than the risk before, but no requirement of its measures is met"
    for measure in hazard.measure:
        yield from _check_measure(measure, hazard.id, requirements)


def _check_measure(measure: Measure, hazard: str, requirements: Mapping[str, Requirement]) -> Iterator[str]:
    if measure.kind not in MEASURE_KINDS:
        yield f"a measure is {measure.kind}; use {', '.join(MEASURE_KINDS)}"
    if not measure.requirements:
        yield f"the measure {measure.text!r} names no requirement"
    for name in measure.requirements:
        if name not in requirements:
            yield f"there is no requirement {name}"
        elif hazard not in requirements[name].hazards:
            yield f"{name} does not name it"


def check_limits(limits: Mapping[str, str], requirements: Mapping[str, Requirement]) -> Iterator[str]:
    """Each clinical limit (name to requirement id) implements a requirement that exists."""
    for name, requirement in limits.items():
        if requirement not in requirements:
            yield f"limit {name} implements {requirement}, which is not in requirements.toml"


def check_page(
    name: str, text: str, index: SourceIndex, requirements: Mapping[str, Requirement], hazards: Iterable[Hazard]
) -> Iterator[str]:
    """A page names only ids and tests that exist, and the `state` in its tables is that of the requirements in the row."""
    known = {*requirements, *(hazard.id for hazard in hazards)}
    yield from (f"{name}: there is no {cited}" for cited in sorted(set(_CITED_ID.findall(text)) - known))
    for cited in sorted(set(_CITED_TEST.findall(text))):
        node_ids = index.node_ids(cited)
        if len(node_ids) > 1:
            yield f"{name}: {cited} may be {' or '.join(node_ids)}: write its folder before it"
        elif not node_ids:
            yield f"{name}: there is no module of {cited}"
        yield from (f"{name}: {problem}" for node_id in node_ids for problem in check_test(node_id, index))
    for row, state in _rows_with_state(text):
        cited_requirements = [requirements[cited] for cited in _REQUIREMENT_ID.findall(row) if cited in requirements]
        if problem := _check_state(state, {item.status for item in cited_requirements}, bool(_CITED_TEST.search(row))):
            yield f"{name}: {problem}: {row}"


def _rows_with_state(text: str) -> Iterator[tuple[str, str]]:
    """The rows of the tables that have a column `state`, with what it says."""
    column: int | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            column = None
        elif "state" in cells:
            column = cells.index("state")
        elif column is not None and not set(line) <= set("|-: "):
            yield line, cells[column] if column < len(cells) else ""


def _check_state(state: str, statuses: set[str], has_test: bool) -> str | None:
    """What is wrong with the state of a row whose requirements have these statuses."""
    if state not in _STATES:
        return f"the state is {state!r}; use {', '.join(_STATES)}"
    if state == "met" and (statuses - {"met"} or not (statuses or has_test)):
        return "the row is met, but names no test and no requirement, or one that is not met"
    if state == "partly" and not ("met" in statuses or has_test):
        return "the row is partly met, but names no test and no requirement that is met"
    if state == "planned" and "planned" not in statuses:
        return "the row is planned, but names no requirement that is planned"
    if state == "open" and "planned" in statuses:
        return "the row is open, but names a requirement that is planned"
    return None
