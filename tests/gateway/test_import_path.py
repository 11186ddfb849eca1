"""What the agent loads on a hub: numpy and onnxruntime, and none of the heavy packages of training, simulator and clinic."""

import subprocess
import sys

import pytest

FORBIDDEN = ("scipy", "wfdb", "bumble", "fastapi", "uvicorn", "sqlalchemy", "torch", "onnx", "amqtt", "pandas", "matplotlib")
PROGRAM = """
import sys
import gateway.cli, gateway.app, gateway.radio
gateway.cli.load_rhythm_model()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("package", FORBIDDEN)
def test_the_agent_does_not_load(package: str, loaded: set[str]) -> None:
    assert package not in loaded


def test_the_agent_loads_what_it_runs_on(loaded: set[str]) -> None:
    assert {"numpy", "onnxruntime", "bleak", "paho", "cryptography"} <= loaded
