"""The whole agent on virtual time under faults of its surroundings: a second agent, a full disk, a step of the wall clock."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cloud.validate import validate_record
from gateway import recorder, sensor_events
from gateway.models import LoadedModels
from gateway.simulate.strap import ADDRESS
from sync.errors import PermanentError
from sync.outbox import Outbox
from sync.outbox.database import OutboxDatabase
from sync.records import GapRecord, StatusRecord
from tests.gateway.testbed import InProcessTransport, Testbed, run_scenario

FillDisk = Callable[[bool], None]


@pytest.fixture
def fill_disk(monkeypatch: pytest.MonkeyPatch) -> FillDisk:
    """A function that fills the disk of the running agent's buffer, or makes room again."""
    databases: list[OutboxDatabase] = []
    open_outbox = Outbox.open

    def open_and_remember(*arguments: Any, **settings: Any) -> Outbox:
        outbox = open_outbox(*arguments, **settings)
        databases.append(outbox._database)
        return outbox

    def fill(is_full: bool) -> None:
        databases[-1].run(lambda: None)  # what was deferred
        databases[-1].execute("VACUUM")  # otherwise the space of acknowledged blocks is used again
        databases[-1].execute(f"PRAGMA max_page_count = {1 if is_full else 1 << 30}")  # 1: the present size

    monkeypatch.setattr(Outbox, "open", open_and_remember)
    return fill


def statuses(testbed: Testbed, kind: str) -> list[Any]:
    return [record.value for record in testbed.records() if isinstance(record, StatusRecord) and record.kind == kind]


def test_a_second_agent_on_the_same_data_folder_is_refused_and_the_first_continues(tmp_path: Path) -> None:
    testbed = Testbed(tmp_path, LoadedModels())

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap():
            async with testbed.agent():
                await asyncio.sleep(8)
                with pytest.raises(PermanentError, match=r"agent is in use by another agent: stop that one, or set `data`"):
                    async with testbed.agent():
                        await asyncio.sleep(1)
                await asyncio.sleep(8)
            async with testbed.agent():  # the lock ends with the agent
                await asyncio.sleep(8)
        audited = testbed.audit()
        assert audited.passed, audited
        assert audited.samples_stored > 15 * 130

    run_scenario(testbed, scenario)


class SilentTransport(InProcessTransport):
    """A broker that takes messages and never answers; it fails for good after a minute."""

    async def run(self) -> NoReturn:
        await asyncio.sleep(60)
        raise PermanentError("the transport failed")


def test_the_agent_ends_when_a_task_fails_on_a_full_disk(
    tmp_path: Path, fill_disk: FillDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "PENDING_LIMIT", 20)
    testbed = Testbed(tmp_path, LoadedModels(), transport_type=SilentTransport)

    async def scenario(testbed: Testbed) -> None:
        async with asyncio.timeout(300), testbed.strap(), testbed.agent():
            await asyncio.sleep(10)
            fill_disk(True)
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as raised:
        run_scenario(testbed, scenario)
    assert raised.group_contains(PermanentError, match="the transport failed")


def test_what_a_full_queue_drops_leaves_records(tmp_path: Path, fill_disk: FillDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PENDING_LIMIT", 20)
    monkeypatch.setattr(sensor_events, "QUEUE_LIMIT", 30)
    testbed = Testbed(tmp_path, LoadedModels())

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(15)
            fill_disk(True)
            await asyncio.sleep(60)
            testbed.link.simulate_link_loss(ADDRESS)
            await asyncio.sleep(60)
            fill_disk(False)
            await asyncio.sleep(30)
        (dropped,) = statuses(testbed, "notifications_dropped")
        assert dropped > 100
        assert statuses(testbed, "link").count("backing_off") == 1
        audited = testbed.audit()
        assert audited.passed, audited
        assert audited.samples_in_gaps > 30 * 130  # the rest finds room where answered blocks were
        reasons = {record.reason for record in testbed.records() if isinstance(record, GapRecord)}
        assert reasons & {"the link was lost", "the hub was overloaded"}

    run_scenario(testbed, scenario)


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_step_of_the_wall_clock_leaves_a_record_and_no_gap(tmp_path: Path, step_s: float) -> None:
    testbed = Testbed(tmp_path, LoadedModels())

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(10)
            testbed.wall_step_us = round(step_s * 1e6)
            await asyncio.sleep(10)
        assert statuses(testbed, "clock_step_s") == [pytest.approx(step_s, abs=1e-3)]
        for record in testbed.records():
            validate_record(record)
        gaps = [record for record in testbed.records() if isinstance(record, GapRecord) and record.to_us is not None]
        assert gaps == []
        assert testbed.audit().samples_stored > 15 * 130

    run_scenario(testbed, scenario)
