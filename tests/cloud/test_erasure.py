"""A subject is erased: nothing of it can be opened or found any more, here, in older copies, and at its hub. Others stay.

Every file is copied before `pulsegate-cloud erase`.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from cloud import projections_database, tables
from cloud.cli import main
from cloud.errors import ClinicError
from cloud.hub_watch import HubWatch
from cloud.key_backup import LIFETIME_S, create_recovery_key, delete_expired, restore_backup, write_backup
from cloud.key_store import KeyStore
from cloud.register import repeat_erasures
from cloud.store import tables as store_tables
from sync.consent import subject_tag
from tests.cloud.synthetic import START_US
from tests.cloud.test_cloud_cli import START_LIMIT_S, start_dev, wait_endpoints
from tests.cloud.test_patient_consent import Statuses
from tests.cloud.two_patients import CANARIES, NOW_S, PATIENTS, TwoPatients, records_of
from tests.databases import ON_BOTH, Databases
from tests.second_reader.clinic import Clinic as ReadClinic
from tests.second_reader.clinic import read_clinic

DATABASES = ON_BOTH


@pytest.fixture
def clinic(tmp_path: Path, databases: Databases) -> Iterator[TwoPatients]:
    """Everything is sent, opened and acknowledged."""
    clinic = TwoPatients(tmp_path, databases)
    for hub in clinic.hubs.values():
        hub.put(records_of(hub.subject))
        clinic.receive(hub)
    assert clinic.shown() == set(PATIENTS.values())
    yield clinic
    clinic.stop()
    for hub in clinic.hubs.values():
        hub.outbox.close()


@pytest.fixture
def copy(clinic: TwoPatients, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files as they were before the erasure: keys, buffers and, on SQLite, databases."""
    return shutil.copytree(tmp_path, tmp_path_factory.mktemp("copy") / "all")


def subjects_opened(read: ReadClinic) -> set[str]:
    return {PATIENTS[hub] for hub, *_ in read.records}


@pytest.mark.sqlite_only
def test_no_copy_of_the_store_opens_without_the_key_stores_copy(clinic: TwoPatients, copy: Path) -> None:
    """The second reader knows nothing of tombstones: it opens what the keys open."""
    assert subjects_opened(read_clinic(copy)) == {"patient-1", "patient-2"}
    assert clinic.erase("patient-1") == 0
    shutil.rmtree(copy / "keys")
    shutil.copytree(clinic.folder.keys, copy / "keys")
    read = read_clinic(copy)
    assert subjects_opened(read) == {"patient-2"}
    assert {PATIENTS[hub] for hub, *_ in read.refused} == {"patient-1"}
    assert set(read.refused.values()) == {"the block's key is wrapped for no recipient of its subject"}


def test_the_key_stores_backup_opens_a_copy_until_it_expires(clinic: TwoPatients, tmp_path: Path) -> None:
    create_recovery_key(tmp_path / "recovery.key", tmp_path / "recovery.pub")
    backup = tmp_path / "keys.backup"
    write_backup(backup, KeyStore(clinic.folder.keys), clinic.signing, tmp_path / "recovery.pub", NOW_S)
    clinic.stop()
    clinic.databases.back_up("blocks")
    clinic.start()
    assert clinic.erase("patient-1") == 0
    clinic.stop()
    clinic.databases.restore("blocks")
    clinic.start()

    def restore(name: str, now_s: int) -> KeyStore:
        """Restore where nothing is known of the erasure."""
        keys = KeyStore(tmp_path / name)
        restore_backup(backup, tmp_path / name, keys, tmp_path / "recovery.key", now_s=now_s)
        return keys

    (tmp_path / "in-time").mkdir()
    assert clinic.openable(restore("in-time", NOW_S + LIFETIME_S)) == {"patient-1", "patient-2"}
    with pytest.raises(ClinicError, match="may no longer be restored"):
        restore("late", NOW_S + LIFETIME_S + 1)
    assert clinic.openable(KeyStore(tmp_path / "late")) == set()
    assert (delete_expired(tmp_path, NOW_S + LIFETIME_S + 1), backup.exists()) == (1, False)


def test_a_restored_backup_does_not_bring_an_erased_subject_back(clinic: TwoPatients, tmp_path: Path) -> None:
    create_recovery_key(tmp_path / "recovery.key", tmp_path / "recovery.pub")
    backup, keys = tmp_path / "keys.backup", KeyStore(clinic.folder.keys)
    write_backup(backup, keys, clinic.signing, tmp_path / "recovery.pub", NOW_S)
    assert clinic.erase("patient-1") == 0
    restored = restore_backup(backup, clinic.folder.path, keys, tmp_path / "recovery.key", now_s=NOW_S)
    assert (restored.subjects, restored.erased, keys.subjects()) == (1, 1, ("patient-2",))


@pytest.mark.sqlite_only
def test_the_hub_is_told_and_its_files_open_nothing_of_the_subject(clinic: TwoPatients, copy: Path) -> None:
    """A copy of buffer and hub key from before the erasure opens, as long as somebody keeps it: it never leaves the hub."""
    hub, other = clinic.hubs.values()
    key_ids = {block.key for block in clinic.store.blocks_after(None, 100)}
    assert hub.openable_keys(copy / "hub-1", key_ids) > 0
    assert clinic.erase("patient-1") == 0
    hub.put(records_of("patient-1"))
    (ack, *_) = clinic.receive(hub)
    assert [outcome.reason for outcome in ack.refused] == ["erased"]
    assert hub.openable_keys(hub.folder, key_ids) == 0
    assert other.openable_keys(other.folder, key_ids) > 0
    while not hub.outbox.tidy():
        pass
    assert (hub.outbox.statistics().bytes, hub.outbox.stored_states()) == (0, [])
    hub.outbox.close()
    assert hub.openable_keys(hub.folder, key_ids) == 0
    hub.outbox = hub.open()
    hub.put(records_of("patient-1"))  # an agent that goes on is refused again
    assert all(outcome.reason == "erased" for ack in clinic.receive(hub) for outcome in ack.refused)
    assert clinic.store.count_blocks() == 3


def test_the_projections_hold_nothing_of_the_subject_also_when_rebuilt(clinic: TwoPatients) -> None:
    assert clinic.erase("patient-1") == 0
    assert clinic.shown() == {"patient-2"}
    assert main(["open", "--data", str(clinic.folder.path), *clinic.options, "--rebuild"]) == 0
    assert clinic.shown() == {"patient-2"}
    with clinic.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(tables.alerts)).scalar_one() == 1


@pytest.mark.sqlite_only
def test_no_byte_of_the_subjects_data_is_in_the_files_of_the_projections(clinic: TwoPatients) -> None:
    def words() -> list[bool]:
        content = b"".join(path.read_bytes() for path in clinic.folder.path.glob("projections.db*"))
        return [word.encode() in content for word in CANARIES.values()]

    assert words() == [True, True]
    assert clinic.erase("patient-1") == 0
    assert words() == [False, True]


@pytest.mark.sqlite_only
def test_an_erasure_beside_a_reader_of_the_log_says_so_and_can_be_repeated(
    clinic: TwoPatients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projections_database, "BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(clinic.folder.path / "projections.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM alerts").fetchone()
        assert clinic.erase("patient-1") == 1
    assert KeyStore(clinic.folder.keys).erased() - clinic.store.erased_subjects() == {"patient-1"}  # the next start repeats it
    assert clinic.erase("patient-1") == 0
    content = b"".join(path.read_bytes() for path in clinic.folder.path.glob("projections.db*"))
    assert CANARIES["patient-1"].encode() not in content
    assert clinic.store.erased_subjects() == {"patient-1"}


def test_recorded_messages_of_the_subject_are_refused(clinic: TwoPatients) -> None:
    hub = clinic.hubs["hub-1"]
    assert clinic.erase("patient-1") == 0
    n_stored = clinic.store.count_blocks()
    for message in hub.sent:
        ack = clinic.handle(message)
        assert [outcome.reason for outcome in ack.refused] == ["erased"]
        assert (ack.held, ack.keys, ack.wraps) == ((), (), ())
    assert (clinic.open_all("hub-1"), clinic.store.count_blocks(), clinic.shown()) == ([], n_stored, {"patient-2"})


def test_a_store_restored_from_before_the_erasure_does_not_bring_it_back(
    clinic: TwoPatients, caplog: pytest.LogCaptureFixture
) -> None:
    clinic.stop()
    clinic.databases.back_up("blocks")
    clinic.start()
    assert clinic.erase("patient-1") == 0
    clinic.stop()
    clinic.databases.restore("blocks")
    clinic.start()
    keys = KeyStore(clinic.folder.keys)
    assert (clinic.store.count_blocks(), clinic.store.erased_subjects()) == (6, frozenset())
    assert repeat_erasures(keys, clinic.store, clinic.engine, START_US) == ("patient-1",)
    assert (clinic.store.count_blocks(), clinic.store.erased_subjects()) == (3, {"patient-1"})
    assert "erased patient-1 again" in caplog.text
    for message in clinic.hubs["hub-1"].sent:
        assert [outcome.reason for outcome in clinic.handle(message).refused] == ["erased"]
    clinic.open_all("hub-1")
    assert clinic.shown() == {"patient-2"}
    assert repeat_erasures(keys, clinic.store, clinic.engine, START_US) == ()


@pytest.mark.parametrize("reached", ["keys", "projections"])
def test_an_interrupted_erasure_is_finished(clinic: TwoPatients, reached: str) -> None:
    keys = KeyStore(clinic.folder.keys)
    keys.destroy("patient-1")
    if reached == "projections":
        projections_database.erase_subject(clinic.engine, "patient-1")
    repeat_erasures(keys, clinic.store, clinic.engine, START_US)
    assert (clinic.store.count_blocks(), clinic.shown()) == (3, {"patient-2"})


@pytest.mark.sqlite_only
def test_the_start_of_the_clinic_erases_again_what_a_restored_store_brought_back(clinic: TwoPatients) -> None:
    clinic.stop()
    clinic.databases.back_up("blocks")
    assert clinic.erase("patient-1") == 0
    clinic.databases.restore("blocks")
    process = start_dev(clinic.folder.path, "--port", "0", "--watch-stdin")
    wait_endpoints(clinic.folder.path)
    _, error = process.communicate(timeout=START_LIMIT_S)
    assert "erased patient-1 again" in error.decode()
    clinic.start()
    assert (clinic.store.count_blocks(), clinic.shown()) == (3, {"patient-2"})


@pytest.mark.sqlite_only
def test_a_name_that_is_none_erases_nothing(clinic: TwoPatients, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert clinic.erase("../patient-1") == 1
    assert "correct --subject" in capsys.readouterr().err
    assert not (tmp_path / "patient-1").exists()
    assert clinic.store.count_blocks() == 6


def test_the_audit_log_proves_the_destruction_of_keys_here_and_at_the_hub(
    clinic: TwoPatients, capsys: pytest.CaptureFixture[str]
) -> None:
    fingerprints = KeyStore(clinic.folder.keys).fingerprints("patient-1")
    assert clinic.erase("patient-1") == 0
    hub, statuses = clinic.hubs["hub-1"], Statuses(clinic)
    hub.put(records_of("patient-1"))
    clinic.receive(hub)
    assert hub.outbox.erased_subjects == {"patient-1"}
    command = ("erasures", "--data", str(clinic.folder.path), *clinic.options)
    assert main([*command]) == 0
    assert "hub hub-1 has not confirmed it" in capsys.readouterr().out
    for _ in range(2):  # said with each status, logged once
        assert statuses.send(None, (subject_tag("hub-1", "patient-1"),)) is None
    Statuses(clinic, "hub-2").send(None, (subject_tag("hub-2", "patient-1"), subject_tag("hub-2", "patient-2")))
    assert main([*command]) == 0
    assert "hub hub-1 destroyed its keys" in (listed := capsys.readouterr().out)
    assert "hub-2" not in listed  # it never had this patient, and its own was not erased
    rows = [row for row in logged(clinic, capsys) if row["subject"] == "patient-1"]
    assert [(row["action"], row["category"], row["objects"]) for row in rows] == [
        ("destroy-key", "keys", [f"recipient:{fingerprint}" for fingerprint in fingerprints]),
        ("erase", "all-records", ["blocks:3"]),
        ("confirm-erasure", "keys", ["hub:hub-1"]),
    ]
    assert rows[-1]["actor"] == {"id": "hub-1", "role": "hub", "organisation": "main"}
    assert main(["audit", "verify", "--data", str(clinic.folder.path), *clinic.options]) == 0


def logged(clinic: TwoPatients, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["audit", "show", "--data", str(clinic.folder.path), *clinic.options, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_no_table_of_the_store_names_the_subject_but_tombstone_and_audit_log(clinic: TwoPatients, tmp_path: Path) -> None:
    """The registry still has the assignment: the watch over the hubs must not bring the name back."""
    (tmp_path / "consent.txt").write_text("I agree.\n", encoding="utf-8")
    words = ("--data", str(clinic.folder.path), *clinic.options, "--subject", "patient-1")
    assert main(["consent", "give", *words, "--text", str(tmp_path / "consent.txt")]) == 0
    watch = HubWatch(clinic.store, clinic.registry(), lambda: 0.0, lambda: START_US)
    watch.check()
    assert "hub_states" in tables_naming(clinic, "patient-1")
    assert clinic.erase("patient-1") == 0
    watch.check()
    assert tables_naming(clinic, "patient-1") == {"erased", "audit_rows"}


def tables_naming(clinic: TwoPatients, subject: str) -> set[str]:
    """The tables of the store with a row about a subject."""
    with clinic.store.transaction() as connection:
        return {
            table.name
            for table in store_tables.metadata.sorted_tables
            if "subject" in table.c and connection.execute(select(table).where(table.c.subject == subject)).first()
        }


def test_its_hub_is_assigned_to_nobody_and_others_are_as_before(
    clinic: TwoPatients, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new epoch of the hub is refused from now on; the present one is, because of the erasure."""
    others = clinic.registry().assignments("hub-2")
    assert clinic.erase("patient-1") == 0
    assert "hub hub-1 is assigned to no subject now" in capsys.readouterr().out
    (ended,) = clinic.registry().assignments("hub-1")
    assert (ended.subject, ended.to_s is None) == ("patient-1", False)
    assert clinic.registry().assignments("hub-2") == others
    assert clinic.erase("patient-1") == 0
    assert clinic.registry().assignments("hub-1") == (ended,)
    assert main(["erasures", "--data", str(clinic.folder.path), *clinic.options]) == 0
    assert "hub hub-1 has not confirmed it" in capsys.readouterr().out
