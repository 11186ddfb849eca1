"""Messages that wait are committed together, and each is answered as if it had come alone."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Column, Integer, LargeBinary, MetaData, Table, Text, event, func, select

from cloud.ingest import handle_messages, run_ingest
from cloud.row_sets import RowInsert, RowQuery
from cloud.store import Store
from cloud.store.stored_blocks import StoreCounts
from cloud.tracks import GROUP_MESSAGES
from sync.errors import TransientError
from sync.messages import Ack, decode_ack
from sync.mqtt import Message
from tests.cloud_ingest.ingest_testbed import ACK_KEY, EPOCH, NOW_US, Receiver, SendingHub
from tests.databases import ON_BOTH
from tests.postgresql import Server

DATABASES = ON_BOTH


@pytest.fixture
def hubs(clinic: Receiver) -> list[SendingHub]:
    return [SendingHub(f"hub-{n}", f"subject-{n}").register(clinic.registry) for n in range(3)]


def handle(clinic: Receiver, *messages: Message) -> list[Ack | None]:
    handled = handle_messages(clinic.store, clinic.registry, ACK_KEY, messages, NOW_US)
    return [None if one.payload is None else decode_ack(one.payload, ACK_KEY.public) for one in handled]


def without_commits(ack: Ack | None) -> Ack | None:
    return ack and replace(ack, store=bytes(16), commits=0)


def mixed_messages(hubs: list[SendingHub]) -> list[Message]:
    """Messages of three hubs: in order, early, repeated, forged, of a foreign subject, and with a conflict."""
    one, two, three = hubs
    early, late = one.seal(3), one.seal(2, "wave")
    other = replace(two, subject="subject-9").seal(1, "alert")
    conflicting = replace(three, chains={}, blocks={}, device=three.device).seal(1, plaintext=b"other")
    forged = two.message(*two.seal(1, "wave"))
    return [
        one.message(*early[1:]),
        two.message(*two.seal(2), *other),
        one.message(*late, keys=(), wraps=()),
        three.message(*three.seal(2)),
        Message(forged.topic, forged.payload[:-1] + bytes([forged.payload[-1] ^ 1])),
        one.message(early[0]),
        three.message(*conflicting),
        one.message(*early),
    ]


def test_each_message_of_a_group_is_answered(clinic: Receiver, hubs: list[SendingHub]) -> None:
    one, two, three = hubs
    early, first, late, own, forged, filling, conflict, repeated = handle(clinic, *mixed_messages(hubs))
    assert early is not None
    assert first is not None
    assert late is not None
    assert own is not None
    assert filling is not None
    assert conflict is not None
    assert repeated is not None
    assert forged is None
    assert [ack.hub for ack in (early, first, late, own)] == ["hub-0", "hub-1", "hub-0", "hub-2"]
    assert early.marks == filling.marks == repeated.marks == (one.mark("vital", 3),)
    assert late.marks == (one.mark("wave", 2),)
    assert [row.reason for row in first.aside] == ["the subject is not assigned to the hub"]
    assert two.mark("vital", 2) in first.marks
    assert own.marks == (three.mark("vital", 2),)
    assert ([row.reason for row in conflict.aside], conflict.held) == (["conflict"], ())
    assert clinic.store.counts() == StoreCounts(stored=9, quarantined=2, conflicts=1, rejected_messages=1)
    assert clinic.store.identity().commits == 1


def test_a_group_is_answered_like_its_messages_one_by_one(clinic: Receiver, hubs: list[SendingHub], tmp_path: Any) -> None:
    """But the marks are those after the whole group."""
    messages = mixed_messages(hubs)
    with closing(Store.open(tmp_path / "alone.db")) as store:
        alone = Receiver(store, clinic.registry)
        for message in messages:
            handle(alone, message)
        expected = [handle(alone, message)[0] for message in messages]
        together = handle(clinic, *messages)
        assert [without_commits(ack) for ack in together] == [without_commits(ack) for ack in expected]
        rows = [[(r.id, r.key, r.block) for r in held.blocks_after(None, 100)] for held in (store, clinic.store)]
        assert rows[0] == rows[1]


def test_the_work_of_a_group_is_counted_once(clinic: Receiver, hubs: list[SendingHub]) -> None:
    sent = [hub.message(*hub.seal(2)) for hub in hubs for _ in range(2)]
    handled = handle_messages(clinic.store, clinic.registry, ACK_KEY, [*sent, sent[0]], NOW_US)
    assert [one.n_work for one in handled] == [2, 2, 2, 2, 2, 2, 0]


def test_two_conflicting_blocks_of_one_group_are_told_apart(clinic: Receiver, hubs: list[SendingHub]) -> None:
    hub = hubs[0]
    block, other = hub.seal(1)[0], replace(hub, chains={}, blocks={}).seal(1, plaintext=b"other")[0]
    first, second = handle(clinic, hub.message(block), hub.message(other))
    assert first is not None
    assert second is not None
    assert (len(first.held), first.aside) == (1, ())
    assert (second.held, [row.reason for row in second.aside]) == ((), ["conflict"])
    assert [row.block for row in clinic.store.blocks_after(None, 9)] == [block]


def test_the_number_of_statements_does_not_depend_on_the_number_of_messages(clinic: Receiver, hubs: list[SendingHub]) -> None:
    engine, n_statements = clinic.store._engine, 0

    def count(*_: Any) -> None:
        nonlocal n_statements
        n_statements += 1

    handle(clinic, *(hub.message(*hub.seal(1)) for hub in hubs))
    event.listen(engine, "before_cursor_execute", count)
    counts = []
    for n in (1, 20):
        before = n_statements
        handle(clinic, *(hub.message(*hub.seal(3, "wave"), keys=(), wraps=()) for _ in range(n) for hub in hubs[:2]))
        counts.append(n_statements - before)
    assert counts[0] == counts[1]
    assert counts[1] <= 20


def test_nothing_of_a_group_is_acknowledged_if_its_commit_fails(
    clinic: Receiver, hubs: list[SendingHub], make_link: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hubs send again, and then everything is stored."""
    link, calls = make_link(), list[int]()

    async def call(function: Callable[..., Any], /, *values: Any) -> Any:
        calls.append(len(values[3]))
        if len(calls) == 1:
            raise TransientError("the disk is full")
        return function(*values)

    async def scenario() -> list[Any]:
        link.connect()
        sent = [hub.message(*hub.seal(1)) for hub in hubs]
        for message in (*sent, *sent):
            await link.hub.publish(message.topic, message.payload)
        monkeypatch.setattr("cloud.tracks.GROUP_MESSAGES", 3)
        ingest = run_ingest(clinic.store, clinic.registry, ACK_KEY, link.clinic, lambda: None, now_us=lambda: NOW_US, call=call)
        running = asyncio.create_task(ingest)
        await link.hub.receive()
        acks = [await link.hub.receive() for _ in hubs]
        running.cancel()
        return acks

    acks = asyncio.run(scenario())
    assert calls == [3, 3]
    assert sorted(decode_ack(ack.payload, ACK_KEY.public).hub for ack in acks) == [hub.name for hub in hubs]
    assert clinic.store.count_blocks() == 3


def test_a_group_is_bounded(clinic: Receiver, hubs: list[SendingHub], make_link: Callable[[], Any]) -> None:
    link, sizes = make_link(), list[int]()

    async def call(_function: Callable[..., Any], /, *values: Any) -> Any:
        sizes.append(len(values[3]))
        return []

    async def scenario() -> None:
        link.connect()
        message = hubs[0].message(*hubs[0].seal(1))
        for _ in range(GROUP_MESSAGES + 1):
            await link.hub.publish(message.topic, message.payload)
        ingest = run_ingest(clinic.store, clinic.registry, ACK_KEY, link.clinic, lambda: None, now_us=lambda: NOW_US, call=call)
        running = asyncio.create_task(ingest)
        while sum(sizes) <= GROUP_MESSAGES:
            await asyncio.sleep(0)
        running.cancel()

    asyncio.run(scenario())
    assert sizes == [GROUP_MESSAGES, 1]


def test_a_mark_advances_over_what_another_ingest_stored(clinic: Receiver, hubs: list[SendingHub]) -> None:
    """The group knows its own blocks; those behind them are read."""
    hub = hubs[0]
    blocks = hub.seal(7)
    handle(clinic, hub.message(*blocks[2:4]), hub.message(blocks[6]))
    (ack,) = handle(clinic, hub.message(*blocks[:2]))
    assert ack is not None
    assert ack.marks == (hub.mark("vital", 4),)
    assert ack.marks[0].epoch == EPOCH


ROWS = Table(
    "rows_of_a_test",
    MetaData(),
    *(Column("id", Integer, primary_key=True), Column("text", Text), Column("bytes", LargeBinary, nullable=False)),
    *(Column("number", Integer), Column("is_set", Boolean, nullable=False)),
)
INSERT = RowInsert(ROWS, tuple(ROWS.c.keys()), lambda new: new.on_conflict_do_nothing().returning(ROWS.c.id))
FIND = RowQuery((ROWS.c.text, ROWS.c.bytes), lambda are_wanted: select(ROWS).where(are_wanted).order_by(ROWS.c.id))
COUNT = RowQuery([ROWS.c.text], lambda are_wanted: select(func.count()).select_from(ROWS).where(are_wanted))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)
rows = st.lists(st.tuples(texts, st.binary(max_size=8), st.none() | st.integers(-9, 2**31 - 1), st.booleans()), max_size=5)


@settings(max_examples=60, deadline=None)
@given(values=rows)
def test_rows_are_stored_and_found_as_they_are(postgresql: Server, values: list[Any]) -> None:
    """Quotes, backslashes, commas, braces and the word NULL are values like others."""
    postgresql.create_if_missing("rows")
    numbered = [(n, *row) for n, row in enumerate(values)]
    with postgresql.engine("rows").connect() as connection:
        ROWS.create(connection)
        assert [row.id for row in INSERT.execute(connection, numbered)] == [row[0] for row in numbered]
        found = [tuple(row) for row in FIND.execute(connection, {(row[1], row[2]) for row in numbered})]
        assert found == numbered
        assert COUNT.execute(connection, [('a"b\\c,{NULL}',)])[0][0] == sum(row[1] == 'a"b\\c,{NULL}' for row in numbered)
        connection.rollback()
