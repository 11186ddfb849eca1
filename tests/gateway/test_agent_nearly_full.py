"""The whole agent while its buffer is nearly full: killed, restarted, and given to the next patient."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.alerts import SUBJECT_CHANGED_REASON
from gateway.models import LoadedModels
from gateway.thinning import THINNED_REASON
from sync.outbox import Outbox
from sync.records import AlertRecord, GapRecord, VitalRecord
from tests.gateway.testbed import START_S, Testbed, run_scenario

KIND = "buffer_nearly_full"


def buffer_alerts(testbed: Testbed, subject: str) -> list[AlertRecord]:
    return [record for record in testbed.records(subject) if isinstance(record, AlertRecord) and record.kind == KIND]


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    monkeypatch.setattr(Outbox, "is_nearly_full", property(lambda _: True), raising=False)
    return Testbed(tmp_path, LoadedModels())


def test_a_killed_agent_continues_its_alert_and_records_what_is_missing(testbed: Testbed) -> None:
    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap():
            async with testbed.agent(crash=True):
                await asyncio.sleep(45)
            async with testbed.agent():
                await asyncio.sleep(45)

    run_scenario(testbed, scenario)
    assert [alert.end_us for alert in buffer_alerts(testbed, "subject-1")] == [None]
    records = testbed.records()
    rates = [record for record in records if isinstance(record, VitalRecord) and record.kind == "heart_rate"]
    assert 2 <= len(rates) <= 6
    gaps = [record for record in records if isinstance(record, GapRecord) and record.kind in ("heart_rate", "rr")]
    reasons = (THINNED_REASON, "the agent was restarted", "the agent was stopped")
    assert {(gap.kind, gap.reason) for gap in gaps} == {(kind, reason) for kind in ("heart_rate", "rr") for reason in reasons}
    assert all(gap.missing is None and (gap.to_us is None) == (gap.reason == reasons[-1]) for gap in gaps)
    assert testbed.audit().passed


def test_the_alert_ends_for_the_patient_before_and_is_raised_for_the_next(testbed: Testbed) -> None:
    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(15)
        testbed.clinic.register("subject-2", START_S + 60)
        testbed.wall_step_us = 60_000_000
        testbed.settings = replace(testbed.settings, subject="subject-2")
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(15)

    run_scenario(testbed, scenario)
    raised, ended = buffer_alerts(testbed, "subject-1")
    assert (raised.end_us, ended.id) == (None, raised.id)
    assert ended.end_us is not None
    assert ended.reasons == (*raised.reasons, SUBJECT_CHANGED_REASON)
    assert [alert.end_us for alert in buffer_alerts(testbed, "subject-2")] == [None]
