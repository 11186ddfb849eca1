"""A subject gets a new key pair at the clinic: what its hub still holds opens with it, in the clinic's own opener."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.cli import main
from cloud.key_store import KeyStore
from cloud.register import describe_hub
from config.files import destroy_file
from tests.cloud.two_patients import NOW_S, TwoPatients, records_of
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH
SUBJECT = "patient-1"


@pytest.fixture
def clinic(tmp_path: Path, databases: Databases) -> Iterator[TwoPatients]:
    """The hubs have stored readings that the clinic has not received."""
    clinic = TwoPatients(tmp_path, databases)
    for hub in clinic.hubs.values():
        hub.put(records_of(hub.subject))
    yield clinic
    clinic.stop()
    for hub in clinic.hubs.values():
        hub.outbox.close()


def rotate(clinic: TwoPatients, subject: str = SUBJECT) -> int:
    return main(["rotate-key", "--data", str(clinic.folder.path), *clinic.options, "--subject", subject])


def destroy_earlier_pair(clinic: TwoPatients) -> None:
    destroy_file(clinic.folder.keys / SUBJECT / "1.key")


def test_pending_blocks_open_with_the_new_pair_alone(clinic: TwoPatients) -> None:
    hub = clinic.hubs["hub-1"]
    before = KeyStore(clinic.folder.keys).public(SUBJECT)
    assert rotate(clinic) == 0

    hub.outbox.use_registration(describe_hub(clinic.folder, "hub-1", NOW_S)[1])
    destroy_earlier_pair(clinic)
    clinic.receive(hub)

    (pair,) = KeyStore(clinic.folder.keys).pairs(SUBJECT)
    assert before is not None
    assert pair.public.fingerprint != before.fingerprint
    assert clinic.shown() == {SUBJECT}
    assert clinic.openable(KeyStore(clinic.folder.keys)) == {SUBJECT}
    assert not any(hub.outbox.statistics().pending.values())


def test_without_the_new_registration_the_destroyed_pair_is_missed(clinic: TwoPatients) -> None:
    """What the hub wraps for a pair that is gone stays unread at the clinic, until the hub has the registration."""
    hub = clinic.hubs["hub-1"]
    assert rotate(clinic) == 0
    destroy_earlier_pair(clinic)
    for message in hub.next_messages():
        clinic.handle(message)
    clinic.open_all("hub-1")
    assert clinic.shown() == set()

    hub.outbox.use_registration(describe_hub(clinic.folder, "hub-1", NOW_S)[1])
    clinic.receive(hub)
    assert clinic.openable(KeyStore(clinic.folder.keys)) == {SUBJECT}


def test_what_was_stored_before_opens_with_the_earlier_pair(clinic: TwoPatients) -> None:
    hub = clinic.hubs["hub-1"]
    clinic.receive(hub)
    assert rotate(clinic) == 0
    hub.outbox.use_registration(describe_hub(clinic.folder, "hub-1", NOW_S)[1])
    hub.put(records_of(SUBJECT))
    clinic.receive(hub)

    assert clinic.openable(KeyStore(clinic.folder.keys)) == {SUBJECT}
    assert len(KeyStore(clinic.folder.keys).pairs(SUBJECT)) == 2


def test_a_repeated_registration_and_another_subjects_pair_change_nothing(clinic: TwoPatients) -> None:
    hub = clinic.hubs["hub-1"]
    keys = hub.outbox.pending("vital", (0, 0), 10**6)[0].key
    _, before = hub.outbox.keys_for([keys])
    assert rotate(clinic, "patient-2") == 0

    hub.outbox.use_registration(describe_hub(clinic.folder, "hub-1", NOW_S)[1])
    assert hub.outbox.keys_for([keys])[1] == before


def test_rotation_is_logged_and_names_an_unknown_subject(clinic: TwoPatients, capsys: pytest.CaptureFixture[str]) -> None:
    assert rotate(clinic) == 0
    assert "has the new key pair" in capsys.readouterr().out
    assert main(["audit", "show", "--data", str(clinic.folder.path), *clinic.options]) == 0
    assert capsys.readouterr().out.count("create-key") == 1
    assert rotate(clinic, "patient-3") == 1
    assert "patient-3 has no key pair" in capsys.readouterr().err
    assert rotate(clinic, "../hubs") == 1
