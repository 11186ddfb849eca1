"""The kill storm: its account of losses, and a short run with steps of the hub's clock."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loss_account import LossAccount, account
from gateway.simulate.journal import FrameEntry

RATE_HZ = 125.0
SAMPLES = 100
FRAME_NS = 800_000_000
HUB_START_US = 1_800_000_000_000_000
FRAMES = [FrameEntry("run", FRAME_NS * (number + 1), SAMPLES, 1000 + number) for number in range(6)]
TOTALS = {"type": "account", "duplicate_blocks": 0, "missing_blocks": 0, "unopened": {}}


def stored(number: int, step_us: int = 0) -> dict[str, Any]:
    frame = FRAMES[number]
    first_ns = frame.last_ns - round((SAMPLES - 1) / RATE_HZ * 1e9)
    return {
        "type": "waveform",
        "kind": "ecg",
        "sensor_ns": first_ns,
        "at_us": HUB_START_US + first_ns // 1000 + step_us,
        "n": SAMPLES,
        "rate_hz": RATE_HZ,
        "samples_crc32": frame.samples_crc32,
    }


def gap_after(number: int, step_us: int = 0) -> dict[str, Any]:
    from_us = HUB_START_US + FRAMES[number].last_ns // 1000 + step_us
    return {"type": "gap", "kind": "ecg", "from_us": from_us, "to_us": None}


def judge(*records: dict[str, Any]) -> LossAccount:
    return account(FRAMES, [*records, TOTALS])


def test_a_gap_that_begins_at_the_last_stored_sample_explains_a_loss_whatever_the_clock_says() -> None:
    hour_us = 3_600_000_000
    result = judge(stored(0), stored(1), gap_after(1), stored(4, hour_us), stored(5, hour_us))
    assert (result.stored, result.in_gaps, result.unexplained) == (4, 2, 0)
    assert result.passed


def test_a_loss_without_a_gap_at_its_start_is_unexplained() -> None:
    result = judge(stored(0), stored(1), gap_after(0), gap_after(4), stored(4), stored(5))
    assert (result.in_gaps, result.unexplained) == (0, 2)
    assert not result.passed


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([stored(3)], "stored_twice"),
        ([stored(3) | {"samples_crc32": 7}], "invented"),
        ([TOTALS | {"missing_blocks": 1}], "blocks_missing"),
        ([TOTALS | {"unopened": {"damaged": 1}}], "blocks_unopened"),
    ],
)
def test_every_other_fault_is_counted(records: list[dict[str, Any]], fault: str) -> None:
    result = account(FRAMES, [*map(stored, range(6)), TOTALS, *records])
    assert getattr(result, fault) == 1
    assert not result.passed


def test_kills_and_clock_steps_lose_and_duplicate_nothing_and_a_stopped_storm_continues(tmp_path: Path) -> None:
    for kills in (3, 6):
        command = [sys.executable, "-m", "benchmarks.kill_storm", tmp_path / "storm", "--kills", str(kills), "--seed", "3"]
        storm = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert storm.returncode == 0, storm.stderr
        result = json.loads(storm.stdout)
        assert sum(result["killed"].values()) == kills
        assert result["stored"] > 0
