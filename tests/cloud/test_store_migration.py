"""Stores of schema 1, 2, 3 and 5, made by those versions: nothing of them is lost.

`vectors/store_v1.db` has three hubs; hub-3 seals for another clinic. hub-1 has sent a block with the id of another one, and
bytes that are no block. `store_v2.db` is the same store, migrated by version 2, with a hub-4: a conflicting block and wrapped
key, and two blocks that had not been opened. `clinic_v1.key` opens the blocks of both. `schema_2_postgresql.sql` creates the
tables of schema 2 on PostgreSQL. `store_v5.db` has blocks of two hubs, an alarm and audit rows; likewise
`schema_5_postgresql.sql`.
"""

import hashlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, inspect, text

from cloud.databases import DatabaseLocation
from cloud.migrations import migrate
from cloud.store import Store
from cloud.store import tables as store_tables
from cloud.store.commands import StoredCommand, add_command, list_commands
from cloud.store.schema import SCHEMA
from cloud.store.stored_blocks import StoreCounts
from sync.errors import PermanentError
from sync.format_1 import blocks as format_1
from sync.format_1.blocks import ClinicKeyPair1, open_block, parse_header
from sync.seal import SealError
from tests.clinic_testbed import Hub
from tests.cloud.old_stores import VECTORS, create_tables
from tests.cloud.synthetic import START_US, heart_rate
from tests.databases import ON_BOTH, Databases, SqliteDatabases
from tests.postgresql import Server

COUNTS = {
    "store_v1.db": StoreCounts(stored=17, quarantined=2, conflicts=1),
    "store_v2.db": StoreCounts(stored=21, quarantined=3, conflicts=2, key_conflicts=1),
}
DATABASES = ON_BOTH


@pytest.fixture(params=COUNTS)
def vector(request: pytest.FixtureRequest, databases: Databases) -> str:
    if request.param == "store_v1.db" and not isinstance(databases, SqliteDatabases):
        return "store_v2.db"  # schema 1 was on SQLite only
    return str(request.param)


@pytest.fixture
def old(request: pytest.FixtureRequest, databases: Databases, vector: str) -> DatabaseLocation:
    """The location of a store that has the content of `vector`."""
    return put_back(request, databases, vector, "schema_2_postgresql.sql")


def put_back(request: pytest.FixtureRequest, databases: Databases, vector: str, schema: str) -> DatabaseLocation:
    """Make a store with the content of a file, on PostgreSQL with the tables of `schema`."""
    location = databases.location("blocks")
    if isinstance(location, Path):
        shutil.copyfile(VECTORS / vector, location)
        return location
    databases.lose("blocks")
    server: Server = request.getfixturevalue("postgresql")
    with server.engine("blocks").begin() as connection:
        create_tables(connection, schema)
        for table in inspect(connection).get_table_names():
            if table == "blocks_default":  # a partition: its rows come with those of `blocks`
                continue
            kinds = {column["name"]: str(column["type"]) for column in inspect(connection).get_columns(table)}
            for row in rows(VECTORS / vector, f"SELECT * FROM {table}"):  # noqa: S608
                values = {
                    name: bool(value) if kinds[name] == "BOOLEAN" else value for name, value in zip(kinds, row, strict=True)
                }
                names, places = ", ".join(kinds), ", ".join(f":{name}" for name in kinds)
                connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)  # noqa: S608
    return location


def test_a_store_of_schema_5_keeps_its_rows_and_gets_the_table_of_commands(
    request: pytest.FixtureRequest, databases: Databases
) -> None:
    vector = VECTORS / "store_v5.db"
    kept = ("blocks", "work", "statements", "hub_states", "hub_alarms", "audit_rows", "audit_log", "marks", "state")
    queries = {table: f"SELECT {list_columns(vector, table)} FROM {table}" for table in kept}  # noqa: S608
    before = {table: rows(vector, query) for table, query in queries.items()}
    location = put_back(request, databases, vector.name, "schema_5_postgresql.sql")
    migrate(location, SCHEMA, may_contract=False)
    with closing(Store.open(location)) as store:
        after = {table: select(store, query) for table, query in queries.items()}
        assert {table: sorted(found) for table, found in after.items()} == {
            table: sorted(found) for table, found in before.items()
        }
        assert [len(before[table]) for table in ("blocks", "hub_alarms", "audit_rows")] == [5, 1, 2]
        command = StoredCommand("hub-1", 7, "restart", None, 1, 2, b"payload", "uid-1000", request="a" * 32)
        with store.transaction() as connection:
            add_command(connection, command)
            assert list_commands(connection) == [command]


@pytest.fixture
def store(old: DatabaseLocation) -> Iterator[Store]:
    migrate(old, SCHEMA, may_contract=True)
    with closing(Store.open(old)) as store:
        yield store


def list_columns(vector: Path, table: str) -> str:
    return ", ".join(f'"{name}"' for (name,) in rows(vector, f"SELECT name FROM pragma_table_info('{table}')"))  # noqa: S608


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as old:
        return old.execute(query).fetchall()


def select(store: Store, query: str) -> list[tuple[Any, ...]]:
    with store.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_keeps_every_block_key_and_quarantined_block(store: Store, vector: str) -> None:
    old = VECTORS / vector
    blocks = store.blocks_after(None, 1000)
    assert [(*block.id, block.key, block.block, block.received_us) for block in blocks] == rows(
        old, 'SELECT hub, epoch, lane, seq, "key", block, received_us FROM blocks ORDER BY hub, epoch, lane, seq'
    )
    assert select(store, "SELECT subject, digest FROM blocks ORDER BY hub, epoch, lane, seq") == [
        (parse_header(block.block).subject, hashlib.sha256(block.block).digest()) for block in blocks
    ]
    for hub, key, wrapped in rows(old, "SELECT hub, id, wrapped FROM keys"):
        assert (store.key_1(hub, key), store.wrapped_keys(hub, key)) == (wrapped, [])
    assert [(block.reason, block.bytes) for block in store.list_quarantined()] == rows(
        old, "SELECT reason, bytes FROM quarantine ORDER BY id"
    )
    assert store.counts() == COUNTS[vector]


def test_every_old_block_opens_with_the_old_key(store: Store, tmp_path: Path) -> None:
    shutil.copyfile(VECTORS / "clinic_v1.key", tmp_path / "clinic.key")
    (tmp_path / "clinic.key").chmod(0o600)
    private = ClinicKeyPair1.load(tmp_path / "clinic.key")
    opened = 0
    for block in store.blocks_after(None, 1000):
        wrapped = store.key_1(block.hub, block.key)
        assert wrapped is not None
        if block.hub != "hub-3":
            subject = parse_header(block.block).subject
            opened += bool(open_block(block.block, private.unwrap(wrapped, key_id=block.key, hub=block.hub, subject=subject)))
    assert opened == store.count_blocks() - 5


def test_what_was_work_is_work_and_the_store_keeps_its_id(store: Store, vector: str) -> None:
    work = select(store, "SELECT hub, epoch, lane, seq, is_alert, received_us FROM work ORDER BY hub, epoch, lane, seq")
    if vector == "store_v1.db":  # it had no work rows; its projections are rebuilt
        assert len(work) == 17
        return
    assert work == rows(VECTORS / vector, "SELECT * FROM work ORDER BY hub, epoch, lane, seq")
    assert len(work) == 2
    same = "store_id, commits, projections_id, batches"
    assert select(store, f"SELECT {same}, fence FROM state") == [  # noqa: S608
        (*row, 1)
        for row in rows(VECTORS / vector, f"SELECT {same} FROM state")  # noqa: S608
    ]
    assert select(store, "SELECT hub, id, bytes FROM rejected_keys") == rows(
        VECTORS / vector, "SELECT hub, id, wrapped FROM rejected_keys"
    )


def test_a_migrated_store_can_be_erased(store: Store) -> None:
    blocks = Counter(parse_header(block.block).subject for block in store.blocks_after(None, 1000))
    for subject in sorted(blocks):
        store.erase(subject, 0)
        del blocks[subject]
        assert store.count_blocks() == blocks.total()
    assert [select(store, f"SELECT count(*) FROM {table}") for table in ("blocks", "keys_1", "work", "rejected_keys")] == [  # noqa: S608
        [(0,)]
    ] * 4
    assert store.counts()._replace(quarantined=0) == StoreCounts()


@pytest.mark.sqlite_only
def test_a_store_of_schema_3_keeps_its_rows_and_gets_the_tables_of_hubs(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    shutil.copyfile(VECTORS / "store_v3.db", path)
    before = rows(path, "SELECT * FROM blocks ORDER BY hub, epoch, lane, seq")
    assert [step.number for step in migrate(path, SCHEMA, may_contract=False).applied] == list(range(4, SCHEMA.newest + 1))
    with closing(Store.open(path)) as store:
        assert select(store, "SELECT * FROM blocks ORDER BY hub, epoch, lane, seq") == before
        assert len(before) == 12
        assert select(store, "SELECT count(*) FROM work") == [(12,)]
        assert select(store, "SELECT version FROM schema_version") == [(3,)], "programs of schema 3 can use it"
        assert select(store, "SELECT count(*) FROM hub_states") + select(store, "SELECT count(*) FROM hub_alarms") == [
            (0,),
            (0,),
        ]


def test_work_of_a_store_of_schema_6_is_backlog(databases: Databases, hub: Hub) -> None:
    location = databases.location("blocks")
    with closing(Store.open(location)) as store:
        hub.send(store, "vital", heart_rate(START_US, 60.0))
        with store.transaction() as connection:
            for statement in (
                "DROP INDEX work_by_urgency",
                "ALTER TABLE work DROP COLUMN is_live",
                *(f"DROP TABLE {table}" for table in ("erased_hubs", "consents", "consent_texts", "holds")),
                "UPDATE store_revision SET version_num = '0006'",
            ):
                connection.execute(text(statement))
    assert [step.number for step in migrate(location, SCHEMA, may_contract=False).applied] == [7, 8, 9]
    with closing(Store.open(location)) as store:
        hub.send(store, "vital", heart_rate(START_US, 61.0))
        assert select(store, "SELECT seq, is_live FROM work ORDER BY seq") == [(1, False), (2, True)]


def test_a_block_can_be_quarantined_after_the_migration(store: Store) -> None:
    """PostgreSQL numbers the next row after those that were copied."""
    with store.transaction() as connection:
        last = connection.execute(text("SELECT max(id) FROM quarantine")).scalar_one()
        values = {"hub": "hub-1", "reason": "test", "digest": b"new", "bytes": b"new", "received_us": 1}
        added = connection.execute(store_tables.quarantine.insert().values(**values))
    assert added.inserted_primary_key is not None
    assert added.inserted_primary_key.id > last


def test_a_failed_migration_leaves_the_old_store(old: DatabaseLocation, vector: str) -> None:
    def crash(*arguments: Any) -> None:
        if arguments[2].startswith("INSERT INTO state"):
            raise PermanentError("crashed")

    event.listen(Engine, "before_cursor_execute", crash)
    try:
        with pytest.raises(PermanentError, match="crashed"):
            migrate(old, SCHEMA, may_contract=True)
    finally:
        event.remove(Engine, "before_cursor_execute", crash)
    if isinstance(old, Path):
        assert rows(old, "SELECT version FROM schema_version") == rows(VECTORS / vector, "SELECT version FROM schema_version")
        assert rows(old, "SELECT * FROM blocks") == rows(VECTORS / vector, "SELECT * FROM blocks")
    migrate(old, SCHEMA, may_contract=True)
    with closing(Store.open(old)) as store:
        assert store.counts() == COUNTS[vector]


def test_a_block_whose_header_cannot_be_read_is_kept(old: DatabaseLocation, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_block: bytes) -> None:
        raise SealError("damaged")

    monkeypatch.setattr(format_1, "parse_header", fail)
    migrate(old, SCHEMA, may_contract=True)
    with closing(Store.open(old)) as store:
        assert select(store, "SELECT DISTINCT subject FROM blocks") == [("?",)]
