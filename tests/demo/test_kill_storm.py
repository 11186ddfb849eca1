"""The kill storm: its accounts of frames and blocks, and a short run with a restored store and a buffer that is rolled back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.block_account import BlockAccount, account_blocks
from benchmarks.database_copies import copy_databases, put_back_databases
from benchmarks.loss_account import LossAccount, account
from gateway.simulate.journal import FrameEntry
from sync.wire import BlockId

RATE_HZ = 125.0
SAMPLES = 100
FRAME_NS = 800_000_000
HUB_START_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000
FRAMES = [FrameEntry("run", FRAME_NS * (number + 1), SAMPLES, 1000 + number) for number in range(6)]
REJECTED = {"quarantined": 0, "key_conflicts": 0, "rejected_messages": 0}
TOTALS = {"type": "account", "duplicate_blocks": 0, "duplicate_waveforms": 0, "unopened": {}, **REJECTED}
POSITION = {"epoch": 7, "seq": 1}


def first_ns(number: int) -> int:
    return FRAMES[number].last_ns - round((SAMPLES - 1) / RATE_HZ * 1e9)


def stored(number: int) -> dict[str, Any]:
    return {
        "type": "waveform",
        "kind": "ecg",
        **POSITION,
        "sensor_ns": first_ns(number),
        "n": SAMPLES,
        "rate_hz": RATE_HZ,
        "samples_crc32": FRAMES[number].samples_crc32,
    }


def gap(after: int, before: int | None = None) -> dict[str, Any]:
    """An open gap after a frame, or a closed one between two frames."""
    from_us = HUB_START_US + FRAMES[after].last_ns // 1000
    ends = {"to_us": None, "to_sensor_ns": None} if before is None else {"to_us": from_us, "to_sensor_ns": first_ns(before)}
    return {"type": "gap", "kind": "ecg", **POSITION, "from_us": from_us, "from_sensor_ns": FRAMES[after].last_ns, **ends}


def without_sensor_times(closed: dict[str, Any]) -> dict[str, Any]:
    """A gap that closes after a clock was set."""
    return closed | {"from_sensor_ns": None, "to_sensor_ns": None}


def judge(*records: dict[str, Any]) -> LossAccount:
    return account(FRAMES, [*records, TOTALS])


def test_a_gap_explains_what_was_measured_between_its_ends() -> None:
    result = judge(stored(0), stored(1), gap(1, 4), stored(4), stored(5))
    assert (result.stored, result.in_gaps, result.unexplained) == (4, 2, 0)
    assert result.passed


def test_a_gap_of_a_rolled_back_hub_explains_what_was_lost_in_it_beside_what_had_been_sent() -> None:
    result = judge(stored(0), stored(1), stored(2), gap(0, 4), stored(4), stored(5))
    assert (result.in_gaps, result.unexplained) == (1, 0)


def test_a_gap_that_closes_after_a_clock_was_set_begins_where_it_opened_and_ends_at_the_next_waveform() -> None:
    closed = without_sensor_times(gap(1, 4))
    result = judge(stored(0), stored(1), gap(1), closed, stored(4), stored(5))
    assert (result.in_gaps, result.unexplained) == (2, 0)
    result = judge(stored(0), stored(1), closed, stored(4), stored(5))  # nothing says where it opened
    assert (result.in_gaps, result.unexplained) == (0, 2)
    elsewhere = stored(5) | {"seq": POSITION["seq"] + 2}  # the block with its end is missing
    assert judge(stored(0), stored(1), gap(1), closed, elsewhere).unexplained == 3


def test_an_open_gap_explains_what_was_measured_after_the_last_stored_sample() -> None:
    assert judge(*map(stored, range(4)), gap(3)).in_gaps == 2
    assert judge(*map(stored, range(3)), gap(0), stored(5)).unexplained == 2


def test_a_loss_without_a_gap_is_unexplained_and_one_before_the_first_sample_is_counted_apart() -> None:
    result = judge(stored(1), gap(1, 3), stored(3), stored(5))
    assert (result.before_first, result.in_gaps, result.unexplained) == (1, 1, 1)
    assert not result.passed


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (stored(3), "stored_twice"),
        (stored(3) | {"samples_crc32": 7}, "invented"),
        (TOTALS | {"duplicate_waveforms": 1}, "waveforms_twice"),
        (TOTALS | {"duplicate_blocks": 1}, "blocks_twice"),
        (TOTALS | {"unopened": {"damaged": 1}}, "blocks_unopened"),
        (TOTALS | {"key_conflicts": 1}, "rejected"),
    ],
)
def test_every_other_fault_of_a_frame_is_counted(record: dict[str, Any], fault: str) -> None:
    result = account(FRAMES, [*map(stored, range(6)), TOTALS, record])
    assert getattr(result, fault) == 1
    assert not result.passed


def block(seq: int) -> BlockId:
    return BlockId("wave", 7, seq)


def blocks(*seqs: int, text: str = "") -> dict[BlockId, bytes]:
    return {block(seq): f"digest {seq}{text}".encode() for seq in seqs}


def test_blocks_that_a_roll_back_lost_are_listed_or_unknown() -> None:
    result = account_blocks(blocks(1, 2), [blocks(1, 2, 3, 4), blocks(3, 5)], blocks(1, 2, 3), [block(4)])
    assert result == BlockAccount(5, 3, 1, 1, 0, 0, 0, 0, 0)
    assert result.passed


@pytest.mark.parametrize(
    ("held", "rolled_back", "at_clinic", "missing", "fault"),
    [
        (blocks(1, 2), [], blocks(1), [], "lost"),
        (blocks(1), [], blocks(1, text=" of another"), [], "lost"),
        (blocks(1), [blocks(2)], blocks(1) | blocks(2, text=" of another"), [], "altered"),
        (blocks(1), [blocks(2)], blocks(1), [block(3)], "listed_wrongly"),
        (blocks(1), [blocks(2)], blocks(1, 2, 3), [], "invented"),
    ],
)
def test_every_fault_of_a_block_is_counted(
    held: dict[BlockId, bytes],
    rolled_back: list[dict[BlockId, bytes]],
    at_clinic: dict[BlockId, bytes],
    missing: list[BlockId],
    fault: str,
) -> None:
    result = account_blocks(held, rolled_back, at_clinic, missing)
    assert getattr(result, fault) == 1
    assert not result.passed


def test_a_copy_that_is_put_back_replaces_all_files_of_a_database(tmp_path: Path) -> None:
    database = tmp_path / "buffer.db"
    database.write_text("old")
    copy_databases([database], tmp_path / "copy")
    database.write_text("new")
    database.with_name("buffer.db-wal").write_text("of the new one")
    put_back_databases([database], tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["buffer.db"]
    assert database.read_text() == "old"


def test_kills_restores_and_roll_backs_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    """The seed rolls the buffer back, and then restores the store with its projections to a backup from before the copy."""
    command = [sys.executable, "-m", "benchmarks.kill_storm", tmp_path / "storm", "--kills", "5", "--seed", "61342"]
    storm = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert storm.returncode == 0, storm.stderr
    result = json.loads(storm.stdout)
    expected = {"agent": 2, "clinic": 2, "strap": 1, "roll_backs": 1, "restores_of_2": 1}
    assert {name: result["done"].get(name) for name in expected} == expected
    assert result["stored"] > 0
