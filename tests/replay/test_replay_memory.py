"""The memory of a replay: what is kept of a day is small, and so is what is read ahead."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captures import Recording
from captures.recording import CHUNK_SAMPLES, Chunk
from drivers.registry import load_drivers
from gateway.replay import sources
from reporting.result import TimedBeat
from sync.records import AlertRecord, FindingRecord, GapRecord, IntervalsRecord, Strip, Times, VitalRecord
from tests.replay.results import new_result

SECONDS = 10_000
"""A day has nine times as many. A tenth is enough to see what each second takes."""


def kept_bytes(feed: Any) -> int:
    """The memory that the result of a replay holds after `feed(result, second)` for each second."""
    result = new_result("day.hea")
    tracemalloc.start()
    for second in range(SECONDS):
        feed(result, second)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


def test_beats_rates_and_intervals_take_few_bytes_each() -> None:
    def feed(result: Any, second: int) -> None:
        at_us = 1_000_000 * second
        times = Times(at_us, at_us, 0)
        records = (VitalRecord("strap", "heart_rate", times, 60.0 + second), IntervalsRecord("strap", "rr", times, (second,)))
        list(result.add(records, (TimedBeat(at_us, "N"),)))

    assert kept_bytes(feed) < 50 * SECONDS, "9 bytes for a beat, 16 for a rate, 16 for an interval"


def test_gaps_and_findings_take_few_bytes_each() -> None:
    def feed(result: Any, second: int) -> None:
        at_us = 1_000_000 * second
        opened = GapRecord("strap", "ecg", at_us, None, None, "no valid samples")
        closed = GapRecord("strap", "ecg", at_us, at_us + 10_000, 5, "no valid samples")
        finding = FindingRecord("strap", "noise", at_us, at_us + 1_000_000, "rule", 0.5, None, {"a": 1.0})
        list(result.add((opened, closed, finding), ()))

    assert kept_bytes(feed) < 25 * SECONDS


def test_strips_are_kept_of_the_most_urgent_alerts_only() -> None:
    result = new_result("day.hea")
    tracemalloc.start()
    for index in range(2000):
        at_us = 40_000_000 * index
        priority = "high" if index % 100 == 50 else "low"
        strip = Strip(at_us, 125.0, 0.001, np.zeros(1500, np.int32), tuple(range(at_us, at_us + 20)))
        alert = AlertRecord(str(index), "strap", "pause", priority, at_us, at_us, 0, "rule", (), None, None, strip)
        result.end_us = at_us
        list(result.add((alert,), ()))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    list(result.close())
    kept = [alert for alert in result.alerts if alert.strip]
    assert held < 3_000_000
    assert (len(result.alerts), result.strip_count, len(kept)) == (2000, 2000, 40)
    assert [alert.id for alert in kept if alert.priority == "high"] == [str(100 * index + 50) for index in range(20)]


def test_samples_are_read_ahead_by_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def chunks() -> Iterator[Chunk]:
        nonlocal read
        for index in range(1000):
            read += CHUNK_SAMPLES
            yield Chunk(index * CHUNK_SAMPLES / 500.0, np.zeros(CHUNK_SAMPLES), index > 0)

    monkeypatch.setattr(sources, "open_file", lambda _path, _options: Recording("a", 500.0, None, (), chunks))
    source = sources.open_source(Path("a.hea"), load_drivers())
    assert read == CHUNK_SAMPLES, "to find the first valid sample"
    read = passed = 0
    tracemalloc.start()
    for step in source.steps:
        passed += sum(len(wave.samples) for wave in step.readings if isinstance(wave, sources.Waveform))
        assert read - passed <= CHUNK_SAMPLES + 500
        if passed > 40 * CHUNK_SAMPLES:
            break
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * CHUNK_SAMPLES
