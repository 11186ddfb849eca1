"""What is missing: gaps below the end of each sequence, known by blocks, signed heads, marks and the next epoch's start."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.completeness import BlockRange, Completeness, SequenceId, find_gaps, read_completeness
from cloud.export import ExportTotals, export_records
from cloud.store import Store
from sync.message_rows import Dropped
from sync.messages import SignedEnvelope, decode_envelope
from sync.wire import MAX_COUNT
from tests.clinic_testbed import Clinic, Hub
from tests.cloud.synthetic import START_US, heart_rate
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
RANGES = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9)).map(lambda row: (row[0], row[0] + row[1])), max_size=8)


@given(ranges=RANGES, end=st.integers(0, 40))
def test_gaps_are_the_numbers_that_no_range_covers(ranges: list[tuple[int, int]], end: int) -> None:
    covered = {seq for first, last in ranges for seq in range(first, last + 1)}
    expected = set(range(1, max([end, *covered]) + 1)) - covered
    gaps = find_gaps(ranges, end)
    assert [seq for first, last in gaps for seq in range(first, last + 1)] == sorted(expected)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(gaps))


@pytest.fixture
def totals(store: Store, clinic: Clinic) -> "Export":
    return Export(store, clinic)


class Export:
    def __init__(self, store: Store, clinic: Clinic) -> None:
        self._store, self._clinic = store, clinic

    def account(self) -> dict[str, object]:
        totals = ExportTotals()
        assert list(export_records(self._store, self._clinic.reader(self._store), totals)) is not None
        return totals.as_json()

    def missing(self) -> list[tuple[object, ...]]:
        account = self.account()
        found = [tuple(row.values()) for row in account["missing"]]  # type: ignore[attr-defined]
        assert account["missing_blocks"] == sum(last - first + 1 for *_, first, last in found)
        return found


def seal(hub: Hub, n: int) -> list[bytes]:
    return [hub.seal_records("vital", heart_rate(START_US + seq, 60.0)) for seq in range(n)]


def test_a_signed_head_makes_the_end_of_a_sequence_known(store: Store, hub: Hub, totals: Export) -> None:
    blocks = seal(hub, 7)
    hub.receive(store, hub.message(blocks[1], blocks[4]))
    assert totals.missing() == [("hub-1", "vital", 1, 1, 1), ("hub-1", "vital", 1, 3, 4), ("hub-1", "vital", 1, 6, 7)]
    hub.receive(store, hub.message(blocks[0], blocks[2], blocks[3], blocks[5]))
    assert totals.missing() == [("hub-1", "vital", 1, 7, 7)]
    hub.receive(store, hub.message(blocks[6]))
    assert totals.missing() == []


def test_a_head_far_away_is_one_range(store: Store, hub: Hub, totals: Export) -> None:
    seal(hub, 1)
    envelope = hub.envelope()
    heads = tuple(head._replace(seq=MAX_COUNT) if head.lane == "wave" else head for head in envelope.heads)
    hub.receive(store, hub.sign(replace(envelope, heads=heads), "wave"))
    assert totals.account()["missing_blocks"] == MAX_COUNT + 1


def test_a_dropped_block_that_the_clinic_holds_is_not_lost() -> None:
    found = Completeness(dropped=[BlockRange("hub-1", "wave", 1, 2, 6), BlockRange("hub-1", "wave", 2, 1, 1)])
    found.held[SequenceId("hub-1", "wave", 1)] |= {1, 3, 4, 9}
    found.held[SequenceId("hub-1", "wave", 2)] |= {1}
    assert [row[3:] for row in found.lost()] == [(2, 2), (5, 6)]


def test_dropped_and_quarantined_blocks_are_not_missing(store: Store, hub: Hub, totals: Export) -> None:
    blocks = seal(hub, 6)
    chain = hub.envelope().heads[1].chain
    strange = replace(hub.envelope(blocks[0], blocks[5]), dropped=(Dropped("vital", 1, 2, 4, chain),))
    hub.receive(store, hub.sign(strange, "vital"))
    assert totals.missing() == [("hub-1", "vital", 1, 5, 5)]
    assert totals.account()["dropped"] == [{"hub": "hub-1", "lane": "vital", "epoch": 1, "first": 2, "last": 4}]


def test_blocks_of_an_erased_subject_are_not_missing(store: Store, hub: Hub, clinic: Clinic, totals: Export) -> None:
    other = clinic.add_hub("hub-2", "subject-2")
    for each in (hub, other):
        each.receive(store, each.message(*seal(each, 3)[1:]))
    store.erase(other.subject, START_US)
    assert totals.missing() == [("hub-1", "vital", 1, 1, 1)]
    other.epoch = 2
    other.receive(store, other.message(*seal(other, 2)))
    assert totals.missing() == [("hub-1", "vital", 1, 1, 1)]


def test_the_heads_are_those_of_the_envelope_with_most_blocks(store: Store, hub: Hub) -> None:
    """They come with what the hub signed, so that they prove the end of each lane."""
    old, new = [hub.message(*seal(hub, 2)) for _ in range(2)]
    for message in (new, old):
        hub.receive(store, message)
    signed = decode_envelope(new.payload)
    with store.transaction() as connection:
        found: Completeness = read_completeness(connection)
        (row,) = connection.exec_driver_sql("SELECT epoch, content, signature FROM epochs").all()
    assert {sequence.lane: end for sequence, end in found.ends.items()} == {"alert": 0, "vital": 4, "wave": 0}
    kept = SignedEnvelope(replace(signed.envelope, epoch=row.epoch), bytes(row.content), bytes(row.signature))
    assert kept.verify(hub.device.public).heads[1].seq == 4
