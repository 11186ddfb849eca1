"""What a sensor's runner stores before its next event: indicated readings, and the first of each stream."""

import asyncio
from collections.abc import Mapping

import pytest

from config.limits import DEFAULT_LIMITS
from config.settings import SensorSettings
from drivers.readings import Intervals, Origin, Reading, Vital, Waveform
from drivers.registry import build_registry
from drivers.spec import uuid16
from gateway import virtual_time
from gateway.buffer_alert import BufferAlert
from gateway.clock import VirtualClock
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.recorder import Recorder
from gateway.sensor_events import Notification
from gateway.sensor_runner import SensorRunner
from gateway.timeline import Arrival
from tests.gateway.list_outbox import ListOutbox, call_inline

START_US = 1_800_000_000_000_000
VALUE = uuid16(0xFFF1)
READINGS: Mapping[bytes, Reading] = {
    b"pulse": Vital("pulse_rate", 60.0),
    b"rr": Intervals("rr", (1024,)),
    b"pressure": Vital("systolic", 120.0),
    b"spot": Vital("spo2", 97.0, (), Origin(1)),
    b"ecg": Waveform("ecg", (0, 5, 100, 5) * 32, 128.0, 0.001),
    b"ppg": Waveform("ppg", (0, 5, 100, 5) * 16, 64.0, 1.0),
}


async def stored_after_each(notifications: list[tuple[bytes, bool]]) -> list[int]:
    """The number of records that are durable after each notification: a payload, and whether it was indicated."""
    outbox = ListOutbox()
    clock = VirtualClock(asyncio.get_running_loop(), START_US)
    pipeline = Pipeline("made", DEFAULT_LIMITS, LoadedModels())
    recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(clock))
    settings = SensorSettings("made", advertised_name="made")
    runner = SensorRunner(settings, pipeline, build_registry([]), clock, recorder, call_inline)
    counts: list[int] = []
    for second, (payload, is_indicated) in enumerate(notifications, 1):
        arrival = Arrival(START_US + second * 1_000_000, second * 1_000_000_000)
        await runner._process_batch([Notification(VALUE, payload, (READINGS[payload],), arrival, is_indicated)])
        counts.append(len(outbox.records()))
    return counts


@pytest.mark.parametrize(
    ("notifications", "counts"),
    [
        ([(b"pulse", False), (b"pulse", True), (b"pulse", False)], [1, 2, 2]),
        ([(b"pulse", False), (b"pressure", False), (b"pulse", False)], [1, 2, 2]),
        ([(b"pulse", False), (b"spot", False), (b"pulse", False)], [1, 2, 2]),
        ([(b"ecg", False), (b"ecg", False), (b"ppg", False), (b"ppg", False)], [1, 1, 3, 3]),
        ([(b"pulse", False), (b"pulse", False), (b"rr", False), (b"pulse", False)], [1, 1, 3, 3]),
    ],
    ids=["indicated", "spot kind", "measured on demand", "first samples", "first values"],
)
def test_what_cannot_be_had_again_is_durable_before_the_next_event(
    notifications: list[tuple[bytes, bool]], counts: list[int]
) -> None:
    assert virtual_time.run(stored_after_each(notifications)) == counts
