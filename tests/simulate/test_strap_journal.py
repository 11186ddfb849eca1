"""The strap's journal: what is written comes back, and a kill in the middle of a line costs that line alone."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from gateway.simulate.journal import Frame, Journal, JournalError, Start, read_journal

SAMPLES = np.array([1, -2, 300], np.int32)
CRC = zlib.crc32(bytes.fromhex("01000000 feffffff 2c010000"))


def write(path: Path, run: str) -> None:
    with Journal(path, run) as journal:
        journal.start(1_000)
        journal.frame(2_000, SAMPLES)
        journal.frame(3_000, SAMPLES)


def test_what_was_written_comes_back_in_order(tmp_path: Path) -> None:
    write(tmp_path / "j", "a")
    write(tmp_path / "j", "b")
    contents = read_journal(tmp_path / "j")
    assert contents.starts == (Start("a", 1_000, 946_684_800 * 10**9), Start("b", 1_000, 946_684_800 * 10**9))
    assert contents.frames == tuple(Frame(run, last, 3, CRC) for run in "ab" for last in (2_000, 3_000))
    assert contents.frames[0].last_us == 946_684_800 * 10**6 + 2
    assert contents.cut == 0


def test_a_line_lies_with_the_operating_system_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", "a") as journal:
        journal.frame(2_000, SAMPLES)
        assert len(read_journal(tmp_path / "j").frames) == 1


def test_a_cut_last_line_is_counted_and_what_follows_is_not_glued_to_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, "a")
    whole = path.read_bytes()
    last_line = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(last_line + 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert len(read_journal(path).frames) == 1
        assert read_journal(path).cut == 1
    write(path, "b")
    assert [frame.run for frame in read_journal(path).frames] == ["a", "b", "b"]
    assert read_journal(path).cut == 1


def test_another_file_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"type":"beat"}\n')
    with pytest.raises(JournalError, match="line 1: not a line of a strap's journal"):
        read_journal(tmp_path / "j")
