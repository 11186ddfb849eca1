"""Results of replays for tests of the report."""

from pathlib import Path
from typing import Any

import numpy as np

from gateway.replay.run import empty_result
from gateway.replay.sources import Source
from reporting.result import PULSE, ReplayResult, TimedBeat
from sync.records import AlertRecord, GapRecord, IntervalsRecord, QuarantinedRecord, Strip, Times, WaveformRecord


def new_result(file: str, *notes: str) -> ReplayResult:
    return empty_result(Source(Path(file), "strap", 0, False, notes, iter(())))


def make_result(alerts: int = 1, file: str = "a.hea") -> ReplayResult:
    """Five minutes at 75/min with a gap, an undecodable payload, and `alerts` pauses of 4 s."""
    result = new_result(file, "note <1>")
    result.end_us, result.ecg.covered_s, result.ecg.rate_hz = 300_000_000, 290.0, 130.0
    beats = tuple(TimedBeat(round(0.8e6 * index), "N") for index in range(1, 370))
    records: list[Any] = [
        GapRecord("strap", "ecg", 100_000_000, 110_000_000, 1300, "the link was lost"),
        QuarantinedRecord("strap", "2a37", Times(5_000_000, 5_000_000, 0), b"\x10", "too short & wrong"),
    ]
    for index in range(alerts):
        onset = 4_000_000 + 5_000_000 * index
        strip = Strip(onset - 3_000_000, 125.0, 0.001, np.zeros(1500, np.int32), (onset, onset + 4_000_000))
        measured = {"pause_s": 4.0, "limit_s": 3.0}
        records.append(
            AlertRecord(
                f"{index}", "strap", "pause", "high", onset, onset + 4_000_000, 0, "rule:pause", (), None, measured, strip
            )
        )
    list(result.add(tuple(records), beats))
    list(result.close())
    return result


def make_pulse_result(file: str = "pulse.csv") -> ReplayResult:
    """A minute of a pulse wave at 64 Hz and 75/min, with a slow pulse that gives an alert without a strip."""
    result = new_result(file, "read as a pulse wave")
    samples = WaveformRecord("strap", "ppg", Times(0, 0, 0), 64.0, 1.0, np.zeros(64 * 60, np.int32))
    alert = AlertRecord("0", "strap", "bradycardia", "medium", 20_000_000, 40_000_000, 0, "rule:rate", (), 0.999, None)
    gap = GapRecord("strap", "ppg", 50_000_000, 52_000_000, 128, "no valid samples in the recording")
    beats = tuple(TimedBeat(round(0.8e6 * index), PULSE) for index in range(1, 75))
    list(result.add((samples, gap, alert), beats))
    list(result.close())
    return result


def make_interval_result(file: str = "rr.txt") -> ReplayResult:
    """A minute of RR intervals of a second and less."""
    result = new_result(file, "holds RR intervals only")
    for second in range(1, 60):
        at_us = 1_000_000 * second
        result.end_us = at_us
        list(result.add((IntervalsRecord("strap", "rr", Times(at_us, at_us, 0), (1024 - second % 7,)),), ()))
    list(result.close())
    return result
