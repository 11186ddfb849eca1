"""A backup of the buffer while it is written: complete up to one moment, sealed, and restored without reuse of a number."""

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from sync.errors import PermanentError
from sync.outbox.backup import back_up
from tests.sync.outboxes import Clock, ack, all_pending, open_at, outcome, tidy
from tests.sync.test_full_disk import limited_file_size

SECRET = b"a value that only sealed bytes may hold"


def test_a_backup_under_a_writer_at_full_speed_is_of_one_moment(tmp_path: Path) -> None:
    path, target = tmp_path / "outbox.db", tmp_path / "backup.db"
    outbox, clock = open_at(path), Clock()
    outbox.put_many([("wave", SECRET * 50)] * 300)
    stop, written = threading.Event(), list[int]()

    def write() -> None:
        while not stop.is_set():
            written.append(outbox.put_many([("vital", SECRET), ("wave", SECRET * 20)], {"n": b"%d" % len(written)})[0].seq)

    writer = threading.Thread(target=write)
    writer.start()
    backups = []
    for n in range(3):
        before = len(written)
        back_up(path, target)
        after = len(written)
        shutil.copy(target, tmp_path / f"{n}.db")
        backups.append((before, after, tmp_path / f"{n}.db"))
    stop.set()
    writer.join()
    used = {block.id for block in all_pending(outbox)}
    outbox.close()
    assert target.stat().st_mode & 0o777 == 0o600
    for before, after, copy in backups:
        assert SECRET not in copy.read_bytes()
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        restored = open_at(copy, clock=clock)
        blocks = {block.id for block in all_pending(restored)}
        vital = sorted(id_.seq for id_ in blocks if id_.lane == "vital")
        assert vital == list(range(1, len(vital) + 1))
        assert before <= len(vital) <= after + 1
        assert int(restored.load_state("n") or b"-1") == len(vital) - 1  # blocks and state of the same transaction
        assert blocks <= used
        assert restored.put("vital", b"new") not in used
        restored.close()


def test_a_backup_holds_nothing_that_was_deleted(tmp_path: Path) -> None:
    path, target = tmp_path / "outbox.db", tmp_path / "backup.db"
    outbox = open_at(path)
    outbox.put_many([("wave", bytes(3000))] * 20)
    blocks = all_pending(outbox)
    outbox.apply_ack(ack(refused=tuple(outcome(block) for block in blocks)))
    tidy(outbox)
    back_up(path, target)
    content = target.read_bytes()
    assert not any(block.sealed[-500:] in content for block in blocks)
    outbox.close()


def test_without_a_buffer_or_a_writable_folder_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="pulsegate run"):
        back_up(tmp_path / "none.db", tmp_path / "backup.db")
    assert list(tmp_path.iterdir()) == []
    open_at(tmp_path / "outbox.db").close()
    with pytest.raises(PermanentError, match="folder"):
        back_up(tmp_path / "outbox.db", tmp_path / "no-folder" / "backup.db")


def test_a_full_disk_leaves_the_last_backup(tmp_path: Path) -> None:
    path, target = tmp_path / "outbox.db", tmp_path / "backup.db"
    outbox = open_at(path)
    outbox.put_many([("wave", bytes(3000))] * 20)
    back_up(path, target)
    before = target.read_bytes()
    with limited_file_size(20_000), pytest.raises(Exception, match="disk"):
        back_up(path, target)
    assert target.read_bytes() == before
    outbox.close()
