"""A clinic of the version before: its data keys are wrapped again, its one key pair is destroyed, its data stays readable.

`vectors/store_v1.db` and `clinic_v1.key`: three hubs; hub-3 sealed for another clinic.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cloud import projections_database, tables
from cloud.api import alert_queries, queries
from cloud.api.alert_queries import ListCursor
from cloud.cli import main
from cloud.clinic_keys import load_keys
from cloud.key_migration import migrate_keys
from cloud.migrations import migrate
from cloud.projections import project_records
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from cloud.store.schema import SCHEMA
from sync.errors import TransientError
from sync.key_files import KeyFileError
from tests.clinic_testbed import Clinic, open_all
from tests.cloud.synthetic import START_US, alert, heart_rate
from tests.cloud.test_limits import origin

VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture
def old(clinic: Clinic) -> Clinic:
    """A clinic with the files of the version before."""
    folder = clinic.folder.path
    for vector, name in (("store_v1.db", "blocks.db"), ("clinic_v1.key", "clinic.key")):
        shutil.copyfile(VECTORS / vector, folder / name)
        (folder / name).chmod(0o600)
    migrate(folder / "blocks.db", SCHEMA, may_contract=True)
    (folder / "clinic.pub").write_text("public")
    return clinic


def alert_rows(engine: Engine) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = alert_queries.list_alerts(engine, EVERY_SUBJECT, ListCursor(0))["alerts"]
    return listed


def test_data_keys_are_wrapped_again_and_the_pair_is_destroyed(
    old: Clinic, store: Store, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    migrate_keys(old.folder, store, old.key_store)
    assert not old.folder.key_1.exists()
    assert not old.folder.public_key_1.exists()
    left = {hub for hub, _, _ in store.keys_1()}
    assert left == {"hub-3"}, "only those of another clinic could not be unwrapped"
    (line,) = caplog.records
    assert f"it did not fit {len({key for _, key, _ in store.keys_1()})} keys" in line.getMessage()
    outcomes = open_all(store, engine, old)
    assert {outcome.block.hub for outcome in outcomes if outcome.error} == {"hub-3"}
    assert {outcome.block.hub for outcome in outcomes if not outcome.error} == {"hub-1", "hub-2"}


def test_what_was_recorded_before_is_marked(old: Clinic, store: Store, engine: Engine) -> None:
    migrate_keys(old.folder, store, old.key_store)
    open_all(store, engine, old)
    shown = alert_rows(engine)
    assert shown
    assert not any(row["is_proven"] for row in shown)
    sensors = queries.list_sensors(engine, EVERY_SUBJECT)
    assert any(sensor["last_data_us"] for sensor in sensors)
    assert all(sensor["unproven_until_us"] >= sensor["last_data_us"] for sensor in sensors if sensor["last_data_us"])


def test_a_crash_before_the_pair_is_destroyed_is_made_up_for(
    old: Clinic, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, calls = store.add_wrapped, iter([False, True])

    def crash_at_the_second(hub: str, wrapped: Any) -> None:
        if next(calls, False):
            raise TransientError("crashed")
        genuine(hub, wrapped)

    n_before = len(store.keys_1())
    with monkeypatch.context() as patched:
        patched.setattr(store, "add_wrapped", crash_at_the_second)
        with pytest.raises(TransientError, match="crashed"):
            migrate_keys(old.folder, store, old.key_store)
    assert old.folder.key_1.exists()
    assert len(store.keys_1()) == n_before - 1
    migrate_keys(old.folder, store, old.key_store)
    assert not old.folder.key_1.exists()
    assert {hub for hub, _, _ in store.keys_1()} == {"hub-3"}


def test_the_pair_of_a_file_that_others_can_read_is_not_used(old: Clinic, store: Store) -> None:
    old.folder.key_1.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        migrate_keys(old.folder, store, old.key_store)
    assert old.folder.key_1.exists()


def test_a_start_of_the_clinic_migrates_its_keys(old: Clinic, store: Store) -> None:
    load_keys(old.folder, store)
    assert not old.folder.key_1.exists()


def test_open_reads_the_store_of_the_version_before(old: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["open", "--data", str(old.folder.path), "--json"]) == 1
    output = capsys.readouterr()
    assert "could not be opened" in output.err
    assert '"is_proven":false' in output.out.splitlines()[0]
    assert not old.folder.key_1.exists()


def test_erasing_a_subject_deletes_its_keys_of_format_1(old: Clinic, store: Store) -> None:
    migrate_keys(old.folder, store, old.key_store)
    blocks = store.blocks_after(None, 1000)
    assert any(store.wrapped_keys(block.hub, block.key) for block in blocks)
    for subject in old.key_store.subjects():
        store.erase(subject, START_US)
    assert not any(store.wrapped_keys(block.hub, block.key) for block in blocks)


def test_a_record_of_a_signed_block_does_not_prove_what_came_before(engine: Engine) -> None:
    """An alert that began before the update and ended after it, in either order of arrival."""
    before, after = alert(id="a"), alert(id="a", end_us=START_US + 9)
    with engine.begin() as connection:
        project_records(connection, _origin(1, is_proven=False), [before])
        project_records(connection, _origin(2), [after, alert(id="b")])
    assert {row["id"]: row["is_proven"] for row in alert_rows(engine)} == {"a": False, "b": True}
    with engine.begin() as connection:
        projections_database.empty_tables(connection)
        project_records(connection, _origin(2), [after, alert(id="b")])
        project_records(connection, _origin(1, is_proven=False), [before])
    assert {row["id"]: row["is_proven"] for row in alert_rows(engine)} == {"a": False, "b": True}


def test_the_page_says_until_when_the_origin_of_a_sensors_data_is_not_proven(engine: Engine) -> None:
    with engine.begin() as connection:
        for seq, (at_us, is_proven) in enumerate(((START_US, False), (START_US + 5, True), (START_US - 5, False)), 1):
            project_records(connection, _origin(seq, is_proven=is_proven), [heart_rate(at_us, 60.0)])
        project_records(connection, _origin(9), [heart_rate(START_US, 60.0, sensor="strap-2")])
        found = connection.execute(select(tables.sensors.c.sensor, tables.sensors.c.unproven_until_us)).all()
    assert dict(tuple(row) for row in found) == {"strap-1": START_US, "strap-2": None}


def _origin(seq: int, *, is_proven: bool = True) -> Any:
    return replace(origin(seq), is_proven=is_proven)
