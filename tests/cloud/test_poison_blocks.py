"""No block of one hub stops those of another: what cannot be read is set aside, and only a failed database is waited for."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from sqlalchemy import Engine, create_engine, select

from cloud import block_reader, projections, tables
from cloud.api import queries
from cloud.api.feed import RESYNC, Feed
from cloud.block_reader import NO_KEY, UNDECODABLE
from cloud.changes import ALERT, BACKLOG, MAX_LIVE
from cloud.opener import BATCH_BLOCKS
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from sync.data_keys import DataKey, unwrap_key, wrap_key
from sync.errors import TransientError
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, alert, heart_rate


def unopened(engine: Engine) -> list[tuple[str, int, str]]:
    columns = tables.unopened.c
    with engine.connect() as connection:
        rows = connection.execute(select(columns.hub, columns.seq, columns.reason).order_by(columns.hub, columns.seq))
        return [tuple(row) for row in rows]


def logged_kinds(engine: Engine) -> list[str]:
    log = tables.changes.c
    with engine.connect() as connection:
        return list(connection.scalars(select(log.kind).order_by(log.batch, log.n)))


def values(engine: Engine) -> list[float]:
    with engine.connect() as connection:
        return list(connection.scalars(select(tables.vitals.c.value).order_by(tables.vitals.c.id)))


@pytest.fixture
def other(clinic: Clinic) -> Hub:
    return clinic.add_hub(name="hub-2", subject="subject-2")


@pytest.mark.sqlite_only
@pytest.mark.parametrize("stage", ["decode_readable_records", "validate_record", "project_records"])
@pytest.mark.parametrize("error", [TypeError, OverflowError, RecursionError, MemoryError, KeyError, AttributeError])
def test_any_exception_of_one_block_sets_only_that_block_aside(
    store: Store,
    engine: Engine,
    hub: Hub,
    other: Hub,
    clinic: Clinic,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    error: type[Exception],
) -> None:
    module = projections if stage == "project_records" else block_reader
    genuine: Callable[..., Any] = getattr(module, stage)
    calls = iter([error("CANARY-4711")])

    def fail_once(*arguments: Any) -> Any:
        if (failure := next(calls, None)) is not None:
            raise failure
        return genuine(*arguments)

    monkeypatch.setattr(module, stage, fail_once)
    hub.send(store, "vital", heart_rate(START_US, 61.0))
    other.send(store, "vital", heart_rate(START_US, 62.0))
    open_all(store, engine, clinic)
    assert unopened(engine) == [("hub-1", 1, UNDECODABLE)]
    assert values(engine) == [62.0]
    with engine.connect() as connection:
        detail = connection.scalar(select(tables.unopened.c.detail))
    assert error.__name__ in detail
    assert "CANARY" not in detail


TIMES = {"at_us": START_US, "arrived_us": START_US, "arrived_mono_ns": 1}
VITAL = {"type": "vital", "sensor": "strap-1", "kind": "heart_rate", "times": TIMES, "value": 61.0}
HOSTILE_PLAINTEXTS = {
    "value sharing": b"\x82\xd8\x1c" + cbor2.dumps(VITAL) + b"\xd8\x1d\x00",  # tag 28 marks the record, tag 29 repeats it
    "a tag": cbor2.dumps([VITAL | {"source": cbor2.CBORTag(32, "CANARY-4711")}]),
    "many levels": b"\xa1\x65items" + b"\x81" * 5000 + b"\x80",
    "a tag in format 2": b"\xa1\x65items" + cbor2.dumps([cbor2.CBORTag(32, "CANARY-4711")]),
    "many levels in format 1": cbor2.dumps([VITAL])[:1] + b"\x81" * 5000 + b"\x80",
    "many records": cbor2.dumps({"items": [{"type": "x"}] * 7_000}),
}


@pytest.mark.parametrize("plaintext", HOSTILE_PLAINTEXTS.values(), ids=HOSTILE_PLAINTEXTS.keys())
def test_small_blocks_that_would_take_much_memory_are_set_aside(
    store: Store, engine: Engine, hub: Hub, other: Hub, clinic: Clinic, plaintext: bytes
) -> None:
    hub.send_block(store, hub.seal("vital", plaintext))
    other.send(store, "vital", heart_rate(START_US, 62.0))
    open_all(store, engine, clinic)
    assert unopened(engine) == [("hub-1", 1, UNDECODABLE)]
    assert values(engine) == [62.0]


@pytest.mark.sqlite_only
def test_a_value_that_the_database_refuses_sets_its_block_aside(
    store: Store, engine: Engine, hub: Hub, other: Hub, clinic: Clinic
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON vitals WHEN new.value = 61.0 BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    hub.send(store, "vital", heart_rate(START_US, 60.0), heart_rate(START_US, 61.0))
    other.send(store, "vital", heart_rate(START_US, 62.0))
    open_all(store, engine, clinic)
    assert unopened(engine) == [("hub-1", 1, UNDECODABLE)]
    assert values(engine) == [62.0]  # nothing of the block set aside is left behind


def test_a_text_that_a_database_cannot_hold_stops_no_other_block(
    store: Store, engine: Engine, hub: Hub, other: Hub, clinic: Clinic
) -> None:
    """PostgreSQL takes no NUL in a text, SQLite does."""
    hub.send(store, "vital", replace(heart_rate(START_US, 61.0), kind="\0"))
    other.send(store, "vital", heart_rate(START_US, 62.0))
    open_all(store, engine, clinic)
    assert values(engine)[-1] == 62.0
    assert len(unopened(engine)) + len(values(engine)) == 2


@pytest.mark.sqlite_only
def test_a_full_disk_sets_no_block_aside(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    n = 40
    for second in range(n):
        hub.send(store, "vital", *(heart_rate(START_US + second, float(second)) for _ in range(100)))
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(TransientError, match="full"):
        open_all(store, engine, clinic)
    assert (unopened(engine), values(engine)) == ([], [])
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    open_all(store, engine, clinic)
    assert len(values(engine)) == 100 * n
    assert unopened(engine) == []


def test_a_store_without_a_free_connection_is_a_transient_error(tmp_path: Any) -> None:
    Store.open(tmp_path / "blocks.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/blocks.db", pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(TransientError, match="connections are in use"):
        Store(engine).count_blocks()
    engine.dispose()


class KeyCounter:
    """Counts how often the opener unwraps a data key."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        monkeypatch.setattr(block_reader, "unwrap_key", self._unwrap)

    def _unwrap(self, *arguments: Any, **options: Any) -> Any:
        self.n += 1
        return unwrap_key(*arguments, **options)


def make_hub_with_wrong_keys(clinic: Clinic) -> Hub:
    """Return a hub whose wrapped key is not the key that it committed to."""
    hub = clinic.add_hub(name="hub-3", subject="subject-3")
    other = DataKey(hub.key.id, bytes(32))
    hub.wrapped = wrap_key(other, hub=hub.name, subject=hub.subject, recipient=clinic.recipient(hub.subject))
    return hub


def test_many_blocks_without_a_usable_key_cost_one_attempt_and_one_line_a_batch(
    store: Store, engine: Engine, clinic: Clinic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = make_hub_with_wrong_keys(clinic)
    for second in range(2 * BATCH_BLOCKS):
        stranger.send(store, "vital", heart_rate(START_US + second, 60.0))
    counter = KeyCounter(monkeypatch)
    open_all(store, engine, clinic)
    assert counter.n == 2
    assert len(unopened(engine)) == 2 * BATCH_BLOCKS
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert f"cannot open {BATCH_BLOCKS} blocks of hub hub-3" in caplog.text


def test_a_start_opens_new_blocks_before_it_tries_old_ones_again(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = make_hub_with_wrong_keys(clinic)
    for second in range(2 * BATCH_BLOCKS):
        stranger.send(store, "vital", heart_rate(START_US + second, 60.0))
    open_all(store, engine, clinic)
    hub.send(store, "alert", alert())
    tried_before: list[int] = []
    by_id = store.blocks_by_id

    async def start_again() -> None:
        batches: asyncio.Queue[None] = asyncio.Queue()
        monkeypatch.setattr(store, "blocks_by_id", lambda ids: tried_before.append(len(ids)) or by_id(ids))
        opener = clinic.opener(store, engine)
        running = asyncio.create_task(opener.run(lambda: batches.put(None)))
        async with asyncio.timeout(10):
            await batches.get()
            first = list(tried_before)
            assert logged_kinds(engine)[-1] == ALERT
            while sum(tried_before) < 2 * BATCH_BLOCKS:
                await batches.get()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert first in ([], [BATCH_BLOCKS])  # the worker thread may already be one batch ahead

    asyncio.run(start_again())
    assert [reason for _, _, reason in unopened(engine)] == [NO_KEY] * 2 * BATCH_BLOCKS


def test_opens_and_publishes_old_blocks_when_their_key_fits_now(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch with more alerts than live messages can tell."""
    monkeypatch.setattr("cloud.opener.BATCH_BLOCKS", MAX_LIVE[ALERT] + 1)
    n = MAX_LIVE[ALERT] + 6
    for second in range(n):
        hub.send(store, "alert", alert(onset_us=START_US + second))
    open_all(store, engine, clinic.without_recipients())
    assert len(unopened(engine)) == n

    async def start_again() -> None:
        batches: asyncio.Queue[None] = asyncio.Queue()
        running = asyncio.create_task(clinic.opener(store, engine).run(lambda: batches.put(None)))
        async with asyncio.timeout(10):
            while unopened(engine):
                await batches.get()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(start_again())
    assert logged_kinds(engine) == [BACKLOG] + [ALERT] * 5


def test_viewers_fetch_what_no_live_message_can_tell(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_: object) -> None:
        raise OverflowError

    monkeypatch.setattr(queries, "find_sensor", overflow)
    monkeypatch.setattr("cloud.api.feed.POLL_S", 0.01)
    hub.send(store, "vital", heart_rate(START_US, 61.0))

    async def publish_one() -> Any:
        feed = Feed(engine)
        opener = clinic.opener(store, engine)
        async with feed.register_viewer(EVERY_SUBJECT) as viewer:
            running = [asyncio.create_task(run) for run in (opener.run(feed.send_changes), feed.run())]
            async with asyncio.timeout(10):
                message = await viewer.queue.get()
            assert not any(task.done() for task in running)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return message

    assert asyncio.run(publish_one()) == RESYNC
