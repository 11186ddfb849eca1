"""Buffers of the versions before: their blocks are sealed again, in order, and nothing is lost."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sync.outbox import Outbox, StoredState
from sync.outbox.migrations import SCHEMA_VERSION
from sync.record_codec import decode_records
from sync.records import VitalRecord
from sync.registration import RegistrationError
from sync.seal import parse_header
from sync.wire import epoch_seconds
from tests.sync.outboxes import BOOT_S, RECIPIENTS, all_pending, open_at_clinic, registration

OpenOutbox = Callable[..., Outbox]
VECTORS = Path(__file__).parent / "vectors"


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def test_version_2_is_sealed_again(open_outbox: OpenOutbox, path: Path) -> None:
    shutil.copy(VECTORS / "outbox_v2.db", path)
    outbox = open_outbox(subject="subject-2")
    blocks = all_pending(outbox)
    headers = [parse_header(block.sealed) for block in blocks]
    assert [(header.lane, header.seq, header.subject) for header in headers] == [
        ("alert", 1, "subject-2"),
        ("vital", 1, "subject-1"),
        ("vital", 2, "subject-2"),
        ("vital", 3, "subject-2"),
        ("wave", 1, "subject-1"),
    ]
    vitals = [record for block in blocks[1:4] for record in decode_records(open_at_clinic(outbox, block))]
    assert [record.value for record in vitals if isinstance(record, VitalRecord)] == [61.0, 62.0, 63.0]
    assert epoch_seconds(outbox.epoch) == BOOT_S + 90_001  # above the last epoch of format 1
    assert headers[0].prev is None
    assert outbox.stored_states() == [
        StoredState("subject-1", "alerts", b"of subject-1"),
        StoredState("subject-2", "alerts", b"of subject-2"),
    ]
    assert query(path, "SELECT lane, epoch, seq FROM unreadable_1") == [("vital", BOOT_S + 90_000, 2)]
    assert query(path, "SELECT name FROM sqlite_schema WHERE name IN ('blocks_1', 'keys_1', 'lanes')") == []
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_version_1_keeps_its_state_and_what_cannot_be_read(
    open_outbox: OpenOutbox, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The blocks of this file hold no records."""
    shutil.copy(VECTORS / "outbox_v1.db", path)
    before = query(path, "SELECT lane, epoch, seq, key, sealed FROM blocks ORDER BY lane, epoch, seq")
    outbox = open_outbox()
    assert outbox.load_state("last sample") == b"42"
    assert query(path, "SELECT * FROM unreadable_1 ORDER BY lane, epoch, seq") == before
    assert "2 blocks of format 1 cannot be opened" in caplog.text
    assert outbox.put("vital", b"").seq == 1


def test_a_missing_or_damaged_key_costs_only_its_blocks(open_outbox: OpenOutbox, path: Path) -> None:
    shutil.copy(VECTORS / "outbox_v2.db", path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE keys SET local = zeroblob(61) WHERE subject = 'subject-2'")
    connection.commit()
    connection.close()
    outbox = open_outbox()
    assert {parse_header(block.sealed).subject for block in all_pending(outbox)} == {"subject-1"}
    assert query(path, "SELECT count(*) FROM unreadable_1") == [(4,)]


def test_a_subject_without_registration_stops_the_migration_which_goes_on_later(open_outbox: OpenOutbox, path: Path) -> None:
    shutil.copy(VECTORS / "outbox_v2.db", path)
    only_second = registration({"subject-2": RECIPIENTS["subject-2"]})
    with pytest.raises(RegistrationError, match="no subject subject-1"):
        open_outbox(subject="subject-2", registration=only_second)
    assert len(query(path, "SELECT * FROM blocks_1")) >= 4
    assert len(all_pending(open_outbox(subject="subject-2"))) == 5
