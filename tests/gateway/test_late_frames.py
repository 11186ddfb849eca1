"""Frames that a radio holds back and then delivers in a burst, through the pipeline of agent and replay."""

from itertools import pairwise

import pytest

from config.limits import DEFAULT_LIMITS
from drivers.registry import load_drivers
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.simulate import pmd
from gateway.simulate.heart import from_script
from gateway.simulate.script import load_script
from gateway.timeline import Arrival
from reporting.result import TimedBeat
from sync.records import GapRecord, Record

START_US = 1_800_000_000_000_000
FRAME = 73
SINUS = 12_000
"""Sample of the demo's script from which on it is in sinus rhythm for minutes."""


def play(held_s: float) -> tuple[list[Record], list[TimedBeat]]:
    """Ninety seconds; the frames of the first `held_s` seconds from 40 s on arrive together."""
    pipeline, registry, ecg = (
        Pipeline("strap", DEFAULT_LIMITS, LoadedModels()),
        load_drivers(),
        from_script(load_script("demo")),
    )
    records: list[Record] = []
    beats: list[TimedBeat] = []
    for first in range(0, round(90 * pmd.RATE_HZ), FRAME):
        t = (first + FRAME - 1) / pmd.RATE_HZ
        arrived_s = (40 + held_s if 40 <= t < 40 + held_s else t) + 0.02
        payload = pmd.encode_frame(10**15 + round(t * 1e9), ecg.samples(SINUS + first, FRAME))
        arrival = Arrival(START_US + round(arrived_s * 1e6), round(arrived_s * 1e9))
        output = pipeline.feed(registry.decode(pmd.DATA, payload), arrival)
        records += output.records
        beats += output.beats
    return records, beats


@pytest.mark.parametrize("held_s", [6.0, 15.0, 30.0])
def test_frames_held_back_change_no_beat_and_make_no_gap(held_s: float) -> None:
    _, expected = play(0.0)
    records, beats = play(held_s)
    assert [record for record in records if isinstance(record, GapRecord)] == []
    assert all(before.at_us < after.at_us for before, after in pairwise(beats))
    assert [beat.at_us for beat in beats] == pytest.approx([beat.at_us for beat in expected], abs=10_000)
