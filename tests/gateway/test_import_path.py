"""The agent on a hub imports numpy and onnxruntime, but no package that only training, simulator or clinic need.

`pulsegate --help` and `pulsegate status` import neither numpy nor onnxruntime.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import COMMANDS

NOT_ON_A_HUB = (
    "scipy", "wfdb", "bumble", "fastapi", "uvicorn", "sqlalchemy", "torch", "onnx", "amqtt", "pandas", "matplotlib",
    "neurokit2", "biosppy", "sklearn", "rich", "sqlite_utils", "http", "email", "decimal", "tempfile", "shutil",
)  # fmt: skip
AGENT = """
import sys
import gateway.cli, gateway.app, gateway.models, gateway.radio
assert not gateway.models.load_models().refused
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
EVERY_MODULE = """
import importlib, pkgutil, sys
for package in ("models.inference", "models.rules", "models.signal"):
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(module.name)
import models.analysis
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""

COMMAND = """
import sys
from gateway.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""

PROXIES = """
import sys
import sync.paho_mqtt
assert "http" not in sys.modules
from urllib.request import getproxies
import urllib.request
assert urllib.request.getproxies is getproxies and "http" in sys.modules
print(urllib.request.__name__)
"""


def imported_by(program: str, *arguments: str | Path) -> set[str]:
    """The top-level packages that a program has imported; it prints them in its last line."""
    command = [sys.executable, "-c", program, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(run.stdout.splitlines()[-1].split())


@pytest.fixture(scope="module")
def imported() -> set[str]:
    return imported_by(AGENT)


@pytest.mark.parametrize("package", NOT_ON_A_HUB)
def test_the_agent_does_not_import(package: str, imported: set[str]) -> None:
    assert package not in imported


def test_the_agent_imports_its_dependencies(imported: set[str]) -> None:
    assert {"numpy", "onnxruntime", "bleak", "paho", "cryptography"} <= imported


def test_the_http_client_of_paho_is_loaded_when_it_is_used() -> None:
    assert imported_by(PROXIES) == {"urllib.request"}


def test_models_rules_and_filters_need_only_numpy_and_onnxruntime(imported: set[str]) -> None:
    """Includes modules that no released model uses yet."""
    found = imported_by(EVERY_MODULE)
    assert found & set(NOT_ON_A_HUB) == set()
    ours = {"config", "models", "sync", "drivers", "gateway"}
    assert {name for name in found - imported - ours if not name.startswith("_")} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("arguments", [("--help",), *((command, "--help") for command in COMMANDS)], ids=" ".join)
def test_help_imports_neither_numpy_nor_onnxruntime(arguments: tuple[str, ...]) -> None:
    assert imported_by(COMMAND, *arguments) & {"numpy", "onnxruntime"} == set()


@pytest.mark.parametrize("has_run", [True, False])
def test_status_imports_neither_numpy_nor_onnxruntime(hub: Path, has_run: bool) -> None:
    if has_run:
        (hub / "data" / "status.json").write_text('{"at_us": 1000000}')
    assert imported_by(COMMAND, "status", "--config", hub / "pulsegate.toml") & {"numpy", "onnxruntime"} == set()
