"""Consent at the clinic: without it nothing is taken in and the hub is told; a withdrawal at the hub is recorded once."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.cli import main
from cloud.errors import ClinicError
from cloud.ingest import handle_message
from cloud.store.consents import ConsentChange, list_changes
from cloud.subjects import check_consents
from sync.consent import CARE, ConsentAnswer, ToldConsent, subject_tag
from sync.messages import Ack, decode_ack
from sync.mqtt import Message
from sync.outbox.room import dropped_ranges
from sync.status import Backlog, HubStatus, encode_status
from sync.versions import REVISION
from sync.wire import LANES, status_topic
from tests.cloud.synthetic import START_US
from tests.cloud.two_patients import TwoPatients, records_of
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH
HUB, SUBJECT = "hub-1", "patient-1"
TAG = subject_tag(HUB, SUBJECT)
BACKLOG = tuple(Backlog(lane, 0, None) for lane in LANES)


@pytest.fixture
def clinic(tmp_path: Path, databases: Databases) -> Iterator[TwoPatients]:
    clinic = TwoPatients(tmp_path, databases)
    yield clinic
    clinic.stop()
    for hub in clinic.hubs.values():
        hub.outbox.close()


class Statuses:
    """Sends statuses of a hub, each with the next number."""

    def __init__(self, clinic: TwoPatients, hub: str = HUB) -> None:
        self.clinic, self.hub, self.seq = clinic, hub, 0

    def message(self, told: ToldConsent | None, erased: tuple[bytes, ...] = ()) -> Message:
        self.seq += 1
        sender = self.clinic.hubs[self.hub]
        status = HubStatus(
            *(self.hub, sender.outbox.epoch, self.seq, START_US, "0.1.0", REVISION, BACKLOG, None, None, None, 1, 10**9, ()),
            consent=told,
            erased=erased,
        )
        return Message(status_topic(self.hub), encode_status(status, sender.keys.device))

    def send(self, told: ToldConsent | None, erased: tuple[bytes, ...] = ()) -> Ack | None:
        return self.deliver(self.message(told, erased))

    def deliver(self, message: Message) -> Ack | None:
        clinic = self.clinic
        key = clinic.signing.acknowledgement
        payload = handle_message(clinic.store, clinic.registry(), key, message, START_US + self.seq).payload
        return None if payload is None else decode_ack(payload, key.public)

    def ask(self, number: int, withdrawal: int | None = None) -> ConsentAnswer | None:
        ack = self.send(ToldConsent(subject_tag(self.hub, SUBJECT), number, withdrawal))
        return None if ack is None else ack.consent


def command(clinic: TwoPatients, *words: str) -> int:
    return main([*words[:2], "--data", str(clinic.folder.path), *clinic.options, "--subject", SUBJECT, *words[2:]])


def changes(clinic: TwoPatients) -> list[ConsentChange]:
    with clinic.store.transaction() as connection:
        return list_changes(connection, SUBJECT)


def logged(clinic: TwoPatients, action: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["audit", "show", "--data", str(clinic.folder.path), *clinic.options, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [row for row in rows if row["action"] == action]


def write_text(tmp_path: Path, text: str = "I agree.\n") -> str:
    (tmp_path / "consent.txt").write_text(text, encoding="utf-8")
    return str(tmp_path / "consent.txt")


def test_a_subject_without_consent_is_refused_and_others_are_not(clinic: TwoPatients) -> None:
    assert command(clinic, "consent", "withdraw") == 0
    for hub in clinic.hubs.values():
        hub.put(records_of(hub.subject))
    hub, other = clinic.hubs.values()
    acks = clinic.receive(hub)
    assert [row.reason for ack in acks for row in ack.refused] == ["no consent"] * 3
    assert [ack.held for ack in acks] == [()] * 3
    assert {key for ack in acks for key in (*ack.keys, *ack.aside)} == set()
    assert clinic.store.count_blocks() == 0
    assert not clinic.store.list_quarantined()
    assert sum(hub.outbox.statistics().pending.values()) == 0
    clinic.receive(other)
    assert clinic.shown() == {"patient-2"}


def test_a_consent_that_is_given_again_counts_from_then_on(clinic: TwoPatients, tmp_path: Path) -> None:
    hub = clinic.hubs[HUB]
    hub.put(records_of(SUBJECT))
    clinic.receive(hub)
    assert command(clinic, "consent", "withdraw") == 0
    hub.put(records_of(SUBJECT))
    clinic.receive(hub)
    assert command(clinic, "consent", "give", "--text", write_text(tmp_path)) == 0
    hub.put(records_of(SUBJECT))
    clinic.receive(hub)
    assert clinic.store.count_blocks() == 6
    assert [change.is_given for change in changes(clinic)] == [False, True]


@pytest.mark.sqlite_only
def test_what_was_refused_is_not_missing_once_the_hub_has_listed_it(clinic: TwoPatients, tmp_path: Path) -> None:
    hub = clinic.hubs[HUB]
    for action in ((), ("withdraw",), ("give", "--text", write_text(tmp_path))):
        if action:
            assert command(clinic, "consent", *action) == 0
        hub.put(records_of(SUBJECT))
        clinic.receive(hub)
    assert [(row.lane, row.first, row.last) for row in dropped_ranges(hub.outbox._database)] == [
        (lane, 2, 2) for lane in ("alert", "vital", "wave")
    ]


def test_a_hub_is_told_what_it_does_not_know(clinic: TwoPatients, tmp_path: Path) -> None:
    statuses = Statuses(clinic)
    assert statuses.ask(0) is None  # by its registration
    assert statuses.send(None) is None  # an older hub
    assert command(clinic, "consent", "withdraw") == 0
    first = changes(clinic)[-1].number
    assert statuses.ask(0) == ConsentAnswer(TAG, first, (), None)
    assert statuses.ask(first) is None
    assert command(clinic, "consent", "give", "--text", write_text(tmp_path)) == 0
    second = changes(clinic)[-1].number
    assert second > first
    assert statuses.ask(first) == ConsentAnswer(TAG, second, (CARE,), None)
    assert statuses.ask(second) is None


def test_a_withdrawal_at_the_hub_is_recorded_once(clinic: TwoPatients, capsys: pytest.CaptureFixture[str]) -> None:
    statuses = Statuses(clinic)
    answer = statuses.ask(0, withdrawal=4711)
    assert answer is not None
    assert (answer.purposes, answer.withdrawal) == ((), 4711)
    assert statuses.ask(0, withdrawal=4711) == answer  # the answer was lost
    (change,) = changes(clinic)
    assert (change.is_given, change.actor, change.hub, change.withdrawal) == (False, HUB, HUB, 4711)
    hub = clinic.hubs[HUB]
    hub.put(records_of(SUBJECT))
    assert {row.reason for ack in clinic.receive(hub) for row in ack.refused} == {"no consent"}
    (row,) = logged(clinic, "withdraw-consent", capsys)
    assert (row["subject"], row["outcome"]) == (SUBJECT, "done")
    assert main(["audit", "verify", "--data", str(clinic.folder.path), *clinic.options]) == 0


def test_a_withdrawal_that_comes_late_still_counts_and_a_later_consent_stays(clinic: TwoPatients, tmp_path: Path) -> None:
    """The patient withdrew at a hub without network; meanwhile the clinic recorded a consent to a newer text."""
    statuses = Statuses(clinic)
    assert command(clinic, "consent", "give", "--text", write_text(tmp_path)) == 0
    answer = statuses.ask(0, withdrawal=1)
    assert answer is not None
    assert answer.purposes == ()
    assert command(clinic, "consent", "give", "--text", write_text(tmp_path, "Newer.\n")) == 0
    answer = statuses.ask(0, withdrawal=1)  # the hub did not get the answer
    assert answer is not None
    assert (answer.purposes, answer.withdrawal) == ((CARE,), 1)
    assert [change.is_given for change in changes(clinic)] == [True, False, True]


def test_a_store_restored_from_a_backup_does_not_bring_a_consent_back(clinic: TwoPatients, tmp_path: Path) -> None:
    statuses = Statuses(clinic)
    clinic.stop()
    clinic.databases.back_up("blocks")
    clinic.start()
    assert command(clinic, "consent", "withdraw") == 0
    number = changes(clinic)[-1].number
    clinic.stop()
    clinic.databases.restore("blocks")
    clinic.start()
    answer = statuses.ask(number)
    assert answer is not None
    assert answer.number > number
    assert answer.purposes == ()
    assert statuses.ask(answer.number) is None


def test_a_replayed_status_and_one_about_a_stranger_withdraw_nothing(clinic: TwoPatients, tmp_path: Path) -> None:
    statuses = Statuses(clinic)
    withdrawing = statuses.message(ToldConsent(TAG, 0, 7))
    assert statuses.deliver(withdrawing) is not None
    assert command(clinic, "consent", "give", "--text", write_text(tmp_path)) == 0
    assert statuses.send(None) is None
    assert statuses.deliver(withdrawing) is None
    assert [change.is_given for change in changes(clinic)] == [False, True]
    stranger = Statuses(clinic, "hub-2")
    assert stranger.ask(0, withdrawal=8) is None  # hub-2 was never assigned to patient-1
    assert stranger.send(ToldConsent(TAG, 0, 8)) is None
    assert statuses.ask(2**53 - 1) is None  # no clinic gives such a number
    assert len(changes(clinic)) == 2


def test_no_hub_is_given_to_a_subject_that_has_withdrawn(clinic: TwoPatients, tmp_path: Path) -> None:
    check_consents(clinic.folder, SUBJECT)
    assert command(clinic, "consent", "withdraw") == 0
    with pytest.raises(ClinicError, match="does not consent"):
        check_consents(clinic.folder, SUBJECT)
    key = str(clinic.hubs[HUB].folder / "device.pub")
    words = ("register", "--data", str(clinic.folder.path), *clinic.options, "--hub", "hub-3", "--hub-key", key)
    assert main([*words, "--subject", SUBJECT, "--out", str(tmp_path / "new.toml")]) == 1
    assert not (tmp_path / "new.toml").exists()


def test_the_text_of_a_consent_and_its_history_can_be_read(
    clinic: TwoPatients, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(clinic, "consent", "show") == 0
    assert "consents by the registration" in capsys.readouterr().out
    text = "Ich willige ein: Übertragung meiner Werte.\n"
    assert command(clinic, "consent", "give", "--text", write_text(tmp_path, text)) == 0
    assert command(clinic, "consent", "withdraw") == 0
    capsys.readouterr()
    assert command(clinic, "consent", "show", "--json") == 0
    given, withdrawn = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (given["given"], given["text"], given["text_sha256"]) == (True, text, hashlib.sha256(text.encode()).hexdigest())
    assert (withdrawn["given"], withdrawn["text"]) == (False, None)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("content", [b"", b"\xff", b"a\0", b"x" * 262_145], ids=["empty", "not UTF-8", "NUL", "too long"])
def test_what_is_no_text_is_refused(clinic: TwoPatients, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "consent.txt").write_bytes(content)
    assert command(clinic, "consent", "give", "--text", str(tmp_path / "consent.txt")) == 1
    assert command(clinic, "consent", "give", "--text", str(tmp_path / "none.txt")) == 1
    assert changes(clinic) == []
