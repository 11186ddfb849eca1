"""Commands from the clinic to the whole agent and back: each is carried out once, in its time, and shown only when answered."""

import asyncio
import logging
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import DEFAULT_LIMITS
from gateway.clinic_commands import ClinicCommands
from gateway.recorder import COMMIT_INTERVAL_S
from sync.commands import APPLIED_KIND, CommandKind
from sync.errors import TransientError
from sync.outbox import Outbox
from sync.record_codec import encode_records
from sync.records import StatusRecord, Times, WaveformRecord
from sync.signing import SigningKey, Use
from tests.gateway.command_site import Site, run
from tests.gateway.testbed import START_S, START_US


def test_a_command_is_carried_out_once_however_often_it_comes_and_over_a_restart(site: Site) -> None:
    async def scenario() -> None:
        command = site.send(CommandKind.UPLOAD, policy="none")
        async with site.agent():
            for _ in range(3):
                await site.deliver(command.payload)
            assert site.policy == "none"
        async with site.agent():
            assert site.policy == "none"
            await site.deliver(command.payload)
        assert site.answers() == [(APPLIED_KIND, command.number)]

    run(site, scenario)


def test_a_command_is_shown_as_applied_only_after_the_hub_has_said_so(site: Site) -> None:
    async def scenario() -> None:
        command = site.send(CommandKind.LOG_LEVEL, level="debug")
        assert site.states() == ["sent"]
        async with site.agent():
            site.open_all()
            assert site.states() == ["sent"]
            await site.deliver(command.payload)
        assert site.states() == ["sent"]
        assert site.states(command.expires_s) == ["expired"]
        site.open_all()
        assert site.states() == site.states(command.expires_s) == ["applied"]

    run(site, scenario)


def test_a_kill_before_the_outcome_is_stored_leaves_nothing_done(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise TransientError("the disk does not answer")

    async def scenario() -> None:
        command = site.send(CommandKind.UPLOAD, policy="none")
        with monkeypatch.context() as patch:
            async with site.agent(crash=True):
                patch.setattr(Outbox, "put_many", fail)
                await site.deliver(command.payload)
                assert site.policy == "all"
        async with site.agent():
            assert site.policy == "all"
            await site.deliver(command.payload)
            assert site.policy == "none"
        assert site.answers() == [(APPLIED_KIND, command.number)]

    run(site, scenario)


def test_a_kill_after_the_outcome_is_stored_leaves_the_command_done(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        command = site.send(CommandKind.UPLOAD, policy="none")
        with monkeypatch.context() as patch:
            async with site.agent(crash=True):
                patch.setattr(ClinicCommands, "_follow_state", lambda *_: None)
                await site.deliver(command.payload)
                assert site.policy == "all"
        async with site.agent():
            assert site.policy == "none"
            await site.deliver(command.payload)
        assert site.answers() == [(APPLIED_KIND, command.number)]

    run(site, scenario)


def test_what_is_not_a_command_of_this_clinic_to_this_hub_changes_nothing(site: Site) -> None:
    command = site.forge()
    forged = {
        "by another site": site.forge(SigningKey.generate(Use.COMMAND)),
        "to another hub": site.forge(hub="hub-2"),
        "changed": command[:-1] + bytes([command[-1] ^ 1]),
        "no command": b"\xa0",
    }

    async def scenario() -> None:
        async with site.agent():
            for payload in forged.values():
                await site.deliver(payload)
            statistics = site.runs[-1][1].uplink.statistics
            assert statistics.ignored_messages == len(forged)
            assert site.policy == "all"
        assert site.answers() == []

    run(site, scenario)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"expires_s": START_S + 1}, "expired"), ({"subject": "subject-2"}, "subject")],
    ids=["expired", "about another patient"],
)
def test_an_expired_or_foreign_command_is_refused(site: Site, changes: dict[str, Any], reason: str) -> None:
    async def scenario() -> None:
        async with site.agent():
            await site.deliver(site.forge(**changes))
            assert site.policy == "all"
        assert site.answers() == [(f"command_refused_{reason}", START_S)]

    run(site, scenario)


def test_a_command_older_than_the_last_is_never_carried_out(site: Site) -> None:
    async def scenario() -> None:
        async with site.agent():
            await site.deliver(site.forge(number=9, arguments={"policy": "evidence"}))
            await site.deliver(site.forge(number=8))
            assert site.policy == "evidence"
        assert site.answers() == [(APPLIED_KIND, 9)]

    run(site, scenario)


def test_a_command_about_the_patient_before_is_not_carried_out_again(site: Site) -> None:
    async def scenario() -> None:
        async with site.agent():
            old = site.forge(kind=CommandKind.LOG_LEVEL, subject=None, arguments={"level": "error"})
            await site.deliver(old)
        logging.getLogger().setLevel("INFO")
        site.testbed.clinic.register("subject-2", START_S + 10)
        site.testbed.settings = replace(site.testbed.settings, subject="subject-2")
        async with site.agent():
            await site.deliver(old)
            assert logging.getLogger().level == logging.INFO
        assert site.answers() == [(APPLIED_KIND, START_S)]

    run(site, scenario)


def test_a_hub_without_a_trusted_time_waits_with_every_command(site: Site) -> None:
    async def scenario() -> None:
        site.testbed.wall_step_us = -START_US  # 1970
        async with site.agent():
            await site.deliver(site.forge())
            assert site.policy == "all"
            assert site.answers() == []
            site.testbed.wall_step_us = 0
            await site.deliver(site.forge())
            assert site.policy == "none"
        assert site.answers() == [(APPLIED_KIND, START_S)]

    run(site, scenario)


def test_limits_hold_after_a_restart_of_the_tasks_and_of_the_agent_until_others_come(site: Site) -> None:
    async def scenario() -> None:
        own = site.testbed.settings.limits
        async with site.agent():
            await site.deliver(site.send(CommandKind.LIMITS, values={"fever": 38.2}).payload, 20)
            assert site.limits == [own, DEFAULT_LIMITS.with_values({"fever": 38.2})]
        async with site.agent():
            assert site.limits[-1].fever.value == 38.2
            await site.deliver(site.send(CommandKind.LIMITS, values={}).payload, 20)
            assert site.limits[-1] == DEFAULT_LIMITS

    run(site, scenario)


def test_contexts_hold_after_a_restart_of_the_tasks_and_of_the_agent_until_others_come(site: Site) -> None:
    async def scenario() -> None:
        own = Contexts(paced=True)
        site.testbed.settings = replace(site.testbed.settings, contexts=own)
        async with site.agent():
            command = site.send(CommandKind.CONTEXTS, values={"known_af": True, "age_years": 71})
            await site.deliver(command.payload, 20)
            await site.deliver(command.payload, 20)  # once, however often it comes
            assert site.contexts == [own, Contexts(known_af=True, age_years=71)]
        site.open_all()
        assert site.states() == ["applied"]
        async with site.agent():
            assert site.contexts[-1] == Contexts(known_af=True, age_years=71)
            await site.deliver(site.send(CommandKind.CONTEXTS, values={}).payload, 20)
            assert site.contexts[-1] == NO_CONTEXTS

    run(site, scenario)


@pytest.mark.parametrize("values", [{"heart": True}, {"paced": 1}, {"age_years": 131}, {"age_years": True}], ids=str)
def test_contexts_that_this_hub_does_not_know_are_refused(
    site: Site, values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with site.agent():
            await site.deliver(site.forge(kind=CommandKind.CONTEXTS, arguments={"values": values}), 20)
        assert site.answers() == [("command_refused_values", START_S)]
        assert len(site.runs) == 1
        assert "131" not in caplog.text

    run(site, scenario)


def test_limits_that_this_hub_does_not_allow_are_refused(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with site.agent():
            await site.deliver(site.forge(kind=CommandKind.LIMITS, arguments={"values": {"fever": 77.7}}), 20)
        assert site.answers() == [("command_refused_values", START_S)]
        assert len(site.runs) == 1
        assert "77.7" not in caplog.text

    run(site, scenario)


def test_a_restart_starts_every_task_again_once(site: Site) -> None:
    async def scenario() -> None:
        async with site.agent():
            command = site.send(CommandKind.RESTART)
            await site.deliver(command.payload, 30)
            await site.deliver(command.payload, 30)
            assert len(site.runs) == 2
        assert site.answers() == [(APPLIED_KIND, command.number)]

    run(site, scenario)


def test_a_requested_stretch_arrives(site: Site) -> None:
    record = StatusRecord("strap", "name", Times(START_US, START_US, 0), "kept")

    async def scenario() -> None:
        async with site.agent():
            storage = site.runs[-1][1]
            await storage.call(storage.outbox.put, "archive", encode_records([record]))
            await asyncio.sleep(60)
            assert record not in site.testbed.records()
            command = site.send(CommandKind.REQUEST, lane="archive", from_s=START_S - 60, to_s=START_S + 60)
            await site.deliver(command.payload, 20)
            assert record in site.testbed.records()
        assert site.answers() == [(APPLIED_KIND, command.number)]

    run(site, scenario)


def test_a_stretch_of_what_was_only_kept_arrives_and_nothing_before_it(site: Site) -> None:
    from_s, to_s = START_S + 30, START_S + 40

    def waves() -> list[tuple[float, float]]:
        """Start and end of each stretch of the ECG at the clinic, in seconds."""
        found = [record for record in site.testbed.records() if isinstance(record, WaveformRecord) and record.kind == "ecg"]
        ends = [record.times.at_us / 1e6 + len(record.samples) / record.rate_hz for record in found]
        return sorted(zip([record.times.at_us / 1e6 for record in found], ends, strict=True))

    async def scenario() -> None:
        site.testbed.settings = replace(site.testbed.settings, upload="none")
        async with site.testbed.strap(), site.agent():
            await asyncio.sleep(50)
            assert waves() == []
            command = site.send(CommandKind.REQUEST, lane="archive", from_s=from_s, to_s=to_s)
            await site.deliver(command.payload, 5)
            arrived = waves()
            assert arrived[0][0] <= from_s
            assert arrived[-1][1] >= to_s
            assert all(later[0] - earlier[1] < 0.05 for earlier, later in pairwise(arrived))  # without a gap
            assert arrived[0][0] >= from_s - COMMIT_INTERVAL_S - 1  # what lies in one block with the first sample
        assert site.answers() == [(APPLIED_KIND, command.number)]

    run(site, scenario)


def test_what_this_version_cannot_do_is_refused(site: Site) -> None:
    async def scenario() -> None:
        command = site.send(CommandKind.REQUEST, lane="wave", from_s=1, to_s=2)
        async with site.agent():
            await site.deliver(command.payload)
        site.open_all()
        assert site.states() == ["refused"]
        assert site.answers() == [("command_refused_unsupported", command.number)]

    run(site, scenario)
