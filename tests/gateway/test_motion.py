"""The acceleration of a strap through the pipeline: it holds back the alert of a walk, nothing else, and is not stored."""

import asyncio
import functools
import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from bumble.device import Device
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS, Limits
from drivers.pmd_frames import decode_frame
from drivers.pmd_measurements import DEFAULT_STREAMS, Measurement, Stream
from drivers.readings import Reading, Status, Waveform
from gateway.models import LoadedModels, load_models
from gateway.motion import ACCELERATION, Motion
from gateway.pipeline import Pipeline
from gateway.simulate import pmd
from gateway.simulate.heart import from_script
from gateway.simulate.journal import Journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script
from gateway.simulate.strap import Strap
from gateway.simulate.wearer import accelerate
from gateway.timeline import Arrival
from models.rules.exertion import MOVING_REASON
from sync.records import AlertRecord, GapRecord, Record, WaveformRecord
from tests.gateway.test_emulated_sensors import follow
from tests.signal.rhythms import Rhythm, draw, fibrillation, join, regular, standstill

START_S: Final = 1_800_000_000
ECG_SAMPLES, ACC_SAMPLES = 73, 36
STREAMS: Final = {**DEFAULT_STREAMS, Measurement.ACC: Stream(25.0)}
SHORT: Final = DEFAULT_LIMITS.with_values({"exertion_persistence": 20.0, "exertion_moving_persistence": 600.0})
"""Twenty seconds in place of ten minutes, so that a minute shows the difference."""

IsWalking = Callable[[float], bool]
STILL: Final[IsWalking] = lambda _at_s: False  # noqa: E731
WALKING: Final[IsWalking] = lambda _at_s: True  # noqa: E731


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return load_models()


def ecg_frames(mv: NDArray[np.float64]) -> list[tuple[float, bytes]]:
    """The frames of an H10, each with the time at which it is sent."""
    counts, found = np.rint(mv * 1000).astype(np.int32), []
    for start in range(0, len(counts) - ECG_SAMPLES + 1, ECG_SAMPLES):
        last_s = (start + ECG_SAMPLES - 1) / 130
        found.append((last_s, pmd.encode_frame(round(last_s * 1e9), counts[start : start + ECG_SAMPLES])))
    return found


def acceleration_frames(seconds: float, is_walking: IsWalking) -> list[tuple[float, bytes]]:
    found = []
    for start in range(0, int(seconds * 25) - ACC_SAMPLES, ACC_SAMPLES):
        times_s = (start + np.arange(ACC_SAMPLES)) / 25
        last_s = float(times_s[-1])
        samples = accelerate(times_s, is_walking=is_walking(last_s))
        found.append((last_s, pmd.encode_acceleration(round(last_s * 1e9), samples)))
    return found


def play(rhythm: Rhythm, is_walking: IsWalking | None, limits: Limits, models: LoadedModels | None = None) -> list[Record]:
    """The records of a strap whose wearer has this ECG; without `is_walking` it has no acceleration."""
    pipeline = Pipeline("strap", limits, models or LoadedModels())
    motion = acceleration_frames(rhythm.seconds, is_walking) if is_walking else []
    records: list[Record] = []
    for at_s, payload in heapq.merge(ecg_frames(rhythm.mv), motion):
        records += pipeline.feed(decode_frame(payload, STREAMS), arrival(at_s)).records
    return [*records, *pipeline.finish(arrival(rhythm.seconds)).records]


def arrival(at_s: float) -> Arrival:
    return Arrival(START_S * 1_000_000 + round(at_s * 1e6), round(at_s * 1e9))


def alerts(records: Sequence[Record]) -> list[AlertRecord]:
    """The alerts at each change, without the samples of their strips and their motion."""
    found = [record for record in records if isinstance(record, AlertRecord)]
    reasons = [tuple(reason for reason in one.reasons if reason != MOVING_REASON) for one in found]
    return [replace(one, strip=None, reasons=kept) for one, kept in zip(found, reasons, strict=True)]


def walk() -> Rhythm:
    """20 s at 75/min, 30 s in which the rate rises to 140/min, 35 s there."""
    beats_s, at_s = [], 0.5
    while at_s < 84:
        beats_s.append(at_s)
        at_s += 60 / (75 + 65 * min(max(at_s - 20, 0) / 30, 1))
    return draw("narrow", np.array(beats_s), rr_s=0.43, seconds=85, p_mv=0.0)


def test_a_walk_raises_nothing_and_the_same_rate_at_rest_does() -> None:
    assert alerts(play(walk(), WALKING, SHORT)) == []
    still, without = alerts(play(walk(), STILL, SHORT)), alerts(play(walk(), None, SHORT))
    assert [alert.kind for alert in still] == ["tachycardia", "tachycardia"], "its begin, and its end with the stream"
    assert still == without


DANGEROUS: Final[dict[str, tuple[Rhythm, str]]] = {
    "sudden onset": (join(regular(per_minute=75, seconds=35), regular(per_minute=170, seconds=20)), "tachycardia"),
    "sudden onset in a walk": (join(walk(), regular(per_minute=170, seconds=20)), "tachycardia"),
    "vt": (join(regular(per_minute=75, seconds=35), regular("ventricular", 150, seconds=20)), "vt"),
    "vf": (join(regular(per_minute=75, seconds=35), fibrillation(seconds=20)), "vf"),
    "standstill": (join(regular(per_minute=75, seconds=35), standstill(seconds=15)), "asystole"),
    "bradycardia": (join(regular(per_minute=75, seconds=35), regular(per_minute=35, seconds=30)), "bradycardia"),
}


@pytest.mark.parametrize("name", sorted(DANGEROUS))
def test_motion_changes_no_other_alert(models: LoadedModels, name: str) -> None:
    """Nor when it is raised. An alert about a fast rate says that the wearer moved."""
    rhythm, kind = DANGEROUS[name]
    used = models if kind == "vf" else None
    walking = play(rhythm, WALKING, DEFAULT_LIMITS, used)
    assert alerts(walking) == alerts(play(rhythm, None, DEFAULT_LIMITS, used))
    found = [record for record in walking if isinstance(record, AlertRecord) and record.kind == kind]
    assert found
    assert {MOVING_REASON in alert.reasons for alert in found} == {kind == "tachycardia"}


@functools.cache
def alerts_of_vt() -> list[AlertRecord]:
    return alerts(play(DANGEROUS["vt"][0], None, DEFAULT_LIMITS))


@settings(max_examples=3, deadline=None)
@given(starts_s=st.lists(st.floats(0, 55), max_size=6))
def test_no_motion_changes_a_vt(starts_s: list[float]) -> None:
    """The wearer starts and stops to walk at any of these times."""
    walking = play(DANGEROUS["vt"][0], lambda at_s: sum(at_s > start_s for start_s in starts_s) % 2 == 1, DEFAULT_LIMITS)
    assert alerts(walking) == alerts_of_vt() != []


def test_the_acceleration_is_neither_stored_nor_a_gap() -> None:
    records = play(regular(per_minute=75, seconds=20), WALKING, DEFAULT_LIMITS)
    assert {record.kind for record in records if isinstance(record, WaveformRecord)} == {"ecg"}
    pipeline = Pipeline("movesense", DEFAULT_LIMITS, LoadedModels())
    assert not pipeline.feed(axes(52.0, 4), arrival(0)).records
    assert not pipeline.on_interruption("the link was lost", arrival(1)).records
    assert pipeline.streams == frozenset()


def test_an_acceleration_that_an_earlier_version_stored_leaves_no_gap_after_the_update() -> None:
    last = {"at_us": START_S * 1_000_000, "arrived_us": START_S * 1_000_000, "sensor_ns": None, "rate_hz": 52.0}
    saved = {**Pipeline("movesense", DEFAULT_LIMITS, LoadedModels()).state(), "waveforms": {"acc_x": last, "gyro_x": last}}
    resumed = Pipeline("movesense", DEFAULT_LIMITS, LoadedModels(), saved).resume(arrival(60))
    assert [record.kind for record in resumed.records if isinstance(record, GapRecord)] == ["gyro_x"]


def axes(rate_hz: float, count: int, scale: float = 0.0102) -> list[Reading]:
    """A frame of the three axes, in the steps of a Movesense."""
    return [Waveform(kind, (98_066 if kind == "acc_z" else 0,) * count, rate_hz, scale) for kind in ACCELERATION]


def test_axes_that_do_not_come_together_are_ignored() -> None:
    motion = Motion()
    for second in range(120):
        for axis in axes(52.0, 52)[:2]:
            motion.add(axis, second * 1_000_000)
        motion.add(Waveform("acc_z", (98_066,) * 51, 52.0, 0.0102), second * 1_000_000)
    assert motion.is_moving(119_000_000) is None


def test_the_steps_of_a_movesense_are_understood() -> None:
    motion = Motion()
    for second in range(120):
        for axis in axes(52.0, 52):
            assert isinstance(axis, Waveform)
            motion.add(axis, second * 1_000_000)
    assert motion.is_moving(119_000_000) is False


def test_a_session_gets_the_acceleration_of_a_strap(tmp_path: Path) -> None:
    """Over the virtual link: after the start of the ECG, at 25 Hz; the wearer stands, and walks after 45 s."""

    async def scenario(strap: Strap) -> None:
        await asyncio.sleep(45)
        strap.is_walking = True
        await asyncio.sleep(45)

    with Journal(tmp_path / "strap.jsonl", "test") as journal:

        def make(device: Device) -> Strap:
            return Strap(device, Playback(from_script(load_script("demo")), SensorClock(0), journal), lambda _event: None)

        readings = follow(make, scenario)
    assert not [reading for reading in readings if isinstance(reading, Status) and reading.kind == "stream_trouble"]
    waves = [reading for reading in readings if isinstance(reading, Waveform)]
    assert waves[0].kind == "ecg"
    acceleration = [wave for wave in waves if wave.kind in ACCELERATION]
    assert {(wave.rate_hz, wave.scale, len(wave.samples)) for wave in acceleration} == {(25.0, 1.0, 36)}
    motion, known = Motion(), []
    for wave in acceleration:
        assert wave.last_ns is not None
        motion.add(wave, wave.last_ns // 1000)
        known.append(motion.is_moving(wave.last_ns // 1000))
    assert known.index(False) < known.index(True)
    assert known[-1] is True
