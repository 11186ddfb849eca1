"""What ingest does with one message: form, identity, poison, repetition, marks."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from cloud.ingest import UNKNOWN_HUB, take
from cloud.store import SCHEMA, Store
from sync.errors import Permanent, Transient
from sync.mqtt import Message
from sync.seal import BlockHeader, DataKey, seal_block
from sync.wire import Ack, BlockId, Envelope, Lane, Mark, Range, Rejected, WrappedKey, encode_envelope, up_topic

KEY = DataKey(bytes(16), bytes(32))
WRAPPED = WrappedKey(KEY.id, b"wrapped")
HUB = "hub-1"
NOW_US = 1_790_000_000_000_000


def block(seq: int, plaintext: bytes = b"x", *, hub: str = HUB, lane: Lane = "vital", epoch: int = 9) -> bytes:
    return seal_block(BlockHeader(hub, "subject-1", epoch, lane, seq, KEY.id), plaintext, KEY)


def message(*blocks: bytes, keys: tuple[WrappedKey, ...] = (WRAPPED,), hub: str = HUB, lane: Lane = "vital") -> Message:
    return Message(up_topic(hub, lane), encode_envelope(Envelope(hub, blocks, keys)))


def acknowledged(store: Store, sent: Message) -> Ack:
    ack, _ = take(store, sent, NOW_US)
    assert ack is not None
    return ack


@pytest.fixture
def store(house: Any) -> Store:
    return house.store  # type: ignore[no-any-return]


def test_stores_blocks_as_they_came(store: Store) -> None:
    blocks = (block(1), block(2))
    ack, fresh = take(store, message(*blocks), NOW_US)
    assert ack == Ack(HUB, "main", 1, (Mark("vital", 9, 2),), (), (KEY.id,))
    assert fresh == 2
    rows = store.blocks_after(0, 10)
    assert [(row.hub, row.place, row.key, row.block, row.received_us) for row in rows] == [
        (HUB, BlockId("vital", 9, seq), KEY.id, blocks[seq - 1], NOW_US) for seq in (1, 2)
    ]
    assert store.blocks_after(rows[0].id, 10) == rows[1:]
    assert store.wrapped_key(HUB, KEY.id) == b"wrapped"
    assert store.wrapped_key("hub-2", KEY.id) is None


def test_a_message_that_comes_twice_is_stored_once_and_answered_twice(store: Store) -> None:
    sent = message(block(1), block(2))
    first, second = take(store, sent, NOW_US), take(store, sent, NOW_US + 1)
    assert first[0] == second[0]
    assert (first[1], second[1]) == (2, 0)
    assert store.count() == 2
    assert store.quarantined() == []


def test_holes_are_named_by_ranges_and_closed_by_marks(store: Store) -> None:
    late = acknowledged(store, message(block(3), block(4), block(7)))
    assert (late.marks, late.ranges) == ((Mark("vital", 9, 0),), (Range("vital", 9, 3, 4), Range("vital", 9, 7, 7)))
    filled = acknowledged(store, message(block(1), block(2), keys=()))
    assert (filled.marks, filled.ranges) == ((Mark("vital", 9, 4),), ())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(1, 13)), cuts=st.lists(st.integers(1, 11), max_size=4))
def test_mark_is_the_end_of_the_run_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: list[int]
) -> None:
    store = Store.open(tmp_path_factory.mktemp("store") / "store.db")
    edges = [0, *sorted(set(cuts)), 12]
    came: set[int] = set()
    for start, end in pairwise(edges):
        ack = acknowledged(store, message(*(block(seq) for seq in order[start:end])))
        came.update(order[start:end])
        run = next(seq for seq in range(14) if seq + 1 not in came)
        assert ack.marks == (Mark("vital", 9, run),)
        covered = {seq for row in ack.ranges for seq in range(row.first, row.last + 1)}
        assert covered == {seq for seq in order[start:end] if seq > run}
    store.close()


def test_a_mark_moves_over_thousands_at_once(store: Store) -> None:
    for start in range(2, 1400, 200):
        acknowledged(store, message(*(block(seq) for seq in range(start, start + 200))))
    assert acknowledged(store, message(block(1))).marks == (Mark("vital", 9, 1401),)


def test_another_block_in_the_same_place_is_quarantined_and_the_first_stays(store: Store) -> None:
    first, other, next_ = block(1, b"first"), block(1, b"other"), block(2)
    acknowledged(store, message(first))
    for _ in range(2):
        ack = acknowledged(store, message(other, next_))
        assert ack.rejected == (Rejected("vital", 9, 1, "conflict"),)
        assert ack.marks == (Mark("vital", 9, 2),)
    assert store.blocks_after(0, 1)[0].block == first
    assert [(row.reason, row.bytes, row.place) for row in store.quarantined()] == [("conflict", other, BlockId("vital", 9, 1))]


def test_a_block_without_its_key_waits_for_it(store: Store) -> None:
    without = acknowledged(store, message(block(1), keys=()))
    assert (without.marks, without.ranges, store.count()) == ((), (), 0)
    assert acknowledged(store, message(block(1))).marks == (Mark("vital", 9, 1),)
    assert (
        acknowledged(store, message(block(1, hub="hub-2"), hub="hub-2", keys=())).marks == ()
    )  # another hub's key does not count


def test_poison_is_quarantined_and_its_neighbours_are_stored(store: Store) -> None:
    foreign, misplaced = block(2, hub="hub-2"), block(5, lane="wave")
    ack = acknowledged(store, message(block(1), b"PG rubbish", foreign, misplaced, block(2)))
    assert ack.marks == (Mark("vital", 9, 2), Mark("wave", 9, 0))
    assert [row[:3] for row in ack.rejected] == [("wave", 9, 5)]
    assert store.count() == 2
    assert [(row.hub, row.bytes) for row in store.quarantined()] == [(HUB, b"PG rubbish"), (HUB, foreign), (HUB, misplaced)]


def test_a_hole_held_in_quarantine_does_not_stop_the_mark(store: Store) -> None:
    acknowledged(store, message(block(1, lane="wave")))  # on the topic of another lane
    assert acknowledged(store, message(block(2, lane="wave"), lane="wave")).marks == (Mark("wave", 9, 2),)


@pytest.mark.parametrize(
    ("sent", "owner"),
    [
        (Message(up_topic(HUB, "vital"), b"no CBOR"), HUB),
        (Message(up_topic(HUB, "vital"), b""), HUB),
        (Message(up_topic(HUB, "vital"), bytes(70_000)), HUB),
        (Message(up_topic("hub-2", "vital"), message(block(1)).payload), "hub-2"),
        (Message("pulsegate/v1/hub-1/up/archive", message(block(1)).payload), HUB),
        (Message("pulsegate/v1/ /up/vital", b"x"), UNKNOWN_HUB),
        (Message("elsewhere", b"x"), UNKNOWN_HUB),
    ],
)
def test_what_is_no_message_of_its_topics_hub_is_quarantined_unanswered(store: Store, sent: Message, owner: str) -> None:
    assert take(store, sent, NOW_US) == (None, 0)
    assert take(store, sent, NOW_US) == (None, 0)
    (row,) = store.quarantined()
    assert (row.hub, row.place) == (owner, None)
    assert row.bytes == sent.payload[: 64 * 1024]
    assert store.count() == 0


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=200), flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=3))
def test_fuzzed_messages_never_raise(store: Store, payload: bytes, flips: list[tuple[int, int]]) -> None:
    changed = bytearray(message(block(1), block(2)).payload)
    for at, mask in flips:
        changed[at % len(changed)] ^= mask
    for sent in (payload, bytes(changed)):
        before = len(store.quarantined()) + store.count()
        ack, _ = take(store, Message(up_topic(HUB, "vital"), sent), NOW_US)
        assert ack is not None or len(store.quarantined()) + store.count() >= before


class TestStoreFile:
    def test_of_a_newer_version_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        Store.open(path).close()
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            connection.execute(text("UPDATE schema_version SET version = version + 1"))
        engine.dispose()
        before = path.read_bytes()
        with pytest.raises(Permanent, match=rf"newer pulsegate \(schema {SCHEMA + 1}.*update"):
            Store.open(path)
        assert path.read_bytes() == before

    def test_that_is_damaged_is_refused_and_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        path.write_bytes(b"no database " * 500)
        with pytest.raises(Permanent, match="damaged"):
            Store.open(path)
        assert path.read_bytes() == b"no database " * 500

    def test_in_a_missing_folder_says_where(self, tmp_path: Path) -> None:
        with pytest.raises(Permanent, match="nowhere"):
            Store.open(tmp_path / "nowhere" / "store.db")

    def test_keeps_its_blocks_and_marks(self, tmp_path: Path) -> None:
        for seq in (1, 2, 3):
            store = Store.open(tmp_path / "store.db")
            assert acknowledged(store, message(block(seq))).marks == (Mark("vital", 9, seq),)
            store.close()

    def test_locked_by_another_process_is_transient(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cloud.store.BUSY_TIMEOUT_S", 0.01)
        store, other = Store.open(tmp_path / "store.db"), create_engine(f"sqlite:///{tmp_path / 'store.db'}")
        with other.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(Transient, match="locked"):
                take(store, message(block(1)), NOW_US)
            connection.exec_driver_sql("ROLLBACK")
        assert acknowledged(store, message(block(1))).marks == (Mark("vital", 9, 1),)
        store.close()
        other.dispose()
