"""The requirements and hazards of `docs/`, read strictly: a key that is missing, unknown or of another type is an error."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

STATUSES: Final = ("met", "planned", "open")
MEASURE_KINDS: Final = ("design", "protection", "information")
LEVELS: Final = range(1, 6)
"""Severity and probability are estimated in five levels; `docs/hazards.toml` defines them."""

_REQUIREMENT: Final = {"id": str, "text": str, "source": str, "status": str, "hazards": list, "tests": list}
_REQUIREMENT_DEFAULTS: Final[Mapping[str, Any]] = {"status": "met", "hazards": [], "tests": []}
_MEASURE: Final = {"kind": str, "text": str, "requirements": list}
_HAZARD: Final = {
    "id": str,
    "hazard": str,
    "sequence": str,
    "situation": str,
    "harm": str,
    "severity": int,
    "probability": int,
    "residual_severity": int,
    "residual_probability": int,
    "residual": str,
    "measure": list,
}


class DocumentError(ValueError):
    """A requirement or hazard that is not written as the format demands."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One statement that a test can prove, with where it comes from and the hazards that it reduces."""

    id: str
    text: str
    source: str
    status: str
    hazards: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """What is done against a hazard, and the requirements that demand it."""

    kind: str
    text: str
    requirements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hazard:
    """One line of the risk analysis (ISO 14971). The residual levels count only measures whose requirements are met."""

    id: str
    hazard: str
    sequence: str
    situation: str
    harm: str
    severity: int
    probability: int
    residual_severity: int
    residual_probability: int
    residual: str
    measure: tuple[Measure, ...]


def read_requirements(path: Path) -> tuple[Requirement, ...]:
    """Read the `[[requirement]]` tables. `status`, `hazards` and `tests` may be missing: `met`, none, none.

    Raises:
        DocumentError: the file is not TOML, or a table is not a requirement.
    """
    tables = _read_tables(path, "requirement")
    return tuple(Requirement(**_checked({**_REQUIREMENT_DEFAULTS, **table}, _REQUIREMENT, path)) for table in tables)


def read_hazards(path: Path) -> tuple[Hazard, ...]:
    """Read the `[[hazard]]` tables, each with its `[[hazard.measure]]` tables.

    Raises:
        DocumentError: the file is not TOML, or a table is not a hazard.
    """
    hazards: list[Hazard] = []
    for table in _read_tables(path, "hazard"):
        values = _checked(table, _HAZARD, path)
        values["measure"] = tuple(Measure(**_checked(measure, _MEASURE, path)) for measure in values["measure"])
        hazards.append(Hazard(**values))
    return tuple(hazards)


def _read_tables(path: Path, name: str) -> list[dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text()).get(name)
    except tomllib.TOMLDecodeError as error:
        raise DocumentError(f"{path.name} is not TOML: {error}") from None
    if not isinstance(tables, list):
        raise DocumentError(f"{path.name} has no [[{name}]]")
    return tables


def _checked(table: Mapping[str, Any], types: Mapping[str, type], path: Path) -> dict[str, Any]:
    """The table with tuples in place of lists."""
    where = f"{path.name}, {table.get('id') or table.get('text')}"
    if missing := [name for name in types if name not in table]:
        raise DocumentError(f"{where}: {', '.join(missing)} is missing")
    if unknown := [name for name in table if name not in types]:
        raise DocumentError(f"{where}: {', '.join(unknown)} is unknown; use {', '.join(types)}")
    if wrong := [name for name, kind in types.items() if type(table[name]) is not kind or table[name] == ""]:
        raise DocumentError(f"{where}: {', '.join(wrong)} is empty or of another type")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
