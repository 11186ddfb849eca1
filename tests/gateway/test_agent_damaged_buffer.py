"""The whole agent with a damaged buffer: it starts, says so, and goes on; also if the damage is met while it runs."""

import asyncio
from pathlib import Path

import pytest

from gateway.damage_alert import update_damage_alert
from gateway.models import LoadedModels
from sync.errors import DamagedBufferError
from sync.outbox import Outbox
from sync.records import AlertRecord
from tests.gateway.testbed import Testbed, run_scenario

KIND = "buffer_damaged"


def damage_alerts(testbed: Testbed) -> list[AlertRecord]:
    return [record for record in testbed.records() if isinstance(record, AlertRecord) and record.kind == KIND]


def damage(path: Path) -> None:
    """Overwrite the first pages, as a failing SD card does."""
    with path.open("r+b") as file:
        file.write(bytes(4096))


def test_the_alert_says_so_until_the_next_start(tmp_path: Path) -> None:
    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap():
            async with testbed.agent():
                await asyncio.sleep(12)
            damage(tmp_path / "agent" / "buffer.db")
            for _ in range(2):
                async with testbed.agent():
                    await asyncio.sleep(12)

    testbed = Testbed(tmp_path, LoadedModels())
    run_scenario(testbed, scenario)
    raised, ended = damage_alerts(testbed)
    assert (raised.end_us, raised.priority, ended.id) == (None, "low", raised.id)
    assert raised.measured is not None
    assert raised.measured["blocks_kept"] > 0
    assert raised.measured["blocks_lost"] == 0
    assert ended.end_us is not None
    assert testbed.audit().passed


def test_damage_that_is_met_while_the_agent_runs_is_salvaged_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(15)
            with monkeypatch.context() as damaged:
                damaged.setattr(Outbox, "tidy", fail)
                await asyncio.sleep(6)
            await asyncio.sleep(15)

    def fail(_outbox: Outbox) -> bool:
        raise DamagedBufferError("met")

    testbed = Testbed(tmp_path, LoadedModels())
    run_scenario(testbed, scenario)
    (raised,) = damage_alerts(testbed)
    assert raised.end_us is None
    assert testbed.audit().passed


def test_nothing_changes_without_a_report() -> None:
    assert update_damage_alert(None, 5) == ((), None)
    assert update_damage_alert({"alert": None}, 5) == ((), None)
