"""What one sensor sends must not end the agent: the payload is set aside, that sensor's analysis restarts, the others go on."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from config.limits import DEFAULT_LIMITS
from config.settings import SensorSettings
from drivers.readings import Reading, Vital, Waveform
from drivers.registry import build_registry
from drivers.spec import Characteristic, DriverSpec, uuid16
from gateway import virtual_time
from gateway.buffer_alert import BufferAlert
from gateway.clock import VirtualClock
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.radio import Radio
from gateway.radio.subscriptions import PlainSubscriptions
from gateway.recorder import Recorder
from gateway.sensor_runner import RESTART_REASON, SensorRunner
from gateway.timeline import Arrival
from sync.records import GapRecord, QuarantinedRecord, Record, WaveformRecord
from tests.gateway.list_outbox import ListOutbox, call_inline

SERVICE, VALUE = uuid16(0xFFF0), uuid16(0xFFF1)
START_US = 1_800_000_000_000_000
BEATS = (0, 5, 100, 5) * 32
NAN: Any = float("nan")
REFUSED_BY_THE_DRIVERS = {
    b"0 Hz": Waveform("ecg", BEATS, 0.0, 0.001),
    b"2^31": Waveform("ecg", (2**31,) * 20, 130.0, 0.001),
    b"NaN": Waveform("ecg", (1, NAN, 1), 130.0, 0.001),
    b"2^62 ns": Waveform("ecg", BEATS, 130.0, 0.001, 2**62),
}
RAISES_IN_THE_ANALYSIS = {b"20 Hz": Waveform("ecg", BEATS, 20.0, 0.001), b"5000 Hz": Waveform("ecg", BEATS, 5000.0, 0.001)}
BAD = {**REFUSED_BY_THE_DRIVERS, **RAISES_IN_THE_ANALYSIS}


def decode_frame(payload: bytes) -> tuple[Reading, ...]:
    return (BAD.get(payload, Waveform("ecg", BEATS, 128.0, 0.001)),)


class Services(list[Any]):
    def get_characteristic(self, _uuid: str) -> bool:
        return True


@dataclass
class Client:
    """A sensor that sends a frame a second; the eleventh is `bad`."""

    bad: bytes | None

    def __post_init__(self) -> None:
        self.services = Services(
            [SimpleNamespace(uuid=SERVICE, handle=1, characteristics=[SimpleNamespace(uuid=VALUE, handle=2)])]
        )

    async def connect(self) -> None: ...

    async def disconnect(self) -> None:
        self.sending.cancel()

    async def start_notify(self, _uuid: str, on_value: Callable[[object, bytearray], None]) -> None:
        async def send() -> None:
            for number in range(10_000):
                await asyncio.sleep(1)
                on_value(None, bytearray(self.bad if self.bad and number == 10 else b"good"))

        self.sending = asyncio.ensure_future(send())


class TwoSensorRadio:
    """The part of a radio that a session uses."""

    def __init__(self, bad: bytes) -> None:
        self.bad = bad
        self.connecting = asyncio.Lock()
        self.subscriptions = PlainSubscriptions()

    async def find(self, match: Callable[[Any, Any], bool], _timeout_s: float) -> Any:
        names = (SimpleNamespace(address="00", name=name) for name in ("good", "bad"))
        return next(device for device in names if match(device, SimpleNamespace(local_name=device.name, rssi=-50)))

    async def connect(
        self, device: Any, _on_disconnect: object, _timeout_s: float, _rssi_dbm: int | None, *, pair: bool
    ) -> Client:
        assert not pair
        return Client(self.bad if device.name == "bad" else None)


async def run_two_sensors(bad: bytes) -> tuple[list[Record], list[SensorRunner]]:
    """Thirty seconds of two sensors, one of which sends the bad frame."""
    outbox = ListOutbox()
    registry = build_registry([DriverSpec("made", SERVICE, (Characteristic(VALUE, "notify", decode_frame),))])
    clock = VirtualClock(asyncio.get_running_loop(), START_US)
    recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(clock))
    runners = [
        SensorRunner(
            SensorSettings(name, advertised_name=name),
            Pipeline(name, DEFAULT_LIMITS, LoadedModels()),
            registry,
            clock,
            recorder,
            call_inline,
        )
        for name in ("good", "bad")
    ]
    radio: Any = TwoSensorRadio(bad)
    is_radio: Radio = radio
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30.5), asyncio.TaskGroup() as group:
            for runner in runners:
                group.create_task(runner.run(is_radio))
    for runner in runners:
        await runner.finish()
    await recorder.flush()
    return outbox.records(), runners


@pytest.mark.parametrize("bad", BAD, ids=bytes.decode)
def test_a_frame_that_cannot_be_processed_is_set_aside_and_all_sensors_go_on(
    bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    records, runners = virtual_time.run(run_two_sensors(bad))
    samples = {
        name: sum(len(r.samples) for r in records if isinstance(r, WaveformRecord) and r.sensor == name)
        for name in ("good", "bad")
    }
    assert samples == {"good": 30 * len(BEATS), "bad": 29 * len(BEATS)}
    (quarantined,) = (record for record in records if isinstance(record, QuarantinedRecord))
    assert (quarantined.sensor, quarantined.payload) == ("bad", bad)
    restarts = int(bad in RAISES_IN_THE_ANALYSIS)
    assert [runner.analysis_restarts for runner in runners] == [0, restarts]
    closed = [r for r in records if isinstance(r, GapRecord) and r.to_us and r.reason == RESTART_REASON]
    assert [gap.missing for gap in closed] == [pytest.approx(len(BEATS), abs=2)] * restarts
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == restarts
    assert all("ValueError in resample.py" in error and "Hz" not in error for error in errors)


def test_a_stopped_agent_keeps_the_state_of_a_waveform_that_this_run_did_not_see() -> None:
    pipeline = Pipeline("strap", DEFAULT_LIMITS, LoadedModels())
    wave = Waveform("ecg", tuple(np.resize(BEATS, 1280).tolist()), 128.0, 0.001, 10**15)
    pipeline.feed((wave,), Arrival(START_US, 10**9))
    pipeline.finish(Arrival(START_US, 10**9))
    state = pipeline.state()
    assert set(state["streams"]) == {"ecg"}
    without = Pipeline("strap", DEFAULT_LIMITS, LoadedModels(), state)
    without.feed((Vital("heart_rate", 60.0),), Arrival(START_US + 10**6, 2 * 10**9))
    without.finish(Arrival(START_US + 10**6, 2 * 10**9))
    assert without.state()["streams"] == state["streams"]
