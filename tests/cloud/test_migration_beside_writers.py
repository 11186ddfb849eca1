"""Services of the version before go on writing while PostgreSQL's tables are expanded."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from cloud.databases import DatabaseLocation, try_lock_schema
from cloud.migrations import migrate, runner
from cloud.schemas import Schema
from cloud.store import Store
from cloud.store.schema import SCHEMA
from sync.errors import TransientError
from tests.clinic_testbed import Clinic
from tests.cloud.next_version import make_next_version
from tests.cloud.synthetic import START_US, heart_rate
from tests.databases import Databases
from tests.postgresql import Server

DATABASES = ("postgresql",)
N_WRITERS = 2


@pytest.fixture
def location(databases: Databases) -> DatabaseLocation:
    databases.lose("blocks")
    location = databases.location("blocks")
    Store.open(location).close()
    return location


@pytest.fixture
def upgraded(tmp_path: Path) -> Schema:
    """The store of the next version, with a new column of a table that every commit writes."""
    return make_next_version(tmp_path / "next", SCHEMA, "work", "hubs.copied_us")


class Writers:
    """Ingests of this version. Each stores one block after the other."""

    def __init__(self, clinic: Clinic, location: DatabaseLocation) -> None:
        self.written, self.errors = [0] * N_WRITERS, list[Exception]()
        self._stop, self._has_written = threading.Event(), threading.Condition()
        self._threads = [threading.Thread(target=self._write, args=(i, clinic, location)) for i in range(N_WRITERS)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            self.wait_written()
            yield
            self.wait_written()
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def wait_written(self) -> None:
        """Wait until each writer has stored another block."""
        with self._has_written:
            goal = [n + 1 for n in self.written]
            assert self._has_written.wait_for(lambda: self.errors or all(map(int.__ge__, self.written, goal)), 30)

    def _write(self, i: int, clinic: Clinic, location: DatabaseLocation) -> None:
        hub = clinic.add_hub(f"hub-{i}", f"subject-{i}")
        try:
            with closing(Store.open(location)) as store:
                while not self._stop.is_set():
                    hub.send(store, "vital", heart_rate(START_US + self.written[i], 60.0))
                    with self._has_written:
                        self.written[i] += 1
                        self._has_written.notify_all()
        except Exception as error:
            self.errors.append(error)
            raise


def read_files(connection: Connection) -> dict[str, int]:
    """The file of each table: a rewritten table has a new one."""
    query = "SELECT relname, relfilenode FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    return {row.relname: row.relfilenode for row in connection.execute(text(query))}


def test_ingests_go_on_while_their_tables_are_expanded(
    location: DatabaseLocation, clinic: Clinic, upgraded: Schema, postgresql: Server
) -> None:
    engine = postgresql.engine("blocks")
    with engine.connect() as connection:
        before = read_files(connection)
    writers = Writers(clinic, location)
    with writers.running():
        outcome = migrate(location, upgraded, may_contract=False)
        assert [step.number for step in outcome.applied] == [SCHEMA.newest + 1, SCHEMA.newest + 2]
    assert writers.errors == []
    with engine.connect() as connection:
        after = read_files(connection)
        assert {name: after[name] for name in before} == before, "a table was rewritten"
        (index,) = [index for index in inspect(connection).get_indexes("work") if index["name"] == "added_index"]
        assert index["column_names"] == ["added"]
    with closing(Store.open(location)) as store:
        assert store.count_blocks() == sum(writers.written)


def test_a_migration_lets_writers_pass_while_another_holds_the_table(
    location: DatabaseLocation, clinic: Clinic, upgraded: Schema, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long reader holds the table. Each attempt gives up after its time, and the writers behind it go on."""
    writers, pauses = Writers(clinic, location), list[float]()
    monkeypatch.setattr(runner, "LOCK_TIMEOUT_S", 0.05)
    with postgresql.engine("blocks").connect() as reader, writers.running():
        reader.execute(text("SELECT count(*) FROM work"))

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            writers.wait_written()
            if len(pauses) == 2:
                reader.rollback()

        monkeypatch.setattr(runner.time, "sleep", pause)
        migrate(location, upgraded, may_contract=False)
    assert len(pauses) >= 2
    assert writers.errors == []


def test_a_migration_ends_if_the_table_is_never_free(
    location: DatabaseLocation, upgraded: Schema, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LOCK_TIMEOUT_S", 0.001)
    monkeypatch.setattr(runner, "_ATTEMPTS", 3)
    monkeypatch.setattr(runner.time, "sleep", lambda _seconds: None)
    with postgresql.engine("blocks").connect() as reader:
        reader.execute(text("SELECT count(*) FROM work"))
        with pytest.raises(TransientError, match="in use without a pause; run the command again later"):
            migrate(location, upgraded, may_contract=False)
    assert len(migrate(location, upgraded, may_contract=False).applied) == 2


def test_an_index_that_was_left_unfinished_is_made_again(
    location: DatabaseLocation, upgraded: Schema, postgresql: Server
) -> None:
    with postgresql.engine("blocks").begin() as connection:
        connection.execute(text("CREATE INDEX added_index ON work (received_us)"))
    migrate(location, upgraded, may_contract=False)
    (index,) = [one for one in inspect(postgresql.engine("blocks")).get_indexes("work") if one["name"] == "added_index"]
    assert index["column_names"] == ["added"]


def test_two_migrations_at_a_time_are_refused(location: DatabaseLocation, upgraded: Schema, postgresql: Server) -> None:
    with postgresql.engine("blocks").connect() as other:
        assert try_lock_schema(other)
        other.commit()
        with pytest.raises(TransientError, match="another process migrates the store"):
            migrate(location, upgraded, may_contract=False)
        Store.open(location).close()
        other.invalidate()
