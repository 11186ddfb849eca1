"""One work row for each block: written with it, deleted when its records are in the projections, and harmless twice."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from cloud import opener, tables, work
from cloud.api import alert_queries, queries
from cloud.api.alert_queries import ListCursor
from cloud.projections import Source
from cloud.projections_database import open_projections, reset_projections
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from cloud.store import tables as store_tables
from cloud.store.commit import LIVE_NUMBERS
from sync.errors import TransientError
from sync.message_rows import SeenStore
from sync.messages import encode_envelope
from sync.mqtt import Message
from sync.record_codec import encode_records
from sync.records import GapRecord
from sync.wire import up_topic
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, alert, counts, ecg_mv, heart_rate, waveform
from tests.databases import ON_BOTH, Databases
from tests.postgresql import Server

DATABASES = ON_BOTH


def waiting(store: Store) -> list[tuple[Any, ...]]:
    columns = store_tables.work.c
    with store.transaction() as connection:
        rows = connection.execute(
            select(columns.hub, columns.lane, columns.seq).order_by(columns.hub, columns.lane, columns.seq)
        )
        return [tuple(row) for row in rows]


def content(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of the projections, but those that say which batch they come from."""
    with engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in tables.metadata.sorted_tables
            if table.name != "source"
        }


def source(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        return dict(connection.execute(select(tables.source)).mappings().one())


def shown_alerts(engine: Engine) -> set[str]:
    return {found["id"] for found in alert_queries.list_alerts(engine, EVERY_SUBJECT, ListCursor(0))["alerts"]}


def state(store: Store) -> work.StoreState:
    with store.transaction() as connection:
        return work.read_state(connection)


def send_some(hub: Hub, store: Store) -> None:
    hub.send(store, "wave", waveform(START_US, counts(ecg_mv([0.5], 1.0))), heart_rate(START_US, 72.0))
    hub.send(store, "wave", GapRecord("strap-1", "ecg", START_US + 1_000_000, None, None, "the link was lost"))
    hub.send(store, "alert", alert())


def test_a_block_is_work_from_its_commit_until_it_is_projected(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    send_some(hub, store)
    assert waiting(store) == [("hub-1", "alert", 1), ("hub-1", "wave", 1), ("hub-1", "wave", 2)]
    running = clinic.opener(store, engine)
    assert running.open_batch() is not None
    assert waiting(store) == [("hub-1", "wave", 1), ("hub-1", "wave", 2)]
    assert running.open_batch() is not None
    assert (waiting(store), running.open_batch()) == ([], None)


def test_a_repeated_or_conflicting_block_is_no_new_work(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    blocks = [hub.seal_records(lane, heart_rate(START_US, 61.0)) for lane in ("wave", "vital")]
    for block in blocks:
        hub.send_block(store, block)
    open_all(store, engine, clinic)
    for again in (blocks[0], *(block[:-1] + bytes([block[-1] ^ 1]) for block in blocks)):
        assert hub.receive(store, hub.message(again))[1] == 0
    assert waiting(store) == []


def test_an_opened_vital_sign_that_comes_again_is_work_again_and_gets_another_receipt(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    block = hub.seal_records("vital", heart_rate(START_US, 61.0))
    hub.send_block(store, block)
    first = open_all(store, engine, clinic)
    before = content(engine)
    assert hub.receive(store, hub.message(block))[1] == 1
    assert waiting(store) == [("hub-1", "vital", 1)]
    assert open_all(store, engine, clinic) == first
    assert content(engine) == before


def test_projecting_a_block_again_after_a_crash_changes_nothing(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends between the commit of the projections and the deletion of the work rows, for each batch."""
    send_some(hub, store)
    hub.send_block(store, hub.seal("vital", b"\xff"))

    def crash(*_: object) -> None:
        raise TransientError("crashed")

    with monkeypatch.context() as patched:
        patched.setattr(work, "delete_work", crash)
        for _ in range(2):
            with pytest.raises(TransientError, match="crashed"):
                clinic.opener(store, engine).open_batch()
    before = content(engine)
    assert len(waiting(store)) == 4
    assert len(before["alerts"]) == 1
    running = clinic.opener(store, engine)
    running.open_batch()
    assert content(engine) == before
    with monkeypatch.context() as patched:
        patched.setattr(work, "delete_work", crash)
        with pytest.raises(TransientError, match="crashed"):
            running.open_batch()
    before = content(engine)
    open_all(store, engine, clinic)
    assert content(engine) == before
    assert queries.read_counters(engine, EVERY_SUBJECT)["blocks"] == {
        "opened": 3,
        "unopened": 1,
        "unopened_reasons": {"undecodable": 1},
    }


def test_blocks_are_opened_in_the_order_of_each_hub_and_lane(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clinic.add_hub("hub-2", epoch=7)
    sealed = [
        (one, one.seal("vital", encode_records([heart_rate(START_US, 60.0 + n)]))) for n in range(3) for one in (hub, other)
    ]
    for one, block in reversed(sealed):
        one.send_block(store, block)
    taken: list[tuple[str, int, int]] = []
    take_blocks = work.take_blocks

    def note(connection: Connection, limit: int) -> Any:
        blocks = take_blocks(connection, limit)
        taken.extend((block.hub, block.position.epoch, block.position.seq) for block in blocks)
        return blocks

    monkeypatch.setattr(work, "take_blocks", note)
    open_all(store, engine, clinic)
    assert taken == [("hub-1", 1, 1), ("hub-1", 1, 2), ("hub-1", 1, 3), ("hub-2", 7, 1), ("hub-2", 7, 2), ("hub-2", 7, 3)]


def test_the_backlog_of_one_hub_does_not_delay_another(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opener, "BATCH_BLOCKS", 4)
    other = clinic.add_hub("hub-2", epoch=7)
    for n in range(4):
        hub.send(store, "vital", heart_rate(START_US, 60.0 + n), received_us=START_US)
    other.send(store, "vital", heart_rate(START_US, 99.0), received_us=START_US + 1)
    for n in range(20):
        hub.send(store, "vital", heart_rate(START_US, 60.0 + n), received_us=START_US + 2)
    running = clinic.opener(store, engine)
    for _ in range(2):
        running.open_batch()
    assert ("hub-2", "vital", 1) not in waiting(store)


def test_alerts_come_first_then_the_newest_blocks_of_hubs_then_backlogs(store: Store, hub: Hub, clinic: Clinic) -> None:
    """A hub that was offline sends a backlog; live data that come later do not wait until it is opened."""
    other, n = clinic.add_hub("hub-2", "subject-2"), LIVE_NUMBERS + 50
    backlog = [hub.seal_records("vital", heart_rate(START_US + i * 1_000_000, 60.0)) for i in range(n)]
    assert hub.receive(store, hub.message(*backlog))[1] == n
    other.send(store, "vital", heart_rate(START_US, 61.0), received_us=START_US + 5)
    hub.send(store, "vital", heart_rate(START_US, 62.0), received_us=START_US + 6)
    hub.send(store, "alert", alert(), received_us=START_US + 7)
    taken = []
    for limit in (n, LIVE_NUMBERS, n, n):
        with store.transaction() as connection:
            blocks = work.take_blocks(connection, limit)
            taken.append([(block.hub, block.position.lane, block.position.seq) for block in blocks])
            work.delete_work(connection, blocks, Source(bytes(16), 0, None, 0))
    assert taken[0] == [("hub-1", "alert", 1)]
    assert taken[1] == [("hub-1", "vital", seq) for seq in range(51, n + 1)]
    assert taken[2] == [("hub-1", "vital", n + 1), ("hub-2", "vital", 1)]
    assert taken[3] == [("hub-1", "vital", seq) for seq in range(1, 51)]


def test_taking_work_reads_no_more_than_it_takes(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks wait: the server follows the index, and sorts nothing."""
    monkeypatch.setenv("PGPASSFILE", str(postgresql.password_file))
    postgresql.create_if_missing("plans")
    with closing(Store.open(postgresql.url("plans"))) as store, store.transaction() as connection:
        for epoch, (is_alert, is_live) in enumerate(((True, False), (False, True), (False, False))):
            names = "hub, epoch, lane, seq, is_alert, received_us, is_live"
            rows = f"SELECT 'hub-1', {epoch}, 'vital', n, {is_alert}, n, {is_live} FROM generate_series(1, 3000) AS n"  # noqa: S608
            connection.exec_driver_sql(f"INSERT INTO work ({names}) {rows}")
        connection.exec_driver_sql("ANALYZE work")
        for query in work._NEXT_WORK:
            statement = query.limit(16).compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
            plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}"))
            assert "Index Scan using work_by_urgency" in plan
            assert "Sort" not in plan
        connection.rollback()


def test_a_block_of_an_earlier_epoch_is_backlog(store: Store, hub: Hub) -> None:
    """Its hub was started again since: the heads of the message are those of the present epoch."""
    old = hub.seal_records("vital", heart_rate(START_US, 60.0))
    hub.epoch = 2
    hub.send_block(store, old)
    hub.send(store, "vital", heart_rate(START_US, 61.0))
    with store.transaction() as connection:
        (block,) = work.take_blocks(connection, 9)
    assert block.position.epoch == 2


def test_every_commit_that_stores_something_is_counted(store: Store, hub: Hub) -> None:
    block = hub.seal_records("wave", heart_rate(START_US, 61.0))
    assert state(store).commits == 0
    hub.send_block(store, block)
    assert state(store).commits == 1
    hub.receive(store, hub.message(block))
    assert state(store).commits == 1, "nothing was stored"
    hub.receive(store, hub.message(block, b"no block"))
    assert state(store).commits == 2


class RestartedClinic:
    """A clinic whose databases can be lost, copied and restored while it is stopped."""

    def __init__(self, databases: Databases, keys: Clinic) -> None:
        self.databases, self.keys = databases, keys

    def run(self, send: Callable[[Store], None] = lambda _store: None) -> tuple[set[str], work.StoreState]:
        """Start, receive, open everything, stop; returns the ids of the alerts shown, and the store's state."""
        with self.opened() as (store, engine):
            self.keys.opener(store, engine).check_databases()
            send(store)
            open_all(store, engine, self.keys)
            assert len(content(engine)["opened"]) == store.count_blocks() > 0
            return shown_alerts(engine), state(store)

    @contextmanager
    def opened(self) -> Iterator[tuple[Store, Engine]]:
        with closing(Store.open(self.databases.location("blocks"))) as store:
            engine = open_projections(self.databases.location("projections"))
            try:
                yield store, engine
            finally:
                engine.dispose()


@pytest.fixture
def restarted(databases: Databases, clinic: Clinic) -> RestartedClinic:
    return RestartedClinic(databases, clinic)


def send_alerts(hub: Hub, *ids: str) -> Callable[[Store], None]:
    def send(store: Store) -> None:
        for id_ in ids:
            hub.send(store, "alert", alert(id=id_))

    return send


def test_a_first_start_and_a_restart_say_nothing(
    restarted: RestartedClinic, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    first = restarted.run(send_alerts(hub, "a1"))[1]
    second = restarted.run(send_alerts(hub, "a2"))[1]
    assert first.store_id == second.store_id
    assert (first.commits, second.commits) == (1, 2)
    assert caplog.text == ""


@pytest.mark.parametrize("new_alerts", [("new1",), ("new1", "new2", "new3", "new4", "new5", "new6")])
@pytest.mark.parametrize("case", ["deleted", "restored"])
def test_a_lost_or_restored_store_shows_new_alerts_and_says_so(
    restarted: RestartedClinic, hub: Hub, caplog: pytest.LogCaptureFixture, case: str, new_alerts: tuple[str, ...]
) -> None:
    restarted.run(send_alerts(hub, "a1", "a2", "a3"))
    restarted.databases.back_up("blocks")
    shown, before = restarted.run(send_alerts(hub, "a4", "a5"))
    assert shown == {"a1", "a2", "a3", "a4", "a5"}
    restarted.databases.lose("blocks")
    if case == "restored":
        restarted.databases.restore("blocks")
    shown, after = restarted.run(send_alerts(hub, *new_alerts))
    assert shown == {*new_alerts, *(("a1", "a2", "a3") if case == "restored" else ())}
    assert after.store_id != before.store_id
    (line,) = caplog.records
    assert "the clinic's store was lost or restored from a backup" in line.getMessage()
    assert "a store with 5 commits, this one has " + ("3)" if case == "restored" else "0)") in line.getMessage()
    again = restarted.run()
    assert (again[0], again[1].store_id) == (shown, after.store_id)
    assert len(caplog.records) == 1


def test_a_store_to_which_ingest_gave_a_new_id_keeps_it(
    restarted: RestartedClinic, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    """Ingest has noticed the loss by what a hub knows; the opener fills its projections again and draws no other id."""
    _, before = restarted.run(send_alerts(hub, "a1", "a2"))
    seen = SeenStore(before.store_id, before.fence, before.commits + 1)

    def send(store: Store) -> None:
        envelope = replace(hub.envelope(hub.seal_records("alert", alert(id="a3"))), seen=seen)
        hub.receive(store, Message(up_topic(hub.name, "alert"), encode_envelope(envelope, hub.device)))

    shown, after = restarted.run(send)
    assert shown == {"a1", "a2", "a3"}
    assert (after.store_id != before.store_id, after.fence) == (True, before.fence + 1)
    assert [record.name for record in caplog.records] == ["cloud.ingest", "cloud.opener"]
    assert restarted.run() == (shown, after)


def test_a_restored_store_that_the_opener_notices_gets_a_higher_fence(restarted: RestartedClinic, hub: Hub) -> None:
    restarted.run(send_alerts(hub, "a1"))
    restarted.databases.back_up("blocks")
    _, before = restarted.run(send_alerts(hub, "a2"))
    restarted.databases.restore("blocks")
    assert restarted.run(send_alerts(hub, "a3"))[1].fence == before.fence + 1


@pytest.mark.parametrize("case", ["deleted", "restored", "rebuilt"])
def test_lost_or_older_projections_are_filled_again(
    restarted: RestartedClinic, hub: Hub, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    restarted.run(send_alerts(hub, "a1"))
    restarted.databases.back_up("projections")
    _, before = restarted.run(send_alerts(hub, "a2"))
    if case == "restored":
        restarted.databases.restore("projections")
    elif case == "deleted":
        restarted.databases.lose("projections")
    else:
        with restarted.opened() as (_, engine):
            reset_projections(engine)
    shown, after = restarted.run(send_alerts(hub, "a3"))
    assert shown == {"a1", "a2", "a3"}
    assert after.store_id == before.store_id
    (line,) = caplog.records
    assert "the projections were lost or restored from a backup" in line.getMessage()
    assert "2 stored blocks" in line.getMessage()


def test_a_crash_while_the_projections_are_emptied_repeats_it(
    restarted: RestartedClinic, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarted.run(send_alerts(hub, "a1", "a2"))
    restarted.databases.back_up("blocks")
    restarted.run(send_alerts(hub, "a3"))
    restarted.databases.restore("blocks")
    with restarted.opened() as (store, engine):
        running = clinic.opener(store, engine)

        def crash(*_: object) -> None:
            raise TransientError("crashed")

        with monkeypatch.context() as patched:
            patched.setattr(store_tables, "add_all_work", crash)
            with pytest.raises(TransientError, match="crashed"):
                running.check_databases()
    assert restarted.run(send_alerts(hub, "new"))[0] == {"a1", "a2", "new"}
