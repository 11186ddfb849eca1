"""What was kept for its time is deleted, except under a legal hold; a hold also refuses an erasure."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from cloud import retention, tables
from cloud.audit_actors import operator
from cloud.cli import main
from cloud.completeness import read_completeness
from cloud.retention import delete_expired
from cloud.store import expiry
from cloud.store import tables as store_tables
from cloud.store.stored_blocks import StoredBlockId
from tests.cloud.synthetic import START_US
from tests.cloud.test_patient_consent import command
from tests.cloud.two_patients import PATIENTS, TwoPatients, records_of, shown_subjects
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH
SUBJECT = "patient-1"
DAY_US = 86_400_000_000
LATER_US = START_US + 102 * DAY_US


@pytest.fixture
def clinic(tmp_path: Path, databases: Databases) -> Iterator[TwoPatients]:
    clinic = TwoPatients(tmp_path, databases)
    for hub in clinic.hubs.values():
        hub.put(records_of(hub.subject))
        clinic.receive(hub)
    yield clinic
    clinic.stop()
    for hub in clinic.hubs.values():
        hub.outbox.close()


def expire(clinic: TwoPatients, now_us: int = LATER_US, days: int = 100) -> int:
    return delete_expired(clinic.store, clinic.engine, days, operator(), now_us)


def count(clinic: TwoPatients, name: str) -> int:
    with clinic.store.transaction() as connection:
        table = store_tables.metadata.tables[name]
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def rows_of_projections(clinic: TwoPatients) -> int:
    with clinic.engine.connect() as connection:
        names = set(tables.metadata.tables) - {"source", "counters", "changes", "projections_revision"}
        return sum(
            connection.execute(select(func.count()).select_from(tables.metadata.tables[name])).scalar_one() for name in names
        )


def test_nothing_goes_before_its_time(clinic: TwoPatients) -> None:
    rows = rows_of_projections(clinic)
    assert expire(clinic, START_US + 100 * DAY_US) == 0
    assert (clinic.store.count_blocks(), rows_of_projections(clinic)) == (6, rows)


def test_what_is_past_its_retention_goes_from_store_and_projections(clinic: TwoPatients) -> None:
    assert expire(clinic) == 6
    assert (clinic.store.count_blocks(), rows_of_projections(clinic)) == (0, 0)
    for name in ("blocks", "work", "statements", "wrapped_keys"):
        assert count(clinic, name) == 0
    with clinic.store.transaction() as connection:
        assert read_completeness(connection).missing() == []
    assert expire(clinic) == 0


def test_what_came_later_stays_and_can_be_rebuilt(clinic: TwoPatients, monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch is old, but the clinic received its blocks lately: a hub that was away, or one with a wrong clock."""
    blocks = store_tables.blocks
    with clinic.store.transaction() as connection:
        connection.execute(blocks.update().where(blocks.c.subject == SUBJECT).values(received_us=LATER_US - DAY_US))
    monkeypatch.setattr(expiry, "PAGE_ROWS", 1)
    monkeypatch.setattr(retention, "_PAGE_SEQUENCES", 1)
    assert expire(clinic) == 3
    assert clinic.shown() == {SUBJECT}
    assert {block.hub for block in clinic.store.blocks_after(None, 10)} == {"hub-1"}
    assert count(clinic, "statements") == 1
    assert main(["open", "--data", str(clinic.folder.path), *clinic.options, "--rebuild"]) == 0
    assert clinic.shown() == {SUBJECT}


def test_the_time_begins_when_the_treatment_ends(clinic: TwoPatients) -> None:
    """Section 630f(3) of the German Civil Code: while a hub still seals for a patient, what is old is kept, too."""
    statements = store_tables.statements
    with clinic.store.transaction() as connection:
        lately = {"hub": "hub-1", "id": bytes(16), "subject": SUBJECT, "day": LATER_US // DAY_US - 99}
        connection.execute(statements.insert().values(**lately, commitment=b"", signature=b""))
    assert expire(clinic) == 3
    assert clinic.shown() == {SUBJECT}
    assert expire(clinic, LATER_US + 3 * DAY_US) == 3
    assert (clinic.shown(), count(clinic, "statements")) == (set(), 0)


def test_an_interrupted_run_is_finished_by_the_next(clinic: TwoPatients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "PAGE_ROWS", 1)
    pages = iter(range(100))
    delete_page = retention.delete_page

    def fail_at_the_fourth(*arguments: object) -> int:
        if next(pages) == 3:
            raise RuntimeError("killed")
        return delete_page(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "delete_page", fail_at_the_fourth)
    with pytest.raises(RuntimeError):
        expire(clinic)
    assert 0 < clinic.store.count_blocks() < 6
    assert expire(clinic) > 0
    assert (clinic.store.count_blocks(), rows_of_projections(clinic)) == (0, 0)


def test_a_hold_keeps_the_data_until_it_is_lifted(clinic: TwoPatients, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(clinic, "hold", "set", "--reason", "Az. 3 O 12/26") == 0
    capsys.readouterr()
    assert main(["hold", "list", "--data", str(clinic.folder.path), *clinic.options]) == 0
    assert "patient-1  since" in (listed := capsys.readouterr().out)
    assert "Az. 3 O 12/26" in listed
    assert expire(clinic) == 3
    assert (clinic.shown(), clinic.store.count_blocks()) == ({SUBJECT}, 3)
    assert clinic.openable(clinic.reader()._key_store) == {SUBJECT}
    assert command(clinic, "hold", "lift") == 0
    assert expire(clinic) == 3
    assert clinic.shown() == set()
    assert command(clinic, "hold", "lift") == 1
    assert "has no hold" in capsys.readouterr().err


def test_an_erasure_under_a_hold_is_refused_and_logged(clinic: TwoPatients, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(clinic, "hold", "set", "--reason", "Az. 3 O 12/26") == 0
    capsys.readouterr()
    assert clinic.erase(SUBJECT) == 1
    assert "under a legal hold (Az. 3 O 12/26)" in capsys.readouterr().err
    assert (clinic.shown(), clinic.store.count_blocks()) == (set(PATIENTS.values()), 6)
    assert main(["audit", "show", "--data", str(clinic.folder.path), *clinic.options, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["action"], row["outcome"]) for row in rows if row["subject"]] == [("set-hold", "done"), ("erase", "refused")]
    assert "3 O 12" not in json.dumps(rows)  # the reason is free text
    assert command(clinic, "hold", "lift") == 0
    assert clinic.erase(SUBJECT) == 0
    assert command(clinic, "hold", "set", "--reason", "too late") == 1


def test_each_subjects_deletion_is_logged_and_the_log_verifies(clinic: TwoPatients, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retention", "--data", str(clinic.folder.path), *clinic.options, "--days", "36500"]) == 0
    assert expire(clinic) == 6
    capsys.readouterr()
    assert main(["audit", "show", "--data", str(clinic.folder.path), *clinic.options, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [(row["subject"], row["objects"]) for row in rows if row["action"] == "delete-expired"]
    assert found == [(subject, ["blocks:3", "days:100"]) for subject in ("patient-1", "patient-2")]
    assert main(["audit", "verify", "--data", str(clinic.folder.path), *clinic.options]) == 0


def test_a_hold_that_is_set_during_a_run_counts(clinic: TwoPatients) -> None:
    with clinic.store.transaction() as connection:
        expired = next(row for row in expiry.list_expired(connection, LATER_US // 1_000_000) if row.subject == SUBJECT)
    assert command(clinic, "hold", "set", "--reason", "now") == 0
    with clinic.store.transaction() as connection:
        assert expiry.delete_page(connection, expired) == 0
    assert StoredBlockId(*expired[:3], 1) in {block.id for block in clinic.store.blocks_after(None, 10)}  # type: ignore[arg-type]
    assert SUBJECT in shown_subjects(clinic.engine)
