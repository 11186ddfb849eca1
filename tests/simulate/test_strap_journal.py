"""The strap's journal: entries are read back, and a kill in the middle of a line loses only that line."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from gateway.simulate.journal import FrameEntry, Journal, JournalError, StartEntry, read_journal

SAMPLES = np.array([1, -2, 300], np.int32)
CRC = zlib.crc32(bytes.fromhex("01000000 feffffff 2c010000"))


def write_journal(path: Path, run: str) -> None:
    with Journal(path, run) as journal:
        journal.write_start(1_000)
        journal.write_frame(2_000, SAMPLES)
        journal.write_frame(3_000, SAMPLES)


def test_entries_are_read_back_in_order(tmp_path: Path) -> None:
    write_journal(tmp_path / "j", "a")
    write_journal(tmp_path / "j", "b")
    contents = read_journal(tmp_path / "j")
    assert contents.starts == (StartEntry("a", 1_000, 946_684_800 * 10**9), StartEntry("b", 1_000, 946_684_800 * 10**9))
    assert contents.frames == tuple(FrameEntry(run, last, 3, CRC) for run in "ab" for last in (2_000, 3_000))
    assert contents.frames[0].last_us == 946_684_800 * 10**6 + 2
    assert contents.truncated_lines == 0


def test_an_entry_is_written_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", "a") as journal:
        journal.write_frame(2_000, SAMPLES)
        assert len(read_journal(tmp_path / "j").frames) == 1


def test_a_truncated_last_line_is_counted_and_the_next_entry_gets_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write_journal(path, "a")
    complete = path.read_bytes()
    last_line = complete.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(last_line + 1, len(complete) - 1):
        path.write_bytes(complete[:end])
        assert len(read_journal(path).frames) == 1
        assert read_journal(path).truncated_lines == 1
    write_journal(path, "b")
    assert [frame.run for frame in read_journal(path).frames] == ["a", "b", "b"]
    assert read_journal(path).truncated_lines == 1


def test_a_file_that_is_not_a_journal_is_rejected_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"type":"beat"}\n')
    with pytest.raises(JournalError, match="line 1: not an entry of a strap's journal"):
        read_journal(tmp_path / "j")
