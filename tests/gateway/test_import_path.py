"""What the agent loads on a hub: numpy and onnxruntime, and none of the heavy packages of training, simulator and clinic."""

import subprocess
import sys

import pytest

FORBIDDEN = (
    "scipy", "wfdb", "bumble", "fastapi", "uvicorn", "sqlalchemy", "torch", "onnx", "amqtt", "pandas", "matplotlib",
    "neurokit2", "biosppy", "sklearn", "rich", "sqlite_utils",
)  # fmt: skip
PROGRAM = """
import sys
import gateway.cli, gateway.app, gateway.models, gateway.radio
gateway.cli._parser()
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


def loaded_by(program: str) -> set[str]:
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(run.stdout.split())


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return loaded_by(PROGRAM)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_the_agent_does_not_load(package: str, loaded: set[str]) -> None:
    assert package not in loaded


def test_the_agent_loads_what_it_runs_on(loaded: set[str]) -> None:
    assert {"numpy", "onnxruntime", "bleak", "paho", "cryptography"} <= loaded


def test_no_model_rule_or_filter_needs_more_than_numpy_and_onnxruntime(loaded: set[str]) -> None:
    """Also those that no released model uses yet."""
    found = loaded_by(EVERY_MODULE)
    assert found & set(FORBIDDEN) == set()
    ours = {"config", "models", "sync", "drivers", "gateway"}
    assert {name for name in found - loaded - ours if not name.startswith("_")} <= set(sys.stdlib_module_names)
