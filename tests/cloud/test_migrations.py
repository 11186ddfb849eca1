"""Migrations of both databases: after an expand revision the version before goes on, after a contract one it is refused."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, update

from cloud import projections_database, tables
from cloud.cli import main
from cloud.databases import DatabaseLocation, open_postgresql
from cloud.dev import migrate_if_needed
from cloud.folder import ClinicFolder
from cloud.migrations import migrate
from cloud.projections_database import open_projections
from cloud.schemas import OlderSchemaError, Schema
from cloud.store import Store
from cloud.store import tables as store_tables
from cloud.store.schema import SCHEMA
from sync.errors import PermanentError
from tests.cloud.next_version import make_next_version
from tests.cloud.old_stores import VECTORS, create_tables
from tests.databases import METADATA, ON_BOTH, Databases
from tests.postgresql import Server

_CHANGE: Final = re.compile("(CREATE|ALTER|DROP|TRUNCATE|DELETE|UPDATE|LOCK) (?!schema_version)")
DATABASES = ON_BOTH
SCHEMAS: Final = {"blocks": SCHEMA, "projections": projections_database.SCHEMA}


@pytest.fixture
def upgraded(tmp_path: Path) -> Schema:
    """The store of the next version."""
    return make_next_version(tmp_path / "next", SCHEMA, "work", "hubs.copied_us")


@contextmanager
def engine_of(databases: Databases, name: str) -> Iterator[Engine]:
    location = databases.location(name)
    engine = create_engine(f"sqlite:///{location}") if isinstance(location, Path) else open_postgresql(location, 5)
    try:
        yield engine
    finally:
        engine.dispose()


def create(databases: Databases, name: str) -> DatabaseLocation:
    """A new database, as this version makes it."""
    databases.lose(name)
    location = databases.location(name)
    if name == "blocks":
        Store.open(location).close()
    else:
        open_projections(location).dispose()
    return location


def make_old_store(databases: Databases, request: pytest.FixtureRequest) -> DatabaseLocation:
    """A store of schema 2."""
    location = databases.location("blocks")
    if isinstance(location, Path):
        shutil.copyfile(VECTORS / "store_v2.db", location)
        return location
    databases.lose("blocks")
    server: Server = request.getfixturevalue("postgresql")
    with server.engine("blocks").begin() as connection:
        create_tables(connection, "schema_2_postgresql.sql")
        connection.exec_driver_sql("INSERT INTO schema_version VALUES (2)")
        zeros = ", ".join(["0"] * 5)
        connection.exec_driver_sql(f"INSERT INTO state VALUES ('\\x01', {zeros}, NULL, 0)")  # noqa: S608
    return location


def describe_index(index: Any) -> str:
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}  # an object, for a condition
    return str(sorted({**index, "dialect_options": options}.items()))


def describe_tables(connection: Connection) -> dict[str, Any]:
    """Everything that the database says of its tables, with the names of indexes and constraints."""
    inspector = inspect(connection)
    return {
        table: (
            str(inspector.get_columns(table)),
            str(inspector.get_pk_constraint(table)),
            sorted(describe_index(index) for index in inspector.get_indexes(table)),
            sorted(map(str, inspector.get_unique_constraints(table))),
        )
        for table in inspector.get_table_names()
    }


def is_compared(_object: object, name: str | None, kind: str, _is_reflected: bool, _other: object) -> bool:
    return not (kind == "table" and name is not None and name.startswith("blocks_"))  # partitions


def find_differences(connection: Connection, name: str) -> list[Any]:
    """What alembic would change in the database to get today's tables."""
    options = {
        "version_table": SCHEMAS[name].revisions.name,
        "compare_server_default": True,
        "include_object": is_compared,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA[name]))


def test_a_migrated_store_is_the_same_as_a_new_one(databases: Databases, request: pytest.FixtureRequest) -> None:
    migrate(make_old_store(databases, request), SCHEMA, may_contract=True)
    with engine_of(databases, "blocks") as engine, engine.connect() as connection:
        assert find_differences(connection, "blocks") == []
        migrated = describe_tables(connection)
    create(databases, "blocks")
    with engine_of(databases, "blocks") as engine, engine.connect() as connection:
        assert find_differences(connection, "blocks") == []
        assert describe_tables(connection) == migrated
        connection.exec_driver_sql("ALTER TABLE work ADD COLUMN other BIGINT")
        assert [difference[0] for difference in find_differences(connection, "blocks")] == ["remove_column"]


def test_new_projections_are_as_alembic_expects(databases: Databases) -> None:
    location = create(databases, "projections")
    with engine_of(databases, "projections") as engine, engine.connect() as connection:
        assert find_differences(connection, "projections") == []
    assert migrate(location, projections_database.SCHEMA, may_contract=True).applied == ()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_program_knows_the_kind_of_each_revision(name: str) -> None:
    schema = SCHEMAS[name]
    kinds: dict[int, str] = {}
    for path in schema.folder.glob("r*.py"):
        source = path.read_text(encoding="utf-8")
        (number,) = re.findall(r'^revision = "(\d{4})"$', source, re.MULTILINE)
        (kinds[int(number)],) = re.findall(r'^kind = "(.*)"$', source, re.MULTILINE)
        assert path.name.startswith(f"r{number}_")
        assert not re.search(r"^from cloud(\.store)?(\.tables)? import .*tables", source, re.MULTILINE), "tables of today"
    assert sorted(kinds) == list(range(schema.first, schema.newest + 1))
    assert {number for number, kind in kinds.items() if kind == "contract"} == schema.contracts
    assert set(kinds.values()) <= {"expand", "contract"}


def test_expand_revisions_only_add(databases: Databases, request: pytest.FixtureRequest) -> None:
    """A new index of a table that exists is created beside its writers."""
    location, statements = make_old_store(databases, request), list[str]()

    def note(*arguments: Any) -> None:
        statements.append(arguments[2].strip())

    event.listen(Engine, "before_cursor_execute", note)
    try:
        migrate(location, SCHEMA, may_contract=True)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    number, new, n_checked = 2, set[str](), 0
    for statement in (re.sub(r"\s+", " ", one) for one in statements):
        if re.match(r"UPDATE store_revision SET", statement):
            number, new = number + 1, set()
        elif number + 1 not in SCHEMA.contracts and _CHANGE.match(statement):
            n_checked += 1
            if created := re.match(r"CREATE TABLE (\w+)", statement):
                new.add(created[1])
            elif index := re.match(r"CREATE (?:UNIQUE )?INDEX \w+ ON (\w+)", statement):
                may_lock = isinstance(location, Path) or index[1] in new  # nobody else writes to a file that is migrated
                assert may_lock, f"{statement} locks out the writers of {index[1]}"
            else:
                allowed = r"ALTER TABLE \w+ ADD COLUMN|CREATE (UNIQUE )?INDEX CONCURRENTLY|DROP INDEX CONCURRENTLY IF EXISTS"
                assert re.match(allowed, statement), statement
    assert number == SCHEMA.newest
    assert n_checked >= 7


def test_services_of_the_version_before_go_on_until_a_contract_revision(databases: Databases, upgraded: Schema) -> None:
    location = create(databases, "blocks")
    with engine_of(databases, "blocks") as engine:
        with pytest.raises(OlderSchemaError, match=rf"schema {SCHEMA.newest}, .*run `pulsegate-cloud migrate`$"):
            upgraded.create_or_check(engine, location)
        outcome = migrate(location, upgraded, may_contract=False)
        assert [step.is_contract for step in outcome.applied + outcome.left] == [False, False, True]
        upgraded.create_or_check(engine, location)
        Store.open(location).close()
        assert migrate(location, upgraded, may_contract=True).applied == outcome.left
        upgraded.create_or_check(engine, location)
        with pytest.raises(PermanentError, match=rf"newer pulsegate \(schema {upgraded.newest}.*update pulsegate"):
            Store.open(location)
        with pytest.raises(PermanentError, match="newer pulsegate"):
            migrate(location, SCHEMA, may_contract=True)
        following = replace(upgraded, newest=upgraded.newest + 1)
        with pytest.raises(OlderSchemaError, match=r"run `pulsegate-cloud migrate`$"):
            following.create_or_check(engine, location)


def test_a_skipped_contract_revision_is_named(databases: Databases, upgraded: Schema) -> None:
    """The version after the next needs it: every older program must stop first."""
    location, following = create(databases, "blocks"), replace(upgraded, newest=upgraded.newest + 1)
    migrate(location, upgraded, may_contract=False)
    with engine_of(databases, "blocks") as engine, pytest.raises(OlderSchemaError, match=r"stop every.*--contract`$"):
        following.create_or_check(engine, location)


def test_projections_are_not_emptied_by_either_version(databases: Databases, tmp_path: Path) -> None:
    location = create(databases, "projections")
    following = make_next_version(tmp_path / "next", projections_database.SCHEMA, "vitals", "intervals.ticks")
    with engine_of(databases, "projections") as engine:
        ids = []
        for may_contract in (False, True):
            migrate(location, following, may_contract=may_contract)
            following.create_or_check(engine, location)
            with engine.connect() as connection:
                ids.append(connection.execute(select(tables.source.c.id)).scalar_one())
            if not may_contract:
                open_projections(location).dispose()
        assert ids[0] == ids[1]
        with pytest.raises(PermanentError, match=r"newer pulsegate.*update pulsegate"):
            open_projections(location)


def test_projections_of_an_older_version_are_emptied_by_a_migration_only(databases: Databases) -> None:
    location = create(databases, "projections")
    with engine_of(databases, "projections") as engine:
        with engine.begin() as connection:
            tables.revisions.drop(connection)
            connection.execute(update(tables.source).values(schema=8))
            connection.execute(tables.counters.insert().values(name="revision", value=3))
        with pytest.raises(
            OlderSchemaError,
            match=rf"projections .*schema 8, this one needs {projections_database.SCHEMA.needed}.*--contract`$",
        ):
            open_projections(location)
        outcome = migrate(location, projections_database.SCHEMA, may_contract=False)
        assert (len(outcome.applied), len(outcome.left)) == (0, 1)
        migrate(location, projections_database.SCHEMA, may_contract=True)
        open_projections(location).dispose()
        with engine.connect() as connection:
            assert connection.execute(select(tables.counters)).all() == []
            assert find_differences(connection, "projections") == []


def test_a_store_of_the_last_program_without_revisions_is_stamped_at_its_first_start(databases: Databases) -> None:
    location = create(databases, "blocks")
    with engine_of(databases, "blocks") as engine:
        with engine.begin() as connection:
            store_tables.revisions.drop(connection)
            connection.execute(update(store_tables.schema).values(version=SCHEMA.newest))
        Store.open(location).close()
        with engine.connect() as connection:
            assert connection.execute(select(store_tables.revisions)).scalar_one() == f"{SCHEMA.newest:04}"
    assert migrate(location, SCHEMA, may_contract=True).applied == ()


def test_a_folder_is_migrated_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(VECTORS / "store_v2.db", tmp_path / "blocks.db")
    assert main(["open", "--data", str(tmp_path)]) == 1
    assert "schema 2, this one needs" in capsys.readouterr().err
    assert main(["migrate", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "left    store 3 (contract): Copy blocks and keys into the tables of format 2."
    )
    assert main(["migrate", "--data", str(tmp_path), "--contract"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:15] for line in lines] == [f"applied store {number}" for number in range(3, SCHEMA.newest + 1)]
    assert main(["migrate", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing to migrate\n"
    Store.open(tmp_path / "blocks.db").close()


def test_the_command_creates_no_store_by_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--data", str(tmp_path)]) == 1
    assert "no store in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_clinic_in_one_process_migrates_by_itself(tmp_path: Path) -> None:
    for vector, name in (("store_v1.db", "blocks.db"), ("projections_v4.db", "projections.db")):
        shutil.copyfile(VECTORS / vector, tmp_path / name)
    migrate_if_needed(ClinicFolder(tmp_path))
    with closing(Store.open(tmp_path / "blocks.db")) as store:
        assert store.count_blocks() == 17
    engine = open_projections(tmp_path / "projections.db")
    with engine.connect() as connection:
        assert connection.execute(select(tables.vitals)).all() == []
    engine.dispose()


def test_only_a_migration_imports_alembic(tmp_path: Path) -> None:
    """It takes as long as the database's library: a demo starts without it."""
    program = (
        "import sys; from pathlib import Path; from cloud.folder import ClinicFolder; import cloud.cli, cloud.services\n"
        "from cloud.dev import migrate_if_needed\n"
        "for _ in range(2): migrate_if_needed(ClinicFolder(Path(sys.argv[1])))\n"
        "print([name for name in sys.modules if name.startswith(('alembic', 'mako'))])"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
