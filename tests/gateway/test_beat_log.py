"""The beats of an ECG travel as records of ten seconds: each beat once, whatever the chunks, and up to each gap."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from gateway.alert_tracker import AlertTracker
from gateway.beat_log import BeatLog
from gateway.recorder import lane_of
from gateway.waveform_analysis import EcgWaveformAnalysis
from models.beat_labels import LabelledBeat
from models.inference.models import Models
from sync.records import BeatsRecord, Record
from tests.cloud.synthetic import ecg_mv

RATE_HZ = 130.0
START_US = 1_790_000_000_000_000


def to_utc_us(stream_s: float) -> int:
    return START_US + round(stream_s * 1e6)


def beat(t_s: float, label: str = "N") -> LabelledBeat:
    return LabelledBeat(t_s, 1.0, False, label, 1.0)


def test_a_stretch_is_taken_when_all_of_its_beats_are_labelled() -> None:
    log = BeatLog("strap", "ecg")
    assert list(log.add([beat(1.0), beat(9.5, "V")], 9.9, to_utc_us)) == []
    taken = list(log.add([beat(10.2)], 10.0, to_utc_us))
    start_ms = START_US // 1000
    assert taken == [BeatsRecord("strap", "ecg", START_US, START_US + 10_000_000, (start_ms + 1000, start_ms + 9500), (0, 2))]
    rest = list(log.end(12.5, 20.0, to_utc_us))
    assert [(one.from_us, one.to_us, one.classes) for one in rest] == [(START_US + 10_000_000, START_US + 12_500_000, (0,))]
    assert list(log.end(20.0, 30.0, to_utc_us)) == []  # nothing was received between the gaps
    assert next(log.add([], 40.0, to_utc_us)).from_us == START_US + 30_000_000


@settings(deadline=None)
@given(
    st.lists(st.floats(0.3, 25.0), min_size=1, max_size=30),
    st.lists(st.floats(0.1, 15.0), max_size=20),
)
def test_every_beat_is_in_one_stretch(intervals_s: list[float], steps_s: list[float]) -> None:
    beats = [beat(t_s) for t_s in np.cumsum(intervals_s).tolist()]
    end_s = beats[-1].t_s + 1.0
    log, records, left = BeatLog("strap", "ecg"), list[BeatsRecord](), list(beats)
    for until_s in [*np.cumsum([0.0, *steps_s]).tolist(), end_s]:
        now = [one for one in left if one.t_s < min(until_s, end_s)]
        left = left[len(now) :]
        records += log.add(now, min(until_s, end_s), to_utc_us)
    records += log.end(end_s, end_s, to_utc_us)
    assert [time_ms for one in records for time_ms in one.beats_ms] == [round(to_utc_us(one.t_s) / 1000) for one in beats]
    assert records[0].from_us == START_US
    assert records[-1].to_us == to_utc_us(end_s)
    assert all(one.to_us == following.from_us for one, following in pairwise(records))
    assert all(one.from_us <= time_ms * 1000 + 500 <= one.to_us + 1000 for one in records for time_ms in one.beats_ms)


def analyse(chunk: int) -> list[Record]:
    """25 s of ECG at 75/min, a gap of 5 s, and 12 s more."""
    analysis = EcgWaveformAnalysis(AlertTracker("strap"), RATE_HZ, DEFAULT_LIMITS, Models())
    mv = ecg_mv(np.arange(0.5, 37, 0.8).tolist(), 37.0)
    first = round(25 * RATE_HZ)
    records: list[Record] = []
    for start_s, part in ((0.0, mv[:first]), (30.0, mv[first:])):
        if start_s:
            records += analysis.process_gap(5.0, 0).records
        for i in range(0, part.size, chunk):
            at_us = to_utc_us(start_s + i / RATE_HZ)
            records += analysis.process_samples(part[i : i + chunk], at_us, RATE_HZ, 0).records
    return [*records, *analysis.finish(0).records]


@pytest.mark.parametrize("chunk", [1300, 73, 17])
def test_the_beats_of_a_stream_with_a_gap(chunk: int) -> None:
    records = [record for record in analyse(chunk) if isinstance(record, BeatsRecord)]
    spans_s = [((one.from_us - START_US) / 1e6, (one.to_us - START_US) / 1e6) for one in records]
    assert spans_s == [(0, 10), (10, 20), (20, 25), (30, 40), (40, 42)]
    found_s = [time_ms / 1000 - START_US / 1e6 for one in records for time_ms in one.beats_ms]
    real_s = [t if t < 25 else t + 5 for t in np.arange(0.5, 36.9, 0.8).tolist()]
    assert found_s == pytest.approx(real_s, abs=0.02)
    assert {number for one in records for number in one.classes} == {0}
    assert {lane_of(one) for one in records} == {"vital"}  # no upload policy holds this lane back
