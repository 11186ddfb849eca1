"""The outbox: sequences, acknowledgements, keys, state, and invalid database files."""

import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.errors import PermanentError, SyncError, TransientError
from sync.keys import HubKey
from sync.outbox import Outbox, StoredState
from sync.outbox_migrations import SCHEMA_VERSION
from sync.packing import pack_samples
from sync.record_codec import encode_records
from sync.records import Record, StatusRecord, Times, VitalRecord, WaveformRecord
from sync.seal import ClinicKeyPair, SealError, open_block, parse_header, unwrap_at_clinic
from sync.wire import PLAINTEXT_LIMIT_BYTES, BlockId, Mark, Range

VECTORS = Path(__file__).parent / "vectors"
HUB_KEY = HubKey(bytes(range(32)))
CLINIC = ClinicKeyPair.generate()
BOOT_S = 1_790_000_000
DAY_S = 86_400
OpenOutbox = Callable[..., Outbox]


class Clock:
    now = BOOT_S

    def __call__(self) -> int:
        return self.now


def open_at(path: Path, **changes: Any) -> Outbox:
    arguments: dict[str, Any] = {
        "hub": "hub-1",
        "subject": "subject-1",
        "hub_key": HUB_KEY,
        "clinic": CLINIC.public,
        "clock": Clock(),
    }
    return Outbox.open(path, **(arguments | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def open_outbox(path: Path) -> Iterator[OpenOutbox]:
    outboxes: list[Outbox] = []

    def open_one(**changes: Any) -> Outbox:
        outboxes.append(open_at(path, **changes))
        return outboxes[-1]

    yield open_one
    for outbox in outboxes:
        outbox.close()


def plaintext_at_clinic(outbox: Outbox, id_: BlockId, clinic: ClinicKeyPair = CLINIC) -> bytes:
    """Open a stored block at the clinic, with its wrapped key."""
    block = outbox.pending(id_.lane, (id_.epoch, id_.seq - 1), 1)[0]
    header = parse_header(block.sealed)
    (key,) = outbox.keys_for([block.key], also_held=True)
    unwrapped = unwrap_at_clinic(key.wrapped, key_id=key.id, hub=header.hub, subject=header.subject, clinic=clinic)
    return open_block(block.sealed, unwrapped)[1]


class TestSequences:
    def test_numbers_count_from_1_in_each_lane(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        assert outbox.put("vital", b"a") == BlockId("vital", BOOT_S, 1)
        assert outbox.put_many([("wave", b"b"), ("vital", b"c")]) == [BlockId("wave", BOOT_S, 1), BlockId("vital", BOOT_S, 2)]
        assert plaintext_at_clinic(outbox, BlockId("vital", BOOT_S, 2)) == b"c"

    def test_each_opening_begins_a_new_epoch_even_if_the_clock_stands_still_or_goes_back(self, open_outbox: OpenOutbox) -> None:
        clock = Clock()
        epochs = []
        for now in (BOOT_S, BOOT_S, BOOT_S - 100, BOOT_S + 50):
            clock.now = now
            epochs.append(open_outbox(clock=clock).epoch)
        assert epochs == [BOOT_S, BOOT_S + 1, BOOT_S + 2, BOOT_S + 50]

    def test_first_block_of_an_epoch_names_the_previous_one_of_its_lane_even_if_deleted(self, open_outbox: OpenOutbox) -> None:
        first = open_outbox()
        first.put_many([("vital", b"a"), ("vital", b"b")])
        first.acknowledge([Mark("vital", BOOT_S, 2)], [])
        open_outbox()  # an epoch without blocks
        third = open_outbox()
        third.put_many([("vital", b"c"), ("vital", b"d"), ("wave", b"e")])
        headers = {
            block.id: parse_header(block.sealed) for lane in ("vital", "wave") for block in third.pending(lane, (0, 0), 9999)
        }
        assert headers[BlockId("vital", BOOT_S + 2, 1)].prev == (BOOT_S, 2)
        assert headers[BlockId("vital", BOOT_S + 2, 2)].prev is None
        assert headers[BlockId("wave", BOOT_S + 2, 1)].prev is None

    def test_a_failed_put_stores_nothing_and_uses_no_number(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put("vital", b"a", {"last": b"1"})
        with pytest.raises(PermanentError, match="split"):
            outbox.put_many([("vital", b"b"), ("vital", bytes(PLAINTEXT_LIMIT_BYTES + 1))], {"last": b"2"})
        assert outbox.put("vital", b"c").seq == 2
        assert outbox.load_state("last") == b"1"

    def test_pending_continues_after_a_position_and_respects_the_limit(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put_many([("wave", bytes(1000))] * 5)
        size = len(outbox.pending("wave", (0, 0), 1)[0].sealed)
        assert [block.id.seq for block in outbox.pending("wave", (0, 0), 3 * size)] == [1, 2, 3]
        assert [block.id.seq for block in outbox.pending("wave", (BOOT_S, 3), 10**6)] == [4, 5]
        assert [block.id.seq for block in outbox.pending("wave", (BOOT_S, 4), 1)] == [5]
        assert outbox.pending("wave", (BOOT_S, 5), 10**6) == []


class TestSubjects:
    def test_state_belongs_to_the_subject_that_stored_it(self, open_outbox: OpenOutbox) -> None:
        first = open_outbox()
        first.put("vital", b"a", {"alerts": b"first"})
        first.close()
        second = open_outbox(subject="subject-2")
        assert second.load_state("alerts") is None
        second.put("vital", b"b", {"alerts": b"second"})
        assert second.stored_states() == [
            StoredState("subject-1", "alerts", b"first"),
            StoredState("subject-2", "alerts", b"second"),
        ]
        second.delete_states("subject-1")
        assert second.stored_states() == [StoredState("subject-2", "alerts", b"second")]

    def test_seals_for_an_earlier_subject_with_that_subjects_key(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox(subject="subject-2")
        outbox.put("alert", b"own")
        outbox.put_many([("alert", b"of the first")], {"alerts": b"none"}, subject="subject-1")
        outbox.put("alert", b"own again")
        blocks = outbox.pending("alert", (0, 0), 10**6)
        assert [parse_header(block.sealed).subject for block in blocks] == ["subject-2", "subject-1", "subject-2"]
        assert blocks[0].key == blocks[2].key != blocks[1].key
        (wrapped,) = outbox.keys_for([blocks[1].key])
        key = unwrap_at_clinic(wrapped.wrapped, key_id=wrapped.id, hub="hub-1", subject="subject-1", clinic=CLINIC)
        assert open_block(blocks[1].sealed, key)[1] == b"of the first"
        assert outbox.stored_states() == [StoredState("subject-1", "alerts", b"none")]


class TestAcknowledge:
    @settings(max_examples=25)
    @given(mark_seq=st.integers(0, 12), spans=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), max_size=3))
    def test_deletes_only_the_blocks_that_it_covers(self, mark_seq: int, spans: list[tuple[int, int]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            outbox = open_at(Path(folder) / "outbox.db")
            outbox.put_many([(lane, b"x") for _ in range(10) for lane in ("vital", "wave")])
            ranges = [Range("vital", BOOT_S, first, first + extra) for first, extra in spans]
            covered = {*range(1, mark_seq + 1), *(seq for row in ranges for seq in range(row.first, row.last + 1))} & set(
                range(1, 11)
            )
            deleted = outbox.acknowledge([Mark("vital", BOOT_S, mark_seq), Mark("wave", BOOT_S - 1, 9)], ranges)
            left = {block.id.seq for block in outbox.pending("vital", (0, 0), 10**6)}
            statistics = outbox.statistics()
            outbox.close()
        assert deleted == len(covered)
        assert left == set(range(1, 11)) - covered
        assert (statistics.stored, statistics.acknowledged) == (20, len(covered))
        assert statistics.pending == {"alert": 0, "vital": len(left), "wave": 10, "archive": 0}

    def test_numbers_continue_after_all_blocks_are_deleted(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put("alert", b"a")
        assert outbox.acknowledge([Mark("alert", BOOT_S, 1)], []) == 1
        assert outbox.statistics().bytes == 0
        assert outbox.put("alert", b"b").seq == 2
        assert outbox.last_position("alert") == (BOOT_S, 2)
        assert outbox.last_position("wave") == (0, 0)


class TestKeys:
    def test_each_subject_and_utc_day_has_one_key_across_restarts(self, open_outbox: OpenOutbox) -> None:
        clock = Clock()
        clock.now = BOOT_S // DAY_S * DAY_S
        keys = []
        for now, subject in ((0, "a"), (DAY_S - 1, "a"), (DAY_S, "a"), (DAY_S, "b")):
            outbox = open_outbox(clock=clock, subject=subject)
            clock.now = BOOT_S // DAY_S * DAY_S + now
            outbox.put("vital", b"")
            keys.append(parse_header(outbox.pending("vital", (outbox.epoch, 0), 1)[0].sealed).key)
        assert keys[0] == keys[1]
        assert len(set(keys)) == 3

    def test_keys_for_omits_keys_that_the_clinic_holds(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put("vital", b"a")
        (block,) = outbox.pending("vital", (0, 0), 1)
        (wrapped,) = outbox.keys_for([block.key, block.key, bytes(16)])
        assert wrapped.id == block.key
        outbox.mark_keys_held([block.key])
        assert outbox.keys_for([block.key]) == []
        assert outbox.keys_for([block.key], also_held=True) == [wrapped]

    def test_another_clinic_gets_another_key(self, open_outbox: OpenOutbox) -> None:
        open_outbox().put("vital", b"a")
        other = ClinicKeyPair.generate()
        outbox = open_outbox(clinic=other.public)
        assert plaintext_at_clinic(outbox, outbox.put("vital", b"b"), other) == b"b"
        assert plaintext_at_clinic(outbox, BlockId("vital", BOOT_S, 1)) == b"a"


def test_state_survives_a_restart_and_can_be_replaced(open_outbox: OpenOutbox) -> None:
    first = open_outbox()
    first.put("vital", b"", {"a": b"1", "b": b"2"})
    first.put("vital", b"", {"a": b"3"})
    second = open_outbox()
    assert [second.load_state(name) for name in ("a", "b", "c")] == [b"3", b"2", None]


class TestFile:
    def test_files_are_accessible_to_the_owner_only(self, open_outbox: OpenOutbox, path: Path) -> None:
        open_outbox().put("vital", b"a")
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}

    def test_opens_a_database_of_version_1_and_continues_it(self, path: Path) -> None:
        shutil.copy(VECTORS / "outbox_v1.db", path)
        outbox = open_at(path)
        assert [block.id for lane in ("vital", "wave") for block in outbox.pending(lane, (0, 0), 10**6)] == [
            BlockId("vital", BOOT_S, 2),
            BlockId("wave", BOOT_S, 1),
        ]
        assert outbox.load_state("last sample") == b"42"
        assert outbox.put("vital", b"") == BlockId("vital", BOOT_S + 1, 1)
        outbox.close()

    def test_rejects_another_hub_key_without_changes(self, path: Path) -> None:
        open_at(path).close()
        assert_rejected(path, SealError, r"another hub key: restore .* or move the buffer away", hub_key=HubKey(bytes(32)))

    def test_rejects_another_hub_without_changes(self, path: Path) -> None:
        open_at(path).close()
        assert_rejected(path, PermanentError, "belongs to hub hub-1, not hub-2", hub="hub-2")

    def test_rejects_a_newer_version_without_changes(self, path: Path) -> None:
        open_at(path).close()
        newer = SCHEMA_VERSION + 1
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA user_version = {newer}")
        connection.close()
        assert_rejected(path, PermanentError, rf"newer pulsegate \(schema {newer}.*update")

    def test_rejects_the_database_of_another_application_without_changes(self, path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.close()
        assert_rejected(path, PermanentError, "another application")

    @pytest.mark.parametrize("content", [b"not a database " * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
    def test_rejects_a_damaged_file_without_changes(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        assert_rejected(path, PermanentError, "damaged: move it away")

    def test_reports_damage_inside_the_file(self, path: Path) -> None:
        outbox = open_at(path)
        outbox.put_many([("wave", bytes(2000))] * 50)
        outbox.close()
        content = bytearray(path.read_bytes())
        content[4096:] = bytes(len(content) - 4096)
        path.write_bytes(content)
        with pytest.raises(PermanentError, match="damaged"):
            open_at(path)

    def test_error_for_a_missing_folder_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(PermanentError, match="missing"):
            open_at(tmp_path / "missing" / "outbox.db")

    def test_a_lock_of_another_process_is_transient(
        self, open_outbox: OpenOutbox, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sync.outbox.BUSY_TIMEOUT_S", 0.01)
        outbox = open_outbox()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match="locked"):
            outbox.put("vital", b"a")
        other.execute("ROLLBACK")
        other.close()
        assert outbox.put("vital", b"a").seq == 1

    def test_a_full_disk_is_transient_and_keeps_the_stored_blocks(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put("wave", b"kept")
        pages = outbox._connection.execute("PRAGMA page_count").fetchone()[0]
        outbox._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(TransientError, match="free some disk space"):
            outbox.put_many([("wave", bytes(5000))] * 5)
        outbox._connection.execute("PRAGMA max_page_count = 100000")
        assert plaintext_at_clinic(outbox, BlockId("wave", BOOT_S, 1)) == b"kept"
        assert outbox.put("wave", b"next").seq == 2

    @pytest.mark.parametrize("names", [{"hub": "a/b"}, {"subject": ""}])
    def test_rejects_an_invalid_hub_or_subject(self, path: Path, names: dict[str, str]) -> None:
        with pytest.raises(PermanentError, match="letters, digits"):
            open_at(path, **names)


def assert_rejected(path: Path, error: type[SyncError], message: str, **changes: Any) -> None:
    before, files = path.read_bytes(), set(path.parent.iterdir())
    with pytest.raises(error, match=message):
        open_at(path, **changes)
    assert path.read_bytes() == before
    assert set(path.parent.iterdir()) == files


def test_no_plaintext_reaches_the_disk(open_outbox: OpenOutbox, path: Path) -> None:
    """Search the files for a planted heart rate, time, name and sample pattern, in every encoding they could have."""
    time_us, rate, name = 1_789_654_321_987_654, 137.25, "Wilhelmine Musterfrau"
    samples = np.array([31001, -31002, 31003, -31004] * 40, np.int32)
    times = Times(time_us, time_us, 5)
    records: list[Record] = [
        VitalRecord("strap", "heart_rate", times, rate),
        WaveformRecord("strap", "ecg", times, 130.0, 1e-6, samples),
        StatusRecord("strap", "patient", times, name),
    ]
    outbox = open_outbox()
    for _ in range(20):
        outbox.put("wave", encode_records(records), {"timeline strap": encode_records(records)})
    wal = path.with_name(path.name + "-wal")
    assert wal.stat().st_size > 0
    written = path.read_bytes() + wal.read_bytes()
    needles = [name.encode(), str(time_us).encode(), str(rate).encode(), cbor2.dumps(time_us), cbor2.dumps(rate)]
    needles += [
        struct.pack(order + form, value) for order in "<>" for form, value in (("q", time_us), ("d", rate), ("f", rate))
    ]
    needles += [samples[:8].astype(kind).tobytes() for kind in ("<i2", ">i2", "<i4", ">i4")]
    needles += [pack_samples(samples)[:24], b"heart_rate"]
    assert [needle for needle in needles if needle in written] == []
    assert b"hub-1" in written  # proves that the search finds plaintext
