"""Ingest of one message: what is stored and acknowledged, marks, quarantine, and the limits of an acknowledgement."""

import os
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from cloud.check_message import NOT_ASSIGNED
from cloud.store import Store
from cloud.store.schema import SCHEMA
from cloud.store.stored_blocks import StoreCounts
from sync.chain import block_digest, extend_chain
from sync.data_keys import WrappedKey
from sync.errors import PermanentError, TransientError
from sync.message_rows import Dropped, Held
from sync.messages import Ack, encode_ack
from sync.mqtt import Message
from sync.seal import BlockHeader, parse_header, seal_block
from sync.wire import MAX_COUNT, MESSAGE_LIMIT_BYTES, BlockId, up_topic
from tests.cloud_ingest.ingest_testbed import ACK_KEY, EPOCH, FINGERPRINT, HUB, NOW_US, Receiver, SendingHub
from tests.databases import ON_BOTH

DATABASES = ON_BOTH


def held(hub: SendingHub, lane: str, *seqs: int) -> Held:
    blocks = [hub.blocks[BlockId(lane, hub.epoch, seq)] for seq in seqs]  # type: ignore[arg-type]
    return Held(lane, hub.epoch, seqs[0], tuple(map(block_digest, blocks)))  # type: ignore[arg-type]


def test_stores_blocks_as_received(clinic: Receiver, hub: SendingHub) -> None:
    blocks = hub.seal(2)
    ack, n_work = clinic.handle(hub.message(*blocks))
    identity = clinic.store.identity()
    assert identity.commits == 1
    assert ack == Ack(
        HUB,
        "main",
        *identity,
        epoch=EPOCH,
        marks=(hub.mark("vital", 2),),
        held=(held(hub, "vital", 1, 2),),
        keys=(hub.key.id,),
        wraps=((hub.key.id, FINGERPRINT),),
    )
    assert n_work == 2
    rows = clinic.store.blocks_after(None, 10)
    assert [(row.hub, row.position, row.key, row.block, row.received_us) for row in rows] == [
        (HUB, BlockId("vital", EPOCH, seq), hub.key.id, blocks[seq - 1], NOW_US) for seq in (1, 2)
    ]
    assert clinic.store.blocks_after(rows[0].id, 10) == rows[1:]
    assert clinic.store.key_statement(HUB, hub.key.id) == hub.statement
    assert clinic.store.wrapped_keys(HUB, hub.key.id) == [hub.wrapped]
    assert (clinic.store.key_statement("hub-2", hub.key.id), clinic.store.wrapped_keys("hub-2", hub.key.id)) == (None, [])


def test_a_repeated_message_is_stored_once_and_answered_like_the_first(clinic: Receiver, hub: SendingHub) -> None:
    sent = hub.message(*hub.seal(2, "wave"))
    (first, n_first), (second, n_second) = clinic.handle(sent), clinic.handle(sent)
    assert first == second
    assert (n_first, n_second) == (2, 0)
    assert clinic.store.counts() == StoreCounts(stored=2)


@pytest.mark.parametrize("lane", ["alert", "vital", "wave"])
def test_a_block_is_stored_whatever_topic_it_came_on(clinic: Receiver, hub: SendingHub, lane: str) -> None:
    blocks = [*hub.seal(1, "alert"), *hub.seal(1, "vital"), *hub.seal(1, "wave")]
    ack = clinic.receive(hub.message(*blocks, lane=lane))  # type: ignore[arg-type]
    assert ack.marks == (hub.mark("alert", 1), hub.mark("vital", 1), hub.mark("wave", 1))
    assert (ack.aside, clinic.store.count_blocks()) == ((), 3)


def test_held_names_blocks_beyond_a_gap_until_the_mark_passes_it(clinic: Receiver, hub: SendingHub) -> None:
    blocks = hub.seal(7)
    late = clinic.receive(hub.message(blocks[2], blocks[3], blocks[6]))
    assert (late.marks, late.held) == ((hub.mark("vital", 0),), (held(hub, "vital", 3, 4), held(hub, "vital", 7)))
    filled = clinic.receive(hub.message(blocks[0], blocks[1], keys=(), wraps=()))
    assert (filled.marks, filled.held, filled.keys) == ((hub.mark("vital", 4),), (held(hub, "vital", 1, 2),), ())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(12)), cuts=st.lists(st.integers(1, 11), max_size=4), first=st.integers(1, 12))
def test_the_mark_is_the_end_of_the_gap_free_sequence_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: list[int], first: int
) -> None:
    """Blocks `first` … 12 are dropped first: the hub said so before it sent the others."""
    store = Store.open(tmp_path_factory.mktemp("store") / "store.db")
    clinic = Receiver(store)
    hub = SendingHub().register(clinic.registry)
    blocks = hub.seal(12)
    dropped = (Dropped("vital", EPOCH, first, 12, hub.chain("vital")[12]),) if first > 6 else ()
    end = first if dropped else 13
    received: set[int] = set(range(end, 13))
    for start, stop in pairwise([0, *sorted(set(cuts)), 12]):
        sent = [i for i in order[start:stop] if i + 1 < end]
        ack = clinic.receive(hub.message(*(blocks[i] for i in sent), dropped=dropped))
        received.update(i + 1 for i in sent)
        mark = next(seq for seq in range(14) if seq + 1 not in received)
        assert ack.marks == ((hub.mark("vital", mark),) if sent or dropped else ())
        named = {(row.first + n, digest) for row in ack.held for n, digest in enumerate(row.digests)}
        assert named == {(i + 1, block_digest(blocks[i])) for i in sent}
    store.close()


def test_a_mark_can_advance_over_more_than_a_thousand_blocks(clinic: Receiver, hub: SendingHub) -> None:
    blocks = hub.seal(1401)
    for start in range(1, 1400, 200):
        clinic.receive(hub.message(*blocks[start : start + 200]))
    assert clinic.receive(hub.message(blocks[0])).marks == (hub.mark("vital", 1401),)


def test_a_mark_advances_over_dropped_ranges(clinic: Receiver, hub: SendingHub) -> None:
    """A range may begin below the mark, grow, and hold blocks that had arrived."""
    blocks, chain = hub.seal(9, "wave"), hub.chain("wave")
    assert clinic.receive(hub.message(*blocks[:2], blocks[3])).marks == (hub.mark("wave", 2),)
    first = Dropped("wave", EPOCH, 2, 3, chain[3])
    assert clinic.receive(hub.message(dropped=(first,))).marks == (hub.mark("wave", 4),)
    longer = (first._replace(last=6, chain=chain[6]), Dropped("wave", EPOCH, 8, 8, chain[8]))
    assert clinic.receive(hub.message(dropped=longer)).marks == (hub.mark("wave", 6),)
    assert clinic.receive(hub.message(blocks[6], dropped=(first,))).marks == (hub.mark("wave", 8),)
    assert clinic.receive(hub.message(blocks[8])).marks == (hub.mark("wave", 9),)
    assert clinic.store.count_blocks() == 5


def test_another_block_with_a_stored_id_is_set_aside_and_the_first_stays(clinic: Receiver, hub: SendingHub) -> None:
    first, next_ = hub.seal(2)
    clinic.receive(hub.message(first))
    other = seal_block(hub.header("vital", 1), b"other", hub.key)
    for _ in range(2):
        ack = clinic.receive(hub.message(other, next_))
        assert [tuple(outcome) for outcome in ack.aside] == [("vital", EPOCH, 1, block_digest(other), "conflict")]
        assert ack.marks == (hub.mark("vital", 2),)
        assert ack.held == (held(hub, "vital", 2),)
    assert clinic.store.blocks_after(None, 1)[0].block == first
    assert [(row.reason, row.bytes, row.position) for row in clinic.store.list_quarantined()] == [
        ("conflict", other, BlockId("vital", EPOCH, 1))
    ]


@pytest.mark.parametrize("changes", [{"keys": ()}, {"wraps": ()}])
def test_a_block_waits_for_its_statement_and_wrapped_key(
    clinic: Receiver, hub: SendingHub, changes: dict[str, tuple[()]]
) -> None:
    (block,) = hub.seal()
    without = clinic.receive(hub.message(block, **changes))
    assert (without.marks, without.held, without.aside, clinic.store.count_blocks()) == ((), (), (), 0)
    other = SendingHub("hub-2", key=hub.key).register(clinic.registry)
    clinic.receive(other.message())  # another hub's key does not count
    assert clinic.receive(hub.message(block, **changes)).held == ()
    assert clinic.receive(hub.message(block)).marks == (hub.mark("vital", 1),)
    assert clinic.receive(hub.message(*hub.seal(), keys=(), wraps=())).marks == (hub.mark("vital", 2),)


def test_a_wrapped_key_without_a_statement_is_not_stored(clinic: Receiver, hub: SendingHub) -> None:
    assert clinic.receive(hub.message(keys=())).wraps == ()
    assert clinic.store.wrapped_keys(HUB, hub.key.id) == []


def test_a_key_can_be_wrapped_for_several_recipients(clinic: Receiver, hub: SendingHub) -> None:
    again = WrappedKey(hub.key.id, b"clinic-2", b"wrapped again")
    assert clinic.receive(hub.message(wraps=(again, hub.wrapped))).wraps == (hub.wrapped[:2], again[:2])
    assert clinic.store.wrapped_keys(HUB, hub.key.id) == [hub.wrapped, again]


def test_an_alert_or_vital_sign_that_comes_again_becomes_work_again(clinic: Receiver, hub: SendingHub) -> None:
    sent = hub.message(*hub.seal(1, "alert"), *hub.seal(1, "vital"), *hub.seal(1, "wave"))
    assert clinic.handle(sent)[1] == 3
    assert clinic.handle(sent)[1] == 0, "they are work already"
    with clinic.store.transaction() as connection:
        connection.execute(text("DELETE FROM work"))
    assert clinic.handle(sent)[1] == 2
    with clinic.store.transaction() as connection:
        assert sorted(connection.scalars(text("SELECT lane FROM work"))) == ["alert", "vital"]


def test_unreadable_blocks_are_kept_and_the_others_stored(clinic: Receiver, hub: SendingHub) -> None:
    first, second = hub.seal(2)
    ack = clinic.receive(hub.message(first, b"PG garbage", b"", second))
    assert (ack.marks, ack.aside) == ((hub.mark("vital", 2),), ())
    assert [(row.hub, row.bytes, row.position) for row in clinic.store.list_quarantined()] == [
        (HUB, b"PG garbage", None),
        (HUB, b"", None),
    ]
    assert clinic.store.counts() == StoreCounts(stored=2, quarantined=2)


@pytest.mark.parametrize("error", [TypeError, OverflowError, RecursionError, MemoryError])
def test_any_exception_of_one_block_quarantines_only_that_block(
    clinic: Receiver, hub: SendingHub, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    blocks = hub.seal(3)

    def parse(data: bytes) -> BlockHeader:
        if data == blocks[1]:
            raise error("CANARY-4711")
        return parse_header(data)

    monkeypatch.setattr("cloud.check_message.parse_header", parse)
    assert clinic.receive(hub.message(*blocks)).marks == (hub.mark("vital", 1),)
    assert [(row.reason, row.bytes) for row in clinic.store.list_quarantined()] == [
        (f"reading its header failed: {error.__name__}", blocks[1])
    ]


def test_any_exception_of_one_message_keeps_it_aside(
    clinic: Receiver, hub: SendingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_payload: bytes) -> None:
        raise RecursionError

    sent = hub.message(*hub.seal())
    with monkeypatch.context() as patched:
        patched.setattr("cloud.check_message.decode_envelope", fail)
        assert clinic.handle(sent) == (None, 0)
    assert clinic.store.list_rejected_messages() == [(HUB, "reading it failed: RecursionError", sent.payload)]
    assert clinic.receive(sent).marks == (hub.mark("vital", 1),)


def test_the_mark_advances_over_a_block_that_is_set_aside(clinic: Receiver, hub: SendingHub) -> None:
    blocks = hub.seal(2)
    stranger = seal_block(replace(hub.header("vital", 3), subject="subject-2"), b"x", hub.key)
    ack = clinic.receive(hub.message(*blocks, stranger))
    chain = extend_chain(hub.chain("vital")[2], block_digest(stranger))
    assert [tuple(mark) for mark in ack.marks] == [("vital", EPOCH, 3, chain)]
    assert [(outcome.seq, outcome.reason) for outcome in ack.aside] == [(3, NOT_ASSIGNED)]


@pytest.mark.parametrize(("assigned", "answers"), [("h", 1), ("other", 2)])
def test_a_message_of_as_many_blocks_as_fit_is_answered_within_the_limit(clinic: Receiver, assigned: str, answers: int) -> None:
    """Each block is of an epoch of its own, and is stored or set aside. What an answer has no room for comes again."""
    hub = replace(SendingHub("h", assigned).register(clinic.registry), subject="h")
    left = {}
    while len(left) < 550:
        block_id = BlockId("wave", EPOCH + len(left), MAX_COUNT - 1)
        header = replace(hub.header("wave", block_id.seq), epoch=block_id.epoch)
        left[block_id] = seal_block(header, b"", hub.key)
    assert 0.95 * MESSAGE_LIMIT_BYTES < len(hub.message(*left.values()).payload) < MESSAGE_LIMIT_BYTES
    rounds = 0
    while left:
        ack = clinic.receive(hub.message(*left.values()))
        assert len(encode_ack(ack, ACK_KEY)) <= MESSAGE_LIMIT_BYTES
        settled = {BlockId(row.lane, row.epoch, row.first) for row in ack.held} | {BlockId(*row[:3]) for row in ack.aside}
        assert settled & left.keys()
        left = {block_id: block for block_id, block in left.items() if block_id not in settled}
        rounds += 1
    assert rounds == answers


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=200), flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=3))
def test_fuzzed_messages_are_kept_aside(
    clinic: Receiver, hub: SendingHub, payload: bytes, flips: list[tuple[int, int]]
) -> None:
    sent = hub.message(*hub.seal(2)).payload
    changed = bytearray(sent)
    for at, mask in flips:
        changed[at % len(changed)] ^= mask
    for data in (payload, bytes(changed)):
        before = clinic.store.counts()
        ack, _ = clinic.handle(Message(up_topic(HUB, "vital"), data))
        after = clinic.store.counts()
        if data == sent:
            assert ack is not None
        else:
            assert (ack, after) == (None, before._replace(rejected_messages=before.rejected_messages + 1))


class TestStoreFile:
    def test_rejects_a_newer_version(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        Store.open(path).close()
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            connection.execute(text("UPDATE schema_version SET version = :version"), {"version": SCHEMA.newest + 1})
        engine.dispose()
        before = path.read_bytes()
        with pytest.raises(PermanentError, match=rf"newer pulsegate \(schema {SCHEMA.newest + 1}.*update"):
            Store.open(path)
        assert path.read_bytes() == before

    def test_rejects_a_damaged_file_and_keeps_it(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        path.write_bytes(b"not a database " * 500)
        with pytest.raises(PermanentError, match="damaged"):
            Store.open(path)
        assert path.read_bytes() == b"not a database " * 500

    def test_only_the_owner_may_read_it(self, tmp_path: Path) -> None:
        """The files of a new store, and those of an older version that were readable by all."""
        path = tmp_path / "store.db"
        files = [tmp_path / f"store.db{suffix}" for suffix in ("", "-wal", "-shm")]
        umask = os.umask(0o022)
        try:
            with closing(Store.open(path)) as store:
                clinic = Receiver(store)
                hub = SendingHub().register(clinic.registry)
                clinic.receive(hub.message(*hub.seal()))
                assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3
                for file in files:
                    file.chmod(0o644)
                with closing(Store.open(path)):
                    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3
        finally:
            os.umask(umask)

    def test_names_the_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(PermanentError, match="nowhere"):
            Store.open(tmp_path / "nowhere" / "store.db")

    def test_keeps_blocks_and_marks_after_reopening(self, tmp_path: Path) -> None:
        hub = SendingHub()
        for seq in (1, 2, 3):
            with closing(Store.open(tmp_path / "store.db")) as store:
                clinic = Receiver(store)
                hub.register(clinic.registry)
                assert clinic.receive(hub.message(*hub.seal())).marks == (hub.mark("vital", seq),)

    def test_a_lock_of_another_process_is_a_transient_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cloud.store.store.BUSY_TIMEOUT_S", 0.01)
        store, other = Store.open(tmp_path / "store.db"), create_engine(f"sqlite:///{tmp_path / 'store.db'}")
        clinic = Receiver(store)
        hub = SendingHub().register(clinic.registry)
        sent = hub.message(*hub.seal())
        with other.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(TransientError, match="locked"):
                clinic.handle(sent)
            connection.exec_driver_sql("ROLLBACK")
        assert clinic.receive(sent).marks == (hub.mark("vital", 1),)
        store.close()
        other.dispose()
