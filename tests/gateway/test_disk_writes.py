"""The count of SQLite's page writes in `benchmarks.disk_writes`, compared with SQLite's own."""

import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.disk_writes import PAGE_BYTES, PageWrites, measure


def test_every_frame_of_the_wal_and_every_page_of_a_checkpoint_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "made.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer, closing(sqlite3.connect(path)) as reader:
        writer.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("CREATE TABLE small (value)")
        writer.execute("CREATE TABLE large (value)")
        pages = PageWrites(path, reader)
        for number in range(5):
            writer.execute("INSERT INTO small VALUES (?)", (number,))
            pages.count_transaction()
        writer.execute("INSERT INTO large VALUES (?)", (bytes(10 * PAGE_BYTES),))
        pages.count_transaction()
        assert pages.wal["small"] == 5 + 1  # its root is written when it is created
        assert pages.wal["large"] >= 11
        _, frames, _ = writer.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        assert pages.wal.total() == frames
        assert pages.checkpoints == 0
        writer.execute("INSERT INTO small VALUES (6)")  # the WAL begins again
        pages.count_transaction()
        (size,) = writer.execute("PRAGMA page_count").fetchone()
        assert pages.checkpoints == 1
        assert pages.checkpointed.total() == size


def test_commits_every_ten_seconds_write_less(tmp_path: Path) -> None:
    live, normal = (measure(tmp_path / str(interval_s), interval_s, 60, warm_up_s=10) for interval_s in (1.0, 10.0))
    assert live["records_a_second"] == normal["records_a_second"] > 4
    assert live["mb_a_day"] > 4 * normal["mb_a_day"] > 4 * normal["sealed_mb_a_day"] > 0
