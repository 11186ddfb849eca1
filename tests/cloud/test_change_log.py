"""The live feed follows the change log: nothing is missed, whoever opens the blocks and whether or not it is woken."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from cloud import change_log, projections, tables, work
from cloud.api.feed import RESYNC, Feed, Viewer
from cloud.change_log import LogPosition, read_changes, read_end
from cloud.changes import ALERT, BACKLOG, MAX_LIVE, SENSOR, VITAL, WAVEFORM, BatchChanges, BlockOrigin, Change, Position
from cloud.databases import snapshot
from cloud.opener import Opener
from cloud.projections_database import open_projections, reset_projections
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.store import Store
from sync.errors import TransientError
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, alert, counts, ecg_mv, heart_rate, waveform
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH

Json = dict[str, Any]


@pytest.fixture
def opener(store: Store, engine: Engine, clinic: Clinic) -> Opener:
    """An opener whose databases know each other, as at the start of the clinic."""
    opener = clinic.opener(store, engine)
    opener.check_databases()
    return opener


@pytest.fixture
def reader(databases: Databases, opener: Opener) -> Iterator[Engine]:
    """The projections, opened once more: what a feed of another process has."""
    engine = open_projections(databases.location("projections"))
    yield engine
    engine.dispose()


def watch(engine: Engine, act: Callable[[Feed], None], scope: Scope = EVERY_SUBJECT) -> list[Json]:
    """Return what a viewer gets who was there before `act`, without any wake-up."""

    async def run() -> list[Json]:
        feed = Feed(engine)
        async with feed.register_viewer(scope) as viewer:
            act(feed)
            await feed.send_changes()
            return take_all(viewer)

    return asyncio.run(run())


def take_all(viewer: Viewer) -> list[Json]:
    return [viewer.queue.get_nowait() for _ in range(viewer.queue.qsize())]


def open_batches(opener: Opener) -> None:
    while opener.open_batch() is not None:
        pass


def write_batch(engine: Engine, *changes: Change) -> None:
    """Log a batch as the opener does, without the rows that it names."""
    with engine.begin() as connection:
        source = projections.lock_source(connection)
        batch = BatchChanges()
        batch.add(changes)
        write_as_next(connection, source, batch)


def write_as_next(connection: Any, source: projections.Source, batch: BatchChanges) -> None:
    connection.execute(tables.source.update().values(batches=source.batches + 1))
    change_log.write_changes(connection, source.batches + 1, batch)


def changes_since(engine: Engine, after: LogPosition | None, scope: Scope = EVERY_SUBJECT) -> list[Change] | None:
    with snapshot(engine) as connection:
        return read_changes(connection, scope, after)[1]


def end_of_log(engine: Engine) -> LogPosition:
    with snapshot(engine) as connection:
        return read_end(connection)


def sensor(name: str, subject: str = "subject-1") -> Change:
    return Change(SENSOR, subject, "hub-1", name)


def test_a_feed_without_any_wake_up_delivers_all(store: Store, reader: Engine, hub: Hub, opener: Opener) -> None:
    def act(_feed: Feed) -> None:
        hub.send(store, "wave", waveform(START_US, counts(ecg_mv([0.5], 1.0))), heart_rate(START_US, 72.0))
        hub.send(store, "alert", alert())
        open_batches(opener)

    messages = watch(reader, act)
    assert [message["type"] for message in messages] == ["alert", "patient", "ecg", "vital", "sensor"]
    raised, patient, ecg, vital, sensor = messages
    assert (raised["id"], patient["ongoing"]["medium"], sensor["samples"]) == (f"tachycardia-{START_US}", 1, 130)
    assert (ecg["start_us"], ecg["position"], len(ecg["mv"])) == (START_US, [1, 1], 130)
    names = {"subject": "subject-1", "hub": "hub-1", "sensor": "strap-1", "position": [1, 1]}
    assert vital == {"type": "vital", **names, "kind": "heart_rate", "at_us": START_US, "value": 72.0}


def test_every_value_of_a_block_is_sent_not_only_the_latest(store: Store, reader: Engine, hub: Hub, opener: Opener) -> None:
    def act(_feed: Feed) -> None:
        hub.send(store, "vital", *(heart_rate(START_US + second, 60.0 + second) for second in range(10)))
        open_batches(opener)

    values = [message["value"] for message in watch(reader, act) if message["type"] == "vital"]
    assert values == [60.0 + second for second in range(10)]


def test_a_value_is_sent_with_its_flags(store: Store, reader: Engine, hub: Hub, opener: Opener) -> None:
    def act(_feed: Feed) -> None:
        hub.send(store, "vital", replace(heart_rate(START_US, 0.0), flags=("no_pulse_found",)))
        open_batches(opener)

    assert [message["flags"] for message in watch(reader, act) if message["type"] == "vital"] == [["no_pulse_found"]]


def test_the_feed_polls_while_it_has_viewers(
    store: Store, reader: Engine, hub: Hub, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.api.feed.POLL_S", 0.01)

    async def run() -> Json:
        feed = Feed(reader)
        running = asyncio.create_task(feed.run())
        async with asyncio.timeout(10), feed.register_viewer(EVERY_SUBJECT) as viewer:
            hub.send(store, "alert", alert())
            await asyncio.to_thread(open_batches, opener)
            message = await viewer.queue.get()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return message

    assert asyncio.run(run())["type"] == "alert"


def test_a_viewer_gets_what_changed_after_it_registered_and_nothing_older(
    store: Store, reader: Engine, hub: Hub, opener: Opener
) -> None:
    hub.send(store, "alert", alert(id="before"))
    open_batches(opener)

    def act(_feed: Feed) -> None:
        hub.send(store, "alert", alert(id="after"))
        open_batches(opener)

    assert [message["id"] for message in watch(reader, act) if message["type"] == "alert"] == ["after"]
    assert watch(reader, lambda _feed: None) == []


def test_a_batch_that_is_rolled_back_delivers_nothing(
    store: Store, engine: Engine, reader: Engine, hub: Hub, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is written, then the transaction fails. Its number is then used by the batch that succeeds."""
    write_changes = change_log.write_changes

    def fail_after(*arguments: Any) -> None:
        write_changes(*arguments)
        raise TransientError("full")

    def act(_feed: Feed) -> None:
        hub.send(store, "alert", alert())
        with monkeypatch.context() as patched:
            patched.setattr(change_log, "write_changes", fail_after)
            with pytest.raises(TransientError, match="full"):
                opener.open_batch()

    before = end_of_log(engine)
    assert watch(reader, act) == []
    assert end_of_log(engine) == before
    assert [message["type"] for message in watch(reader, lambda _feed: open_batches(opener))] == ["alert", "patient"]
    assert end_of_log(engine) == before._replace(batch=before.batch + 1)


def test_a_block_that_is_set_aside_logs_nothing(store: Store, engine: Engine, hub: Hub, opener: Opener) -> None:
    before = end_of_log(engine)
    hub.send_block(store, hub.seal("vital", b"\xff"))
    open_batches(opener)
    assert changes_since(engine, before) == []


def test_a_repeated_block_logs_nothing(
    store: Store, engine: Engine, hub: Hub, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends after the commit of the projections: viewers learn of the rows from the log, and only once."""
    hub.send(store, "alert", alert())

    def crash(*_: object) -> None:
        raise TransientError("crashed")

    before = end_of_log(engine)
    with monkeypatch.context() as patched:
        patched.setattr(work, "delete_work", crash)
        with pytest.raises(TransientError, match="crashed"):
            opener.open_batch()
    middle = end_of_log(engine)
    assert [change.kind for change in changes_since(engine, before) or ()] == [ALERT]
    open_batches(opener)
    assert changes_since(engine, middle) == []


def test_blocks_whose_key_fits_at_last_are_logged(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, reader: Engine
) -> None:
    hub.send(store, "alert", alert())
    open_all(store, engine, clinic.without_recipients())
    messages = watch(reader, lambda _feed: clinic.opener(store, engine).retry_unopened() and None)
    assert [message["type"] for message in messages] == ["alert", "patient"]


def test_a_log_that_was_pruned_leads_to_a_reload(engine: Engine, opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_log, "KEPT_BATCHES", 3)
    start = end_of_log(engine)
    positions = [start._replace(batch=start.batch + n) for n in range(6)]
    for n in range(1, 6):
        write_batch(engine, sensor(f"s{n}"))
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.changes)) == 3
    for position in positions[:2]:
        assert changes_since(engine, position) is None
    names = [[change.name for change in changes_since(engine, position) or ()] for position in positions[2:]]
    assert names == [["s3", "s4", "s5"], ["s4", "s5"], ["s5"], []]


def test_a_viewer_behind_a_pruned_log_reloads_and_goes_on(
    store: Store, engine: Engine, reader: Engine, hub: Hub, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_log, "KEPT_BATCHES", 2)

    async def run() -> list[list[str]]:
        feed, found = Feed(reader), []
        async with feed.register_viewer(EVERY_SUBJECT) as viewer:
            for n_batches in (3, 1):
                for _ in range(n_batches):
                    hub.send(store, "alert", alert())
                    open_batches(opener)
                await feed.send_changes()
                found.append([message["type"] for message in take_all(viewer)])
        return found

    assert asyncio.run(run()) == [["resync"], ["alert", "patient"]]


@pytest.mark.parametrize("case", ["rebuilt", "emptied"])
def test_projections_that_began_again_lead_to_a_reload(
    store: Store, engine: Engine, reader: Engine, hub: Hub, opener: Opener, case: str
) -> None:
    """The batches are counted from zero again, and reach the viewer's position."""
    hub.send(store, "alert", alert())
    open_batches(opener)

    def act(_feed: Feed) -> None:
        if case == "rebuilt":
            reset_projections(engine)
        else:
            with engine.begin() as connection:
                connection.execute(tables.source.update().values(store_id=None, id=b"lost"))
        open_batches(opener)

    before = end_of_log(engine)
    assert watch(reader, act) == [RESYNC]
    assert end_of_log(engine).batch == before.batch


def test_too_many_changes_of_many_batches_lead_to_a_reload(engine: Engine, opener: Opener) -> None:
    start = end_of_log(engine)
    for n in range(MAX_LIVE[ALERT]):
        write_batch(engine, Change(ALERT, "subject-1", "hub-1", f"a{n}"))
    assert len(changes_since(engine, start) or ()) == MAX_LIVE[ALERT]
    write_batch(engine, Change(ALERT, "subject-1", "hub-1", "a0"))
    assert len(changes_since(engine, start) or ()) == MAX_LIVE[ALERT], "the same alert again"
    write_batch(engine, Change(ALERT, "subject-1", "hub-1", "one more"))
    assert changes_since(engine, start) is None


def test_more_entries_than_are_read_at_once_lead_to_a_reload(
    engine: Engine, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_log, "_MAX_ENTRIES", 3)
    start = end_of_log(engine)
    for _ in range(3):
        write_batch(engine, sensor("s1"))
    assert changes_since(engine, start) == [sensor("s1")]
    write_batch(engine, sensor("s2"))
    assert changes_since(engine, start) is None


def test_the_changes_of_a_batch_are_bounded_for_each_subject() -> None:
    batch = BatchChanges()
    batch.add([sensor("s1", "subject-2")])
    for n in range(10 * MAX_LIVE[VITAL]):
        batch.add([Change(VITAL, "subject-1", "hub-1", "strap-1", n)])
        assert len(list(batch)) <= MAX_LIVE[VITAL] + 1
    assert list(batch) == [sensor("s1", "subject-2"), Change(BACKLOG, "subject-1", "", "")]


def test_every_kind_of_change_has_a_limit() -> None:
    assert set(MAX_LIVE) == {ALERT, SENSOR, WAVEFORM, VITAL, BACKLOG}


def test_alerts_are_sent_in_the_order_of_their_revisions(store: Store, reader: Engine, hub: Hub, opener: Opener) -> None:
    """A page that lost its connection asks for the alerts after the highest revision that it has seen."""

    def act(_feed: Feed) -> None:
        for id_ in ("first", "second", "first"):
            hub.send(store, "alert", alert(id=id_))
            open_batches(opener)

    raised = [(message["id"], message["revision"]) for message in watch(reader, act) if message["type"] == "alert"]
    assert [id_ for id_, _ in raised] == ["second", "first"]
    assert raised == sorted(raised, key=lambda one: one[1])


def test_a_feed_that_cannot_read_makes_its_viewers_reload_when_it_can(
    store: Store, reader: Engine, hub: Hub, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TransientError("locked")

    async def run() -> list[list[str]]:
        feed, found = Feed(reader), []
        async with feed.register_viewer(EVERY_SUBJECT) as viewer:
            hub.send(store, "alert", alert())
            open_batches(opener)
            with monkeypatch.context() as patched:
                patched.setattr("cloud.change_log.read_changes", fail)
                await feed.send_changes()
            found.append([message["type"] for message in take_all(viewer)])
            for _ in range(2):
                await feed.send_changes()
                found.append([message["type"] for message in take_all(viewer)])
        return found

    assert asyncio.run(run()) == [[], ["resync"], []]


def test_rows_of_the_log_that_are_gone_are_left_out(engine: Engine, opener: Opener) -> None:
    def act(_feed: Feed) -> None:
        kinds = (ALERT, SENSOR, WAVEFORM, VITAL)
        write_batch(engine, *(Change(kind, "subject-1", "hub-1", "none", 10**6) for kind in kinds))

    assert watch(engine, act) == []


def test_the_log_is_written_with_the_rows_that_it_names(engine: Engine, opener: Opener) -> None:
    with engine.begin() as connection:
        origin = BlockOrigin("subject-1", "hub-1", "vital", Position(1, 1), START_US, is_proven=True)
        changes = projections.project_records(connection, origin, [heart_rate(START_US, 61.0), heart_rate(START_US, 62.0)])
    with engine.connect() as connection:
        rows = dict(connection.execute(select(tables.vitals.c.id, tables.vitals.c.value)).all())
    assert [rows[change.row] for change in changes if change.kind == VITAL] == [61.0, 62.0]
