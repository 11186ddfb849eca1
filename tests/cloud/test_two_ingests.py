"""Several ingests and openers on one PostgreSQL: each block is opened, also one whose transaction commits late, and once."""

import asyncio
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError

from cloud import change_log, projections, tables, work
from cloud.api.feed import Feed
from cloud.changes import SENSOR, BatchChanges, Change
from cloud.databases import snapshot
from cloud.projections_database import open_projections
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from cloud.store.commit import insert_blocks
from cloud.store.commit_counts import count_commit
from cloud.store.commit_keys import insert_statements, insert_wrapped_keys
from cloud.store.partitions import create_partitions
from cloud.store.stored_blocks import NewBlock, StoreCounts
from sync.chain import block_digest
from sync.errors import TransientError
from sync.seal import parse_header
from sync.wire import BlockId
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, alert, heart_rate
from tests.databases import Databases
from tests.postgresql import Server

DATABASES = ("postgresql",)
"""SQLite has one writer at a time, so no row can be committed before an older one."""
BLOCKS = 150


@pytest.fixture
def hubs(clinic: Clinic) -> list[Hub]:
    return [clinic.add_hub(f"hub-{n}") for n in range(2)]


def insert(connection: Connection, hub: Hub, block: bytes) -> int:
    """Insert a block and its key as `Store.commit` does; returns the number of new blocks."""
    header = parse_header(block)
    insert_statements(connection, [(hub.name, hub.statement)], START_US)
    insert_wrapped_keys(connection, [(hub.name, hub.wrapped)], START_US)
    position = BlockId(header.lane, header.epoch, header.seq)
    new = NewBlock(position, header.subject, header.key, block_digest(block), block)
    return len(insert_blocks(connection, [(hub.name, new)], START_US))


def opened(engine: Engine) -> list[tuple[str, int]]:
    columns = tables.opened.c
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(columns.hub, columns.seq).order_by(columns.hub, columns.seq))]


def test_a_block_that_commits_after_a_later_one_was_opened_is_opened_too(
    databases: Databases, store: Store, engine: Engine, hubs: list[Hub], clinic: Clinic
) -> None:
    """The first ingest inserts first, so its rows would have the lower ids. A cursor would have passed them."""
    slow, fast = hubs
    with store.transaction() as connection:
        create_partitions(connection, START_US)  # it waits for transactions that use blocks
    with closing(Store.open(databases.location("blocks"))) as other:
        with store.transaction() as connection:
            assert insert(connection, slow, slow.seal_records("vital", heart_rate(START_US, 60.0))) == 1
            fast.send(other, "vital", heart_rate(START_US, 61.0), received_us=START_US + 1)
            open_all(other, engine, clinic)
            assert opened(engine) == [("hub-1", 1)]
        open_all(other, engine, clinic)
    assert opened(engine) == [("hub-0", 1), ("hub-1", 1)]


def test_two_openers_take_different_blocks(store: Store, hubs: list[Hub]) -> None:
    for second in range(6):
        hubs[0].send(store, "vital", heart_rate(START_US + second, 60.0))
    with store.transaction() as one, store.transaction() as other:
        taken = [[block.position.seq for block in work.take_blocks(connection, 4)] for connection in (one, other)]
    assert taken == [[1, 2, 3, 4], [5, 6]]


def test_every_block_of_two_ingests_and_two_openers_is_opened_once(
    databases: Databases, store: Store, engine: Engine, hubs: list[Hub], clinic: Clinic
) -> None:
    failures: list[BaseException] = []

    def ingest(hub: Hub) -> None:
        """Commit messages of three blocks as fast as it goes."""
        with closing(Store.open(databases.location("blocks"))) as own:
            for _ in range(BLOCKS // 3):
                blocks = [hub.seal_records("vital", heart_rate(START_US, 60.0)) for _ in range(3)]
                assert hub.receive(own, hub.message(*blocks), time.time_ns() // 1000)[1] == 3

    def open_blocks() -> None:
        with ExitStack() as stack:
            own = stack.enter_context(closing(Store.open(databases.location("blocks"))))
            own_engine = open_projections(databases.location("projections"))
            stack.callback(own_engine.dispose)
            opener = clinic.opener(own, own_engine)
            while any(ingest.is_alive() for ingest in ingests):
                with suppress(TransientError):  # a lock that takes long on a busy machine: the service tries again, too
                    opener.open_batch()

    def note_failure(run: object, *arguments: object) -> None:
        try:
            run(*arguments)  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - the main thread reports it
            failures.append(error)

    ingests = [threading.Thread(target=note_failure, args=(ingest, hub)) for hub in hubs]
    openers = [threading.Thread(target=note_failure, args=(open_blocks,)) for _ in range(2)]
    for thread in (*ingests, *openers):
        thread.start()
    for thread in (*ingests, *openers):
        thread.join()
    assert failures == []
    open_all(store, engine, clinic)
    assert opened(engine) == [(hub.name, seq) for hub in hubs for seq in range(1, BLOCKS + 1)]
    with engine.connect() as connection:
        assert len(connection.execute(select(tables.vitals.c.id)).all()) == 2 * BLOCKS
    assert store.counts().stored == 2 * BLOCKS


def test_a_deadline_on_a_locked_row_is_a_transient_error(
    databases: Databases, store: Store, hubs: list[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.store.store.BUSY_TIMEOUT_S", 0.05)
    block = hubs[0].seal_records("vital", heart_rate(START_US, 60.0))
    with closing(Store.open(databases.location("blocks"))) as other:
        with store.transaction() as connection:
            insert(connection, hubs[0], block)
            with pytest.raises(TransientError, match="lock timeout"):
                hubs[0].receive(other, hubs[0].message(block))
        assert hubs[0].receive(other, hubs[0].message(block))[1] == 0


def test_a_block_of_a_subject_that_is_erased_meanwhile_is_not_stored(
    databases: Databases, store: Store, hubs: list[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure commits after ingest has looked for erased subjects and before it commits."""
    hub = hubs[0]
    sent = hub.message(hub.seal_records("vital", heart_rate(START_US, 60.0)))
    with closing(Store.open(databases.location("blocks"))) as other:

        def erase_first(connection: Connection, counts: StoreCounts) -> None:
            if counts.stored == 1:
                other.erase(hub.subject, START_US)
            count_commit(connection, counts)

        with monkeypatch.context() as patched:
            patched.setattr("cloud.store.commit.count_commit", erase_first)
            with pytest.raises(TransientError, match="erased just now"):
                hub.receive(store, sent)
    ack, _ = hub.receive(store, sent)
    assert [row.reason for row in ack.refused] == ["erased"]
    assert (store.count_blocks(), store.key_statement(hub.name, hub.key.id)) == (0, None)


def test_a_server_that_restarted_is_used_again(store: Store, hubs: list[Hub], postgresql: Server) -> None:
    hubs[0].send(store, "vital", heart_rate(START_US, 60.0))
    postgresql.end_connections()
    time.sleep(0.2)  # the ends of the connections arrive
    hubs[0].send(store, "vital", heart_rate(START_US, 61.0))
    assert store.count_blocks() == 2


def test_a_feed_beside_two_openers_misses_no_change(
    databases: Databases, store: Store, engine: Engine, hubs: list[Hub], clinic: Clinic
) -> None:
    """The feed has a connection of its own and no wake-ups. A cursor on numbers that the database hands out would miss some."""
    n_alerts, engines = 60, [open_projections(databases.location("projections")) for _ in range(3)]
    clinic.opener(store, engine).check_databases()
    for n in range(n_alerts):
        for hub in hubs:
            hub.send(store, "alert", alert(id=f"{hub.name}-{n}"))

    async def follow() -> set[str]:
        feed, found = Feed(engines[2]), set()
        async with asyncio.timeout(60), feed.register_viewer(EVERY_SUBJECT) as viewer:
            opening = [asyncio.create_task(asyncio.to_thread(open_in_batches, one)) for one in engines[:2]]
            is_last = False
            while not is_last:
                is_last = all(task.done() for task in opening)  # one more reading after the last batch
                await feed.send_changes()
                while not viewer.queue.empty():
                    message = viewer.queue.get_nowait()
                    assert message["type"] in {"alert", "patient"}, "no reload hides a missed change"
                    found |= {message["id"]} if message["type"] == "alert" else set()
            await asyncio.gather(*opening)
        return found

    def open_in_batches(own: Engine) -> None:
        with closing(Store.open(databases.location("blocks"))) as own_store:
            opener = clinic.opener(own_store, own)
            while opener.open_batch() is not None:
                pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloud.opener.BATCH_BLOCKS", 2)
        found = asyncio.run(follow())
    for one in engines:
        one.dispose()
    assert found == {f"{hub.name}-{n}" for hub in hubs for n in range(n_alerts)}


def test_a_writer_waits_for_the_batch_before_its_own(
    engine: Engine, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log never shows a batch while one before it can still be committed."""
    monkeypatch.setattr("cloud.projections_database.BUSY_TIMEOUT_S", 0.05)
    other = open_projections(databases.location("projections"))
    with snapshot(engine) as connection:
        start = change_log.read_end(connection)

    def write(connection: Connection, name: str) -> None:
        batch = BatchChanges()
        batch.add([Change(SENSOR, "subject-1", "hub-1", name)])
        source = projections.lock_source(connection)
        source = replace(source, batches=source.batches + 1)
        projections.write_source(connection, source)
        change_log.write_changes(connection, source.batches, batch)

    def read() -> list[str]:
        with snapshot(engine) as connection:
            return [change.name for change in change_log.read_changes(connection, EVERY_SUBJECT, start)[1] or ()]

    with engine.begin() as first:
        write(first, "first")
        with pytest.raises(DBAPIError, match="lock timeout"), other.begin() as second:
            projections.lock_source(second)  # it must not get a number yet
        assert read() == []
    with other.begin() as second:
        write(second, "second")
    other.dispose()
    assert read() == ["first", "second"]
