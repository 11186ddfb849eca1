"""`pulsegate record` of spot devices: captures in both formats that replay reads, with what the sensor sent alone."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from bumble.device import Device

from config.settings import SensorSettings
from drivers.readings import Quarantined, Reading, Vital
from drivers.registry import load_drivers
from gateway import virtual_time
from gateway.clock import VirtualClock
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, open_in_process_radio
from gateway.replay.record import record
from gateway.replay.sources import open_source
from gateway.simulate.peripherals.oximeter import Oximeter
from gateway.simulate.peripherals.peripheral import Peripheral
from gateway.simulate.peripherals.services import follow_loop
from gateway.simulate.peripherals.thermometer import Thermometer
from tests.simulate.plain_hub import SENSOR, START, make_sensor_device

START_US = 1_796_025_600_000_000

both_formats = pytest.mark.parametrize("as_btsnoop", [False, True], ids=["jsonl", "btsnoop"])


def record_and_replay(
    path: Path, make: Callable[[Device], Peripheral], scenario: Callable[[Any], Awaitable[None]], *, as_btsnoop: bool
) -> list[Reading]:
    """Record a sensor for 30 s while the scenario plays; return the readings of a replay."""

    async def run() -> None:
        link = VirtualLink()
        sensor = make(make_sensor_device(link))
        await sensor.device.power_on()
        async with open_in_process_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
            clock, settings = VirtualClock(asyncio.get_running_loop(), START_US), SensorSettings("sensor", address=SENSOR)
            tasks = [asyncio.create_task(sensor.run()), asyncio.create_task(asyncio.wait_for(scenario(sensor), 30))]
            assert await record(settings, radio, load_drivers(), clock, path, 30.0, as_btsnoop=as_btsnoop) > 0
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    virtual_time.run(run())
    return [reading for step in open_source(path, load_drivers()).steps for reading in step.readings]


@both_formats
def test_values_that_waited_for_the_model_are_in_order(tmp_path: Path, *, as_btsnoop: bool) -> None:
    async def scenario(thermometer: Thermometer) -> None:
        for celsius in (38.4, 38.6):
            await thermometer.measure(celsius)
            await asyncio.sleep(10)

    def make(device: Device) -> Thermometer:
        return Thermometer(device, follow_loop(START))

    readings = record_and_replay(tmp_path / "x", make, scenario, as_btsnoop=as_btsnoop)
    assert not any(isinstance(reading, Quarantined) for reading in readings)
    found = [reading for reading in readings if isinstance(reading, Vital) and reading.kind == "temperature"]
    assert [reading.value for reading in found] == [38.4, 38.6]
    assert all(reading.origin is not None and reading.origin.measured is not None for reading in found)


@both_formats
def test_what_drivers_say_by_themselves_is_no_payload(tmp_path: Path, *, as_btsnoop: bool) -> None:
    async def scenario(oximeter: Oximeter) -> None:
        oximeter.insert_finger(97, 72)
        await asyncio.sleep(5)

    def make(device: Device) -> Oximeter:
        return Oximeter(device, follow_loop(START))

    readings = record_and_replay(tmp_path / "x", make, scenario, as_btsnoop=as_btsnoop)
    assert not any(isinstance(reading, Quarantined) for reading in readings)
    kinds = {getattr(reading, "kind", "") for reading in readings}
    assert {"spo2", "pulse_rate", "oximeter_features", "model", "sensor_time"} <= kinds
    assert not kinds & {"sensor_clock_offset_s", "sensor_clock_written", "setup_failed"}
