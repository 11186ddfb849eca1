"""Ingest of one message: form, identity, invalid blocks, duplicates, marks."""

import os
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from cloud.ingest import UNKNOWN_HUB, handle_message
from cloud.store import Store
from cloud.store_tables import SCHEMA_VERSION
from sync.errors import PermanentError, TransientError
from sync.mqtt import Message
from sync.seal import BlockHeader, DataKey, parse_header, seal_block
from sync.wire import Ack, BlockId, Envelope, Lane, Mark, Range, Rejected, WrappedKey, encode_envelope, up_topic
from tests.databases import ON_BOTH

KEY = DataKey(bytes(16), bytes(32))
WRAPPED = WrappedKey(KEY.id, b"wrapped")
HUB = "hub-1"
NOW_US = 1_790_000_000_000_000
DATABASES = ON_BOTH


def block(seq: int, plaintext: bytes = b"x", *, hub: str = HUB, lane: Lane = "vital", epoch: int = 9) -> bytes:
    return seal_block(BlockHeader(hub, "subject-1", epoch, lane, seq, KEY.id), plaintext, KEY)


def message(*blocks: bytes, keys: tuple[WrappedKey, ...] = (WRAPPED,), hub: str = HUB, lane: Lane = "vital") -> Message:
    return Message(up_topic(hub, lane), encode_envelope(Envelope(hub, blocks, keys)))


def ingest_message(store: Store, sent: Message) -> Ack:
    ack, _ = handle_message(store, sent, NOW_US)
    assert ack is not None
    return ack


@pytest.fixture
def store(testbed: Any) -> Store:
    return testbed.store  # type: ignore[no-any-return]


def test_stores_blocks_as_received(store: Store) -> None:
    blocks = (block(1), block(2))
    ack, new_blocks = handle_message(store, message(*blocks), NOW_US)
    assert ack == Ack(HUB, "main", 1, (Mark("vital", 9, 2),), (), (KEY.id,))
    assert new_blocks == 2
    rows = store.blocks_after(None, 10)
    assert [(row.hub, row.position, row.key, row.block, row.received_us) for row in rows] == [
        (HUB, BlockId("vital", 9, seq), KEY.id, blocks[seq - 1], NOW_US) for seq in (1, 2)
    ]
    assert store.blocks_after(rows[0].id, 10) == rows[1:]
    assert store.wrapped_key(HUB, KEY.id) == b"wrapped"
    assert store.wrapped_key("hub-2", KEY.id) is None


def test_stores_a_repeated_message_once_and_acknowledges_it_twice(store: Store) -> None:
    sent = message(block(1), block(2))
    first, second = handle_message(store, sent, NOW_US), handle_message(store, sent, NOW_US + 1)
    assert first[0] == second[0]
    assert (first[1], second[1]) == (2, 0)
    assert store.count_blocks() == 2
    assert store.list_quarantined() == []


def test_ranges_acknowledge_blocks_beyond_a_gap_until_the_mark_passes_it(store: Store) -> None:
    late = ingest_message(store, message(block(3), block(4), block(7)))
    assert (late.marks, late.ranges) == ((Mark("vital", 9, 0),), (Range("vital", 9, 3, 4), Range("vital", 9, 7, 7)))
    filled = ingest_message(store, message(block(1), block(2), keys=()))
    assert (filled.marks, filled.ranges) == ((Mark("vital", 9, 4),), ())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(1, 13)), cuts=st.lists(st.integers(1, 11), max_size=4))
def test_the_mark_is_the_end_of_the_gap_free_sequence_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: list[int]
) -> None:
    store = Store.open(tmp_path_factory.mktemp("store") / "store.db")
    edges = [0, *sorted(set(cuts)), 12]
    received: set[int] = set()
    for start, end in pairwise(edges):
        ack = ingest_message(store, message(*(block(seq) for seq in order[start:end])))
        received.update(order[start:end])
        mark = next(seq for seq in range(14) if seq + 1 not in received)
        assert ack.marks == (Mark("vital", 9, mark),)
        covered = {seq for row in ack.ranges for seq in range(row.first, row.last + 1)}
        assert covered == {seq for seq in order[start:end] if seq > mark}
    store.close()


def test_a_mark_can_advance_over_more_than_a_thousand_blocks(store: Store) -> None:
    for start in range(2, 1400, 200):
        ingest_message(store, message(*(block(seq) for seq in range(start, start + 200))))
    assert ingest_message(store, message(block(1))).marks == (Mark("vital", 9, 1401),)


def test_quarantines_a_second_block_with_the_same_position_and_keeps_the_first(store: Store) -> None:
    first, other, next_ = block(1, b"first"), block(1, b"other"), block(2)
    ingest_message(store, message(first))
    for _ in range(2):
        ack = ingest_message(store, message(other, next_))
        assert ack.rejected == (Rejected("vital", 9, 1, "conflict"),)
        assert ack.marks == (Mark("vital", 9, 2),)
    assert store.blocks_after(None, 1)[0].block == first
    assert [(row.reason, row.bytes, row.position) for row in store.list_quarantined()] == [
        ("conflict", other, BlockId("vital", 9, 1))
    ]


def test_does_not_store_a_block_before_its_key_has_arrived(store: Store) -> None:
    without = ingest_message(store, message(block(1), keys=()))
    assert (without.marks, without.ranges, store.count_blocks()) == ((), (), 0)
    assert ingest_message(store, message(block(1))).marks == (Mark("vital", 9, 1),)
    assert (
        ingest_message(store, message(block(1, hub="hub-2"), hub="hub-2", keys=())).marks == ()
    )  # another hub's key does not count


def test_quarantines_invalid_blocks_and_stores_the_others(store: Store) -> None:
    foreign, wrong_lane = block(2, hub="hub-2"), block(5, lane="wave")
    ack = ingest_message(store, message(block(1), b"PG garbage", foreign, wrong_lane, block(2)))
    assert ack.marks == (Mark("vital", 9, 2), Mark("wave", 9, 0))
    assert [row[:3] for row in ack.rejected] == [("wave", 9, 5)]
    assert store.count_blocks() == 2
    assert [(row.hub, row.bytes) for row in store.list_quarantined()] == [
        (HUB, b"PG garbage"),
        (HUB, foreign),
        (HUB, wrong_lane),
    ]


@pytest.mark.parametrize("error", [TypeError, OverflowError, RecursionError, MemoryError])
def test_any_exception_of_one_block_quarantines_only_that_block(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    poison = block(2)

    def parse(data: bytes) -> BlockHeader:
        if data == poison:
            raise error("CANARY-4711")
        return parse_header(data)

    monkeypatch.setattr("cloud.ingest.parse_header", parse)
    ack = ingest_message(store, message(block(1), poison, block(3)))
    assert (ack.marks, ack.ranges) == ((Mark("vital", 9, 1),), (Range("vital", 9, 3, 3),))
    assert [(row.reason, row.bytes) for row in store.list_quarantined()] == [
        (f"reading its header failed: {error.__name__}", poison)
    ]


def test_any_exception_of_one_message_quarantines_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_payload: bytes) -> Envelope:
        raise RecursionError

    with monkeypatch.context() as patched:
        patched.setattr("cloud.ingest.decode_envelope", fail)
        assert handle_message(store, message(block(1)), NOW_US) == (None, 0)
    assert [(row.hub, row.reason) for row in store.list_quarantined()] == [(HUB, "reading it failed: RecursionError")]
    assert ingest_message(store, message(block(1))).marks == (Mark("vital", 9, 1),)


def test_the_mark_advances_over_a_quarantined_block(store: Store) -> None:
    ingest_message(store, message(block(1, lane="wave")))  # on the topic of another lane
    assert ingest_message(store, message(block(2, lane="wave"), lane="wave")).marks == (Mark("wave", 9, 2),)


@pytest.mark.parametrize(
    ("sent", "hub"),
    [
        (Message(up_topic(HUB, "vital"), b"not CBOR"), HUB),
        (Message(up_topic(HUB, "vital"), b""), HUB),
        (Message(up_topic(HUB, "vital"), bytes(70_000)), HUB),
        (Message(up_topic("hub-2", "vital"), message(block(1)).payload), "hub-2"),
        (Message("pulsegate/v1/hub-1/up/archive", message(block(1)).payload), HUB),
        (Message("pulsegate/v1/ /up/vital", b"x"), UNKNOWN_HUB),
        (Message("elsewhere", b"x"), UNKNOWN_HUB),
    ],
)
def test_quarantines_an_invalid_message_without_acknowledging_it(store: Store, sent: Message, hub: str) -> None:
    assert handle_message(store, sent, NOW_US) == (None, 0)
    assert handle_message(store, sent, NOW_US) == (None, 0)
    (row,) = store.list_quarantined()
    assert (row.hub, row.position) == (hub, None)
    assert row.bytes == sent.payload[: 64 * 1024]
    assert store.count_blocks() == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=200), flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=3))
def test_fuzzed_messages_do_not_raise(store: Store, payload: bytes, flips: list[tuple[int, int]]) -> None:
    changed = bytearray(message(block(1), block(2)).payload)
    for at, mask in flips:
        changed[at % len(changed)] ^= mask
    for sent in (payload, bytes(changed)):
        before = len(store.list_quarantined()) + store.count_blocks()
        ack, _ = handle_message(store, Message(up_topic(HUB, "vital"), sent), NOW_US)
        assert ack is not None or len(store.list_quarantined()) + store.count_blocks() >= before


class TestStoreFile:
    def test_rejects_a_newer_version(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        Store.open(path).close()
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            connection.execute(text("UPDATE schema_version SET version = version + 1"))
        engine.dispose()
        before = path.read_bytes()
        with pytest.raises(PermanentError, match=rf"newer pulsegate \(schema {SCHEMA_VERSION + 1}.*update"):
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
                ingest_message(store, message(block(1)))
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
        for seq in (1, 2, 3):
            store = Store.open(tmp_path / "store.db")
            assert ingest_message(store, message(block(seq))).marks == (Mark("vital", 9, seq),)
            store.close()

    def test_a_lock_of_another_process_is_a_transient_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cloud.store.BUSY_TIMEOUT_S", 0.01)
        store, other = Store.open(tmp_path / "store.db"), create_engine(f"sqlite:///{tmp_path / 'store.db'}")
        with other.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(TransientError, match="locked"):
                handle_message(store, message(block(1)), NOW_US)
            connection.exec_driver_sql("ROLLBACK")
        assert ingest_message(store, message(block(1))).marks == (Mark("vital", 9, 1),)
        store.close()
        other.dispose()
