"""The demo's processes are killed again and again; nothing is lost or held twice."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.demo.demo_process import find_processes, read_status, run_demo, stop, wait_until

KILLS_PER_PROCESS = 10


@pytest.mark.parametrize("seed", [1])
def test_thirty_kills_neither_lose_nor_duplicate_a_sample(tmp_path: Path, seed: int) -> None:
    """Kill agent, clinic and strap ten times each with SIGKILL, at random moments, also during a start."""
    rng = random.Random(seed)
    names = ["agent", "clinic", "strap"] * KILLS_PER_PROCESS
    rng.shuffle(names)
    with run_demo(tmp_path, "--port", "0", "--data", str(tmp_path / "data")) as process:
        wait_until(lambda: read_status(tmp_path).get("samples_received", 0) > 500)
        for name in names:
            time.sleep(rng.uniform(0.3, 4.0))
            os.kill(wait_until(lambda name=name: find_processes(process.pid).get(name)), signal.SIGKILL)
        before = wait_until(lambda: read_status(tmp_path).get("blocks_acked"))
        wait_until(lambda: read_status(tmp_path).get("blocks_acked", 0) > before + 2)
        errors = stop(process)
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["restarts"] == {"agent": KILLS_PER_PROCESS, "clinic": KILLS_PER_PROCESS, "strap": KILLS_PER_PROCESS}
    assert result["samples_sent"] > 1000
    assert result["samples_stored"] + result["samples_in_gaps"] == result["samples_sent"]
    assert result["samples_unaccounted"] == 0
    assert (result["blocks_stored_twice"], result["samples_stored_twice"], result["blocks_missing"]) == (0, 0, 0)
    assert result["blocks_pending"] == 0
    assert process.returncode == 0, errors
