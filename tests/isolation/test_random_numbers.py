"""Keys, nonces and ids come from the operating system's generator; a predictable one is for jitter only."""

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
JITTER: Final = {"gateway/backoff.py", "gateway/renewal.py", "sync/mqtt.py", "sync/uplink.py"}
"""Modules that draw the pause before the next attempt with `random`."""
SHIPPED: Final = ("cloud", "config", "drivers", "gateway", "sync")


def imports_predictable_numbers(path: Path) -> bool:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    attributes = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
    return "random" in names or "numpy.random" in names or "np.random" in attributes


def test_no_other_module_of_hub_and_clinic_uses_predictable_numbers() -> None:
    paths = [path.relative_to(ROOT).as_posix() for package in SHIPPED for path in (ROOT / package).rglob("*.py")]
    users = {path for path in paths if not path.startswith("gateway/simulate/") and imports_predictable_numbers(ROOT / path)}
    assert users == JITTER
