"""The outbox: sequences, subjects, keys, state, and invalid database files."""

import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest

from sync.chain import block_digest, extend_chain, start_chain
from sync.errors import PermanentError, SyncError, TransientError
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox, StoredState
from sync.outbox.migrations import SCHEMA_VERSION
from sync.packing import pack_samples
from sync.recipients import RecipientKeyPair
from sync.record_codec import encode_records
from sync.records import Record, StatusRecord, Times, VitalRecord, WaveformRecord
from sync.registration import RegistrationError
from sync.seal import LaneEnd, SealError, parse_header
from sync.wire import PLAINTEXT_LIMIT_BYTES, BlockId
from tests.sync.outboxes import (
    BOOT_S,
    DAY_S,
    HUB_KEYS,
    RECIPIENTS,
    Clock,
    ack,
    all_pending,
    find_block,
    open_at,
    outcome,
    plaintext_at_clinic,
    registration,
)

OpenOutbox = Callable[..., Outbox]


class TestSequences:
    def test_numbers_count_from_1_in_each_lane(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        epoch = outbox.epoch
        assert outbox.put("vital", b"a") == BlockId("vital", epoch, 1)
        assert outbox.put_many([("wave", b"b"), ("vital", b"c")]) == [BlockId("wave", epoch, 1), BlockId("vital", epoch, 2)]
        assert plaintext_at_clinic(outbox, BlockId("vital", epoch, 2)) == b"c"

    def test_first_block_of_an_epoch_names_the_end_of_the_previous_one_of_its_lane(self, open_outbox: OpenOutbox) -> None:
        first = open_outbox()
        first.put_many([("vital", b"a"), ("vital", b"b")])
        blocks = all_pending(first)
        chain = start_chain("hub-1", "vital", first.epoch)
        for block in blocks:
            chain = extend_chain(chain, block_digest(block.sealed))
        first.apply_ack(ack(refused=tuple(outcome(block, "no consent") for block in blocks)))
        open_outbox()  # an epoch without blocks
        third = open_outbox()
        third.put_many([("vital", b"c"), ("vital", b"d"), ("wave", b"e")])
        headers = {block.id: parse_header(block.sealed) for block in all_pending(third)}
        assert headers[BlockId("vital", third.epoch, 1)].prev == LaneEnd(first.epoch, 2, chain)
        assert headers[BlockId("vital", third.epoch, 2)].prev is None
        assert headers[BlockId("wave", third.epoch, 1)].prev is None

    def test_a_failed_put_stores_nothing_and_uses_no_number(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put("vital", b"a", {"last": b"1"})
        with pytest.raises(PermanentError, match="split"):
            outbox.put_many([("vital", b"b"), ("vital", bytes(PLAINTEXT_LIMIT_BYTES + 1))], {"last": b"2"})
        assert outbox.put("vital", b"c").seq == 2
        assert outbox.load_state("last") == b"1"
        assert outbox.statistics().stored == 2

    def test_pending_continues_after_a_position_and_respects_the_limit(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        epoch = outbox.epoch
        outbox.put_many([("wave", bytes(1000))] * 5)
        size = len(outbox.pending("wave", (0, 0), 1)[0].sealed)
        assert [block.id.seq for block in outbox.pending("wave", (0, 0), 3 * size)] == [1, 2, 3]
        assert [block.id.seq for block in outbox.pending("wave", (epoch, 3), 10**6)] == [4, 5]
        assert [block.id.seq for block in outbox.pending("wave", (epoch, 4), 1)] == [5]
        assert [block.id.seq for block in outbox.pending("wave", (0, 0), 10**6, until=(epoch, 2))] == [1, 2]
        assert outbox.pending("wave", (epoch, 5), 10**6) == []

    def test_pending_does_not_skip_a_large_block_at_the_end_of_an_epoch(self, open_outbox: OpenOutbox) -> None:
        first = open_outbox()
        first.put_many([("wave", b"a"), ("wave", bytes(5000))])
        second = open_outbox()
        second.put("wave", b"c")
        assert [block.id.seq for block in second.pending("wave", (0, 0), 1000)] == [1]
        assert [block.id for block in second.pending("wave", (0, 0), 10**6)] == [
            BlockId("wave", first.epoch, 1),
            BlockId("wave", first.epoch, 2),
            BlockId("wave", second.epoch, 1),
        ]

    def test_last_position_is_that_of_the_newest_block(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put_many([("alert", b"a"), ("alert", b"b")])
        assert outbox.last_position("alert") == (outbox.epoch, 2)
        assert outbox.last_position("wave") == (0, 0)


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
        assert plaintext_at_clinic(outbox, blocks[1].id) == b"of the first"
        assert outbox.stored_states() == [StoredState("subject-1", "alerts", b"none")]


class TestKeys:
    def test_each_subject_and_utc_day_has_one_key_across_restarts(self, open_outbox: OpenOutbox) -> None:
        clock = Clock()
        midnight = BOOT_S // DAY_S * DAY_S + DAY_S
        keys = []
        for now, subject in ((0, "subject-1"), (DAY_S - 9, "subject-1"), (DAY_S, "subject-1"), (DAY_S, "subject-2")):
            clock.now = midnight + now
            outbox = open_outbox(clock=clock, subject=subject)
            id_ = outbox.put("vital", b"")
            block = find_block(outbox, id_)
            keys.append(block.key)
            (statement,), _ = outbox.keys_for([block.key])
            assert (statement.subject, statement.day) == (subject, (midnight + now) // DAY_S)
        assert keys[0] == keys[1]
        assert len(set(keys)) == 3

    def test_keys_for_omits_what_the_clinic_holds(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put("vital", b"a")
        (block,) = outbox.pending("vital", (0, 0), 1)
        (statement,), (wrapped,) = outbox.keys_for([block.key, block.key, bytes(16)])
        outbox.apply_ack(ack(keys=(block.key, bytes(16))))
        assert outbox.keys_for([block.key]) == ([], [wrapped])
        outbox.apply_ack(ack(wraps=((block.key, wrapped.recipient), (block.key, bytes(8)))))
        assert outbox.keys_for([block.key]) == ([], [])
        assert outbox.keys_for([block.key], also_held=True) == ([statement], [wrapped])

    def test_a_new_recipient_gets_every_key_also_the_old_ones(self, open_outbox: OpenOutbox) -> None:
        first = open_outbox()
        id_ = first.put("vital", b"a")
        rotated = {"subject-1": RecipientKeyPair.generate()}
        outbox = open_outbox(registration=registration(rotated))
        assert plaintext_at_clinic(outbox, id_, rotated) == b"a"
        assert plaintext_at_clinic(outbox, id_) == b"a"
        assert plaintext_at_clinic(outbox, outbox.put("vital", b"b"), rotated) == b"b"

    def test_a_subject_that_the_registration_omits_is_told_with_what_to_do(self, open_outbox: OpenOutbox) -> None:
        with pytest.raises(RegistrationError, match=r"no subject subject-3: register .* bring the registration file"):
            open_outbox(subject="subject-3")
        with pytest.raises(RegistrationError, match="no subject subject-3"):
            open_outbox().put_many([("alert", b"a")], subject="subject-3")

    def test_seals_for_an_earlier_subject_that_a_later_registration_omits(self, open_outbox: OpenOutbox) -> None:
        open_outbox().close()
        outbox = open_outbox(subject="subject-2", registration=registration({"subject-2": RECIPIENTS["subject-2"]}))
        (id_,) = outbox.put_many([("alert", b"end")], subject="subject-1")
        assert plaintext_at_clinic(outbox, id_) == b"end"


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

    def test_rejects_another_hub_key_without_changes(self, path: Path) -> None:
        open_at(path).close()
        assert_rejected(
            path,
            SealError,
            r"another hub key: restore .* or move the buffer away",
            keys=HubKeys(HubKey(bytes(32)), HUB_KEYS.device),
        )

    def test_rejects_another_hub_without_changes(self, path: Path) -> None:
        open_at(path).close()
        assert_rejected(path, PermanentError, "belongs to hub hub-1, not hub-2", hub="hub-2")

    def test_rejects_a_newer_version_without_changes(self, path: Path) -> None:
        open_at(path).close()
        newer = SCHEMA_VERSION + 1
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA user_version = {newer}")
            connection.execute("INSERT INTO _sqlite_migrations VALUES (?, 'outbox', ?, '')", (newer, str(newer)))
        connection.close()
        assert_rejected(path, PermanentError, rf"newer pulsegate \(schema {newer}.*update")

    def test_rejects_the_database_of_another_application_without_changes(self, path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.close()
        assert_rejected(path, PermanentError, "another application")

    def test_error_for_a_missing_folder_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(PermanentError, match="missing"):
            open_at(tmp_path / "missing" / "outbox.db")

    def test_a_lock_of_another_process_is_transient(
        self, open_outbox: OpenOutbox, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sync.outbox.schema.BUSY_TIMEOUT_S", 0.01)
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
        pages = outbox._database.connection.execute("PRAGMA page_count").fetchone()[0]
        outbox._database.connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(TransientError, match="free some disk space"):
            outbox.put_many([("wave", bytes(5000))] * 5)
        outbox._database.connection.execute("PRAGMA max_page_count = 100000")
        assert plaintext_at_clinic(outbox, BlockId("wave", outbox.epoch, 1)) == b"kept"
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
