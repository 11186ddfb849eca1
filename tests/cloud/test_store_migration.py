"""A store of schema 1, made by the version before: nothing of it is lost or shown twice.

`vectors/store_v1.db`, `projections_v4.db`, `clinic_v1.key`: three hubs; hub-3 seals for another clinic. hub-1 has sent a block
with the id of another one, and bytes that are no block. Its last block lies beyond a gap and had not been opened yet.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, select

from cloud import store_tables, tables
from cloud.api import queries
from cloud.changes import SensorKey
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from cloud.stored_blocks import StoreCounts, StoredBlockId
from cloud.tables import open_projections
from sync.errors import PermanentError
from sync.seal import ClinicKeyPair, parse_header
from sync.wire import BlockId, Mark
from tests.cloud.synthetic import START_US, open_all

VECTORS = Path(__file__).parent / "vectors"
FILES = {"store_v1.db": "blocks.db", "projections_v4.db": "projections.db", "clinic_v1.key": "clinic.key"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for vector, name in FILES.items():
        shutil.copyfile(VECTORS / vector, tmp_path / name)
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with closing(Store.open(folder / "blocks.db")) as store:
        yield store


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as old:
        return old.execute(query).fetchall()


def test_keeps_every_block_key_mark_and_quarantined_block(store: Store) -> None:
    old = VECTORS / "store_v1.db"
    blocks = store.blocks_after(None, 1000)
    assert [(*block.id, block.key, block.block, block.received_us) for block in blocks] == rows(
        old, 'SELECT hub, epoch, lane, seq, "key", block, received_us FROM blocks ORDER BY hub, epoch, lane, seq'
    )
    assert len(blocks) == 17
    for hub, key, wrapped in rows(old, "SELECT hub, id, wrapped FROM keys"):
        assert store.wrapped_key(hub, key) == wrapped
    assert [(block.reason, block.bytes) for block in store.list_quarantined()] == rows(
        old, "SELECT reason, bytes FROM quarantine ORDER BY id"
    )
    assert store.counts() == StoreCounts(stored=17, quarantined=2, conflicts=1, key_conflicts=0)
    assert store.advance_mark("hub-1", "vital", 1) == Mark("vital", 1, 4)


def test_an_old_block_that_comes_again_is_held(store: Store) -> None:
    (block,) = store.blocks_by_id([StoredBlockId("hub-1", 1, "vital", 1)])
    result = store.commit("hub-1", [], [(parse_header(block.block), block.block)], START_US)
    assert (result.new, result.held) == (0, (BlockId("vital", 1, 1),))


def test_shows_every_old_block_once(folder: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    engine = open_projections(folder / "projections.db")
    keys = ClinicKeyPair.load(folder / "clinic.key")
    for _ in range(2):
        open_all(store, engine, keys)
        counters = queries.read_counters(engine, EVERY_SUBJECT)
        assert counters["blocks"] == {"opened": 12, "unopened": 5, "unopened_reasons": {"no key": 5}}
        assert (counters["alerts"], counters["samples"]) == (2, 130)
        values = queries.read_vitals(
            engine, EVERY_SUBJECT, SensorKey("subject-1", "hub-1", "strap-1"), "heart_rate", 0, 2 * START_US
        )
        assert sorted(row["value"] for row in values["vitals"]) == [60.0, 61.0, 62.0, 63.0, 69.0]
    with engine.connect() as connection:
        assert len(connection.execute(select(tables.opened)).all()) == 12
    engine.dispose()
    assert "projections.db was made by another version of pulsegate" in caplog.text
    assert "lost or restored" not in caplog.text


def test_a_migrated_store_has_the_tables_of_a_new_one(folder: Path, store: Store) -> None:
    Store.open(folder / "new.db").close()
    schemas = []
    for name in ("blocks.db", "new.db"):
        engine = create_engine(f"sqlite:///{folder / name}")
        inspector = inspect(engine)
        schemas.append(
            {
                table: (str(inspector.get_columns(table)), inspector.get_pk_constraint(table), inspector.get_indexes(table))
                for table in inspector.get_table_names()
            }
        )
        engine.dispose()
    assert schemas[0] == schemas[1]


def test_a_failed_migration_leaves_the_old_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise PermanentError("crashed")

    with monkeypatch.context() as patched:
        patched.setattr(store_tables, "add_all_work", crash)
        with pytest.raises(PermanentError, match="crashed"):
            Store.open(folder / "blocks.db")
    assert rows(folder / "blocks.db", "SELECT version FROM schema_version") == [(1,)]
    assert len(rows(folder / "blocks.db", "SELECT id FROM blocks")) == 17
    with closing(Store.open(folder / "blocks.db")) as store:
        assert store.count_blocks() == 17
