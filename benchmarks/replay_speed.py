"""Measures how long `pulsegate replay` takes for a 30-minute record, process start included."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RECORD_SAMPLES = 650_000
RATE_HZ = 360


def measure(recordings: Path) -> dict[str, float]:
    """Returns the seconds for the half-hour records of the folder, and how many times faster than real time that is."""
    records = sorted((recordings / "mitdb").glob("*.hea"))
    seconds = [_replay_s(record) for record in records]
    duration_s = RECORD_SAMPLES / RATE_HZ
    return {
        "records": len(records),
        "median_s": round(float(np.median(seconds)), 2),
        "max_s": round(max(seconds), 2),
        "times_real_time": round(duration_s / float(np.median(seconds))),
    }


def _replay_s(record: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "gateway.cli", "replay", str(record), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
