"""The agent's log: one line for each change of state, and nothing about the patient."""

import asyncio
import logging
from pathlib import Path

import pytest

from gateway.models import load_models
from gateway.simulate.strap import ADDRESS
from sync.records import AlertRecord
from tests.gateway.testbed import Testbed, run_scenario


def test_logs_one_line_for_each_change_of_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = load_models()
    testbed = Testbed(tmp_path, models)
    kinds: set[str] = set()

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(60)
            testbed.link.out_of_range.add(ADDRESS)
            testbed.link.simulate_link_loss(ADDRESS)
            await asyncio.sleep(150)  # three searches of 30 s and the pauses between them
            testbed.link.out_of_range.clear()
            await asyncio.sleep(30)
        kinds.update(record.kind for record in testbed.records() if isinstance(record, AlertRecord))

    with caplog.at_level(logging.DEBUG):
        run_scenario(testbed, scenario)
    told = [record for record in caplog.records if record.name.startswith(("gateway", "sync"))]
    assert [record.getMessage().partition(" to a phone")[0] for record in told if record.levelno > logging.DEBUG] == [
        f"started: hub hub-1, sensors strap, model release {models.release}",
        "strap: connected",
        "strap: disconnected",
        "strap: sensor not found: check that it is worn, in range and not connected",
        "strap: connected",
        "stopping: the sensors are disconnected and the last readings stored and sent",
        "strap: disconnected",
        "stopped",
    ]
    assert sum("not found" in record.getMessage() for record in told) >= 3
    assert kinds
    words = {word.strip(",.:") for record in told for word in record.getMessage().split()}
    assert words.isdisjoint(kinds | {"high", "medium", "low", testbed.settings.subject})
