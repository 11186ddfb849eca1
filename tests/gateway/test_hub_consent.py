"""Consent at the hub: without it no sensor is connected, nothing is stored or sent, and what was not sent is deleted."""

import asyncio
from pathlib import Path

import pytest

from cloud.audit_actors import operator
from cloud.store.consents import give_consent, list_changes, withdraw_consent
from gateway import consent as hub_consent
from gateway.audit_events import AgentAudit
from gateway.audit_log import open_audit_log
from gateway.commands.consent import consent
from gateway.consent import HubConsent, leave_withdrawal, read_state, read_withdrawals
from gateway.models import LoadedModels
from gateway.startup import load_device_key
from sync.audit import read_row
from sync.consent import ConsentAnswer, ToldConsent, subject_tag
from sync.errors import PermanentError, TransientError
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.registration import Registration
from tests.gateway.testbed import HUB, START_S, START_US, Testbed, run_scenario

SUBJECT = "subject-1"
SETTLE_S = 75.0
"""A status and its answer, and the new start of the agent's tasks."""


@pytest.fixture
def testbed(tmp_path: Path) -> Testbed:
    return Testbed(tmp_path, LoadedModels())


def record_at_clinic(testbed: Testbed, *, is_given: bool) -> None:
    with testbed.clinic.store.transaction() as connection:
        if is_given:
            give_consent(connection, SUBJECT, "I agree.", operator(), START_US)
        else:
            withdraw_consent(connection, SUBJECT, operator(), START_US)


def actions(testbed: Testbed) -> list[str]:
    """The hub's audit log."""
    return [read_row(*row).event.action for row in open_audit_log(testbed.settings, lambda: START_US).rows()]


def test_a_withdrawal_at_the_clinic_stops_the_hub_and_a_new_consent_starts_it(testbed: Testbed) -> None:
    counts: list[int] = []
    connected: list[bool] = []

    def look() -> None:
        counts.append(testbed.clinic.store.count_blocks())
        connected.append(testbed.device is not None and bool(testbed.device.connections))

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(15)
            look()
            record_at_clinic(testbed, is_given=False)
            at_withdrawal = testbed.clinic.store.count_blocks()
            await asyncio.sleep(SETTLE_S)
            look()
            await asyncio.sleep(60)
            look()
            assert counts[1:] == [at_withdrawal] * 2
            n_sent = len([sent for sent in testbed.sent_messages if b"/up/status" not in sent])
            await asyncio.sleep(60)
            assert len([sent for sent in testbed.sent_messages if b"/up/status" not in sent]) == n_sent
            record_at_clinic(testbed, is_given=True)
            await asyncio.sleep(SETTLE_S + 10)
            look()

    run_scenario(testbed, scenario)
    assert counts[0] > 0
    assert counts[3] > counts[2]
    assert connected == [True, False, False, True]
    assert [action for action in actions(testbed) if "consent" in action] == ["withdraw-consent", "give-consent"]


def test_a_withdrawal_at_the_hub_counts_at_once_and_reaches_the_clinic(
    testbed: Testbed, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(30)
            consent(testbed.settings, "withdraw")
            await asyncio.sleep(10)
            n = testbed.clinic.store.count_blocks()
            assert n > 0
            assert testbed.device is not None
            assert not testbed.device.connections
            await asyncio.sleep(SETTLE_S)
            assert testbed.clinic.store.count_blocks() == n
            with testbed.clinic.store.transaction() as connection:
                (change,) = list_changes(connection, SUBJECT)
            assert (change.is_given, change.hub) == (False, HUB)

    run_scenario(testbed, scenario)
    assert read_withdrawals(testbed.settings.data) == {}  # the clinic has recorded it
    assert read_state(testbed.settings.data, SUBJECT).purposes == ()
    assert consent(testbed.settings, "show") == 0
    assert "subject-1 does not consent to care" in capsys.readouterr().out
    assert actions(testbed).count("withdraw-consent") == 2  # by the person, and followed by the agent


def test_an_agent_that_starts_after_a_withdrawal_connects_nothing(testbed: Testbed) -> None:
    leave_withdrawal(testbed.settings.data, SUBJECT)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(30)
            assert testbed.device is not None
            assert not testbed.device.connections
            assert testbed.clinic.store.count_blocks() == 0

    run_scenario(testbed, scenario)


def test_a_withdrawal_needs_no_key_and_no_log(testbed: Testbed, capsys: pytest.CaptureFixture[str]) -> None:
    """As where the hub key needs a passphrase: the patient does not know it."""
    (testbed.settings.data / "audit.key").write_text("damaged", encoding="ascii")
    (testbed.settings.data / "audit.key").chmod(0o600)
    assert consent(testbed.settings, "withdraw") == 0
    said = capsys.readouterr()
    assert "the audit log cannot be written" in said.err
    assert "does not consent" in said.out
    assert set(read_withdrawals(testbed.settings.data)) == {SUBJECT}
    testbed.clinic.store.close()


def open_outbox(testbed: Testbed) -> Outbox:
    data = testbed.settings.data
    keys = HubKeys(HubKey.load_or_create(data / "hub.key"), load_device_key(data))
    registration = Registration.load(testbed.settings.clinic.registration, HUB)
    return Outbox.open(
        data / "buffer.db", hub=HUB, subject=SUBJECT, keys=keys, registration=registration, clock=lambda: START_S
    )


def test_what_was_not_sent_is_deleted_and_listed(testbed: Testbed) -> None:
    outbox = open_outbox(testbed)
    for _ in range(100):
        outbox.put_many([(lane, b"x") for lane in ("alert", "vital", "wave", "archive")])  # type: ignore[misc]
    outbox.stop_collecting()
    assert outbox.statistics().bytes == 0
    assert outbox.put_many([("alert", b"x")], {"name": b"value"}) == []
    assert (outbox.statistics().bytes, outbox.load_state("name")) == (0, b"value")
    outbox.close()
    again = open_outbox(testbed)
    assert len(again.put_many([("alert", b"x")])) == 1
    again.close()
    testbed.clinic.store.close()


async def make_consent(testbed: Testbed, outbox: Outbox, restarts: list[None]) -> HubConsent:
    registration = Registration.load(testbed.settings.clinic.registration, HUB)
    audit = AgentAudit(open_audit_log(testbed.settings, lambda: START_US), registration)
    consent = HubConsent(testbed.settings.data, HUB, SUBJECT, outbox, audit, lambda: restarts.append(None))
    consent.load()
    return consent


def test_a_withdrawal_of_an_earlier_patient_is_told_first_and_stops_nobody_else(testbed: Testbed) -> None:
    data, earlier = testbed.settings.data, "subject-0"
    leave_withdrawal(data, earlier)
    number = read_withdrawals(data)[earlier]

    async def scenario() -> None:
        outbox, restarts = open_outbox(testbed), list[None]()
        consent = await make_consent(testbed, outbox, restarts)
        tag, own = subject_tag(HUB, earlier), subject_tag(HUB, SUBJECT)
        assert consent.is_given
        assert consent.told() == ToldConsent(tag, 0, number)
        consent.receive(ConsentAnswer(tag, 5, (), number + 1))  # of another withdrawal
        consent.receive(ConsentAnswer(own, 5, ("care",), number))
        assert consent.told() == ToldConsent(tag, 0, number)
        consent.receive(ConsentAnswer(tag, 5, (), number))
        assert consent.told() == ToldConsent(own, 5, None)
        consent.receive(ConsentAnswer(own, 4, (), None))  # a replayed one
        await asyncio.sleep(0)
        assert (consent.is_given, restarts) == (True, [])
        outbox.close()

    asyncio.run(scenario())
    testbed.clinic.store.close()


def test_on_a_full_disk_a_withdrawal_is_tried_again(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        outbox, restarts = open_outbox(testbed), list[None]()
        consent = await make_consent(testbed, outbox, restarts)

        def fail() -> None:
            raise TransientError("the disk is full")

        answer = ConsentAnswer(subject_tag(HUB, SUBJECT), 5, (), None)
        with monkeypatch.context() as patch:
            patch.setattr(outbox, "stop_collecting", fail)
            consent.receive(answer)
            await asyncio.sleep(0)
            assert (consent.is_given, restarts) == (True, [])
        consent.receive(answer)
        await asyncio.sleep(0)
        assert (consent.is_given, restarts) == (False, [None])
        outbox.close()

    asyncio.run(scenario())
    testbed.clinic.store.close()


def test_a_withdrawal_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    leave_withdrawal(tmp_path, SUBJECT)
    (number,) = read_withdrawals(tmp_path).values()
    leave_withdrawal(tmp_path, SUBJECT)
    assert read_withdrawals(tmp_path) == {SUBJECT: number}
    (tmp_path / hub_consent.WITHDRAWALS_FOLDER / SUBJECT).write_text("yes", encoding="ascii")
    with pytest.raises(PermanentError, match="cannot read what was withdrawn"):
        read_withdrawals(tmp_path)
