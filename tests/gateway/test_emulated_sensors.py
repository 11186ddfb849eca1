"""Sessions of the agent with every emulated sensor: what it sent comes out as the readings that were measured.

The sensors and the drivers are written independently of each other, so an error in one shows here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from bumble.device import Device

from config.settings import SensorSettings
from drivers.conversation import Consent
from drivers.readings import Intervals, Reading, Status, Vital, Waveform
from drivers.registry import load_drivers
from gateway import virtual_time
from gateway.broadcast_session import BroadcastSession
from gateway.clock import VirtualClock
from gateway.radio import Radio
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, open_in_process_radio
from gateway.sensor_events import Notification, SensorEvent
from gateway.session import SensorSession
from gateway.simulate.peripherals.armband import SIGNALS, Armband
from gateway.simulate.peripherals.broadcast_scale import BroadcastScale
from gateway.simulate.peripherals.cuff import IRREGULAR_PULSE, MEDISANA_CUFF, Cuff, CuffModel
from gateway.simulate.peripherals.movesense import Movesense, ecg_microvolts
from gateway.simulate.peripherals.oximeter import Oximeter
from gateway.simulate.peripherals.peripheral import Peripheral
from gateway.simulate.peripherals.scale import Scale
from gateway.simulate.peripherals.services import follow_loop
from gateway.simulate.peripherals.spot import LINGER_S
from gateway.simulate.peripherals.thermometer import Thermometer
from gateway.simulate.peripherals.watch import Watch
from gateway.simulate.playback import SensorClock
from tests.simulate.plain_hub import SENSOR, START, make_sensor_device

START_US = 1_796_025_600_000_000
"""The hub's clock shows the same time as the sensors': 2026-11-30, 08:00:00 UTC."""

Scenario = Callable[[Any], Awaitable[None]]


def follow(
    make: Callable[[Device], Peripheral], scenario: Scenario, *, consent: Consent | None = None, broadcast: bool = False
) -> list[Reading]:
    """Return the readings of a session while the scenario plays."""

    async def run() -> list[Reading]:
        link = VirtualLink()
        sensor = make(make_sensor_device(link))
        await sensor.device.power_on()
        async with open_in_process_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
            session = make_session(radio, consent=consent, broadcast=broadcast)
            events: list[SensorEvent] = []
            tasks = [asyncio.create_task(each) for each in (sensor.run(), session.run(), take_events(session, events))]
            await scenario(sensor)
            for task in tasks:
                assert not task.done(), task
                task.cancel()
                await asyncio.wait([task])
        return [reading for event in events if isinstance(event, Notification) for reading in event.readings]

    return virtual_time.run(run())


async def take_events(session: SensorSession | BroadcastSession, events: list[SensorEvent]) -> None:
    while True:
        events += session.events.drain(1000)
        await asyncio.sleep(0.5)


def make_session(radio: Radio, *, consent: Consent | None, broadcast: bool) -> SensorSession | BroadcastSession:
    clock = VirtualClock(asyncio.get_running_loop(), START_US)
    settings = SensorSettings("sensor", address=SENSOR, is_broadcast=broadcast)
    if broadcast:
        return BroadcastSession(settings, radio, load_drivers(), clock, lambda *_: None)
    return SensorSession(settings, radio, load_drivers(), clock, lambda *_: None, consent=consent)


def vitals(readings: list[Reading], *kinds: str) -> list[tuple[str, float]]:
    return [(reading.kind, reading.value) for reading in readings if isinstance(reading, Vital) and reading.kind in kinds]


def statuses(readings: list[Reading], kind: str) -> list[object]:
    return [reading.value for reading in readings if isinstance(reading, Status) and reading.kind == kind]


def make_cuff(model: CuffModel) -> Callable[[Device], Cuff]:
    return lambda device: Cuff(device, follow_loop(START), model)


@pytest.mark.parametrize(
    "model", [CuffModel("pulsegate", "cuff", "Cuff 1"), CuffModel("pulsegate", "cuff", "Cuff 2", in_kpa=True)]
)
def test_every_result_of_a_cuff_comes_out_as_it_was_measured(model: CuffModel) -> None:
    async def scenario(cuff: Cuff) -> None:
        await cuff.measure(128, 82, 71, user=2, status=IRREGULAR_PULSE)
        await asyncio.sleep(1)
        await cuff.measure()
        await asyncio.sleep(1)
        await cuff.measure(119, 78, 66)
        await asyncio.sleep(10)

    readings = follow(make_cuff(model), scenario)
    values = vitals(readings, "systolic", "diastolic", "pulse_rate_cuff")
    assert [kind for kind, _ in values] == ["systolic", "diastolic", "pulse_rate_cuff"] * 2
    tolerance = 0.4 if model.in_kpa else 0.0
    assert [value for _, value in values] == pytest.approx([128, 82, 71, 119, 78, 66], abs=tolerance)
    first = next(reading for reading in readings if isinstance(reading, Vital))
    assert first.origin is not None
    assert (first.origin.user, first.origin.measured, first.origin.clock) == (2, START, "set")
    assert "irregular_pulse" in first.flags
    assert statuses(readings, "failed_measurement") == ["blood_pressure"]


def test_a_history_is_read_whole_though_the_newest_result_comes_first() -> None:
    async def scenario(cuff: Cuff) -> None:
        for number in range(9):
            await cuff.measure(120 + number, 80, 70)
        await asyncio.sleep(10)

    readings = follow(make_cuff(MEDISANA_CUFF), scenario)
    assert [value for _, value in vitals(readings, "systolic")] == [*range(128, 119, -1)]


def test_what_a_bonded_cuff_indicates_before_the_hub_subscribes_is_taken_once() -> None:
    confirmed: list[int] = []

    async def scenario(cuff: Cuff) -> None:
        for number in range(3):
            await cuff.measure(120 + number, 80, 70)
            await asyncio.sleep(300)
        confirmed.extend(int(value.payload[1]) for value in cuff.sent.values if value.confirmed_s is not None)

    readings = follow(make_cuff(MEDISANA_CUFF), scenario)
    assert confirmed == [120, 121, 120, 122, 121, 120]  # the whole memory, the newest first
    assert [value for _, value in vitals(readings, "systolic")] == confirmed


def test_a_result_of_a_connection_that_failed_before_its_services_were_known_comes_out_at_the_next_one() -> None:
    async def scenario(cuff: Cuff) -> None:
        await cuff.measure(120, 80, 70)
        await asyncio.sleep(60)
        cuff.linger_s = 0.0
        hasty = await cuff.measure(121, 80, 70)
        await asyncio.sleep(60)
        assert hasty.is_confirmed
        cuff.linger_s = LINGER_S
        await cuff.measure(122, 80, 70)
        await asyncio.sleep(60)
        assert len(cuff.sent.values) == 3

    readings = follow(make_cuff(CuffModel("pulsegate", "cuff", "Cuff 1")), scenario)
    assert [value for _, value in vitals(readings, "systolic")] == [120, 121, 122]


def test_a_cuff_whose_clock_was_reset_is_told_and_set() -> None:
    async def scenario(cuff: Cuff) -> None:
        cuff.clock.reset()
        await cuff.measure(120, 80, 70)
        await asyncio.sleep(1)
        await cuff.measure(121, 80, 70)
        await asyncio.sleep(10)
        shown = cuff.clock.now()
        assert shown is not None
        assert abs((shown - START).total_seconds() - asyncio.get_running_loop().time()) <= 2

    readings = follow(make_cuff(CuffModel("pulsegate", "cuff", "Cuff 1")), scenario)
    origins = [reading.origin for reading in readings if isinstance(reading, Vital) and reading.kind == "systolic"]
    assert [origin.measured.year for origin in origins if origin and origin.measured] == [2019, 2026]


def test_an_oximeters_stored_and_present_values_are_told_apart() -> None:
    async def scenario(oximeter: Oximeter) -> None:
        oximeter.insert_finger(91, 60)
        await oximeter.remove_finger()
        oximeter.insert_finger(97, 68)
        await asyncio.sleep(10.5)
        await oximeter.remove_finger()
        await asyncio.sleep(30)

    readings = follow(lambda device: Oximeter(device, follow_loop(START)), scenario)
    spo2 = [reading for reading in readings if isinstance(reading, Vital) and reading.kind == "spo2"]
    spots = [(reading.value, reading.origin.is_stored) for reading in spo2 if reading.origin is not None]
    assert spots == [(91, True), (97, False)]
    assert {reading.value for reading in spo2 if reading.origin is None} == {97}


def test_a_scale_gives_its_weighings_after_consent() -> None:
    async def scenario(scale: Scale) -> None:
        for kg, user in ((80.5, 1), (55.0, 2), (79.95, 1)):
            await scale.weigh(kg, user=user)
            await asyncio.sleep(1)
        await asyncio.sleep(10)

    readings = follow(lambda device: Scale(device, follow_loop(START), {1: 3752}), scenario, consent=Consent(1, 3752))
    assert vitals(readings, "weight") == [("weight", 80.5), ("weight", 79.95)]
    assert vitals(readings, "body_fat") == []  # a stub is not a body without fat


@pytest.mark.parametrize("accepts", [True, False], ids=["accepted", "refused"])
def test_no_log_line_shows_a_value_a_code_or_a_date(caplog: pytest.LogCaptureFixture, *, accepts: bool) -> None:
    async def scenario(scale: Scale) -> None:
        for _ in range(3):
            await scale.weigh(83.465, user=1)
            await asyncio.sleep(30)

    with caplog.at_level("DEBUG"):
        users = {1: 7391 if accepts else 1234}
        follow(lambda device: Scale(device, follow_loop(START), users), scenario, consent=Consent(1, 7391))
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("bumble", "asyncio"))]
    assert any("connected" in line for line in ours)
    assert any("user_not_authorized" in line for line in ours) != accepts
    canaries = ("7391", "1cdf", "83.4", "16693", "2026-11-30")
    assert [line for line in ours if any(canary in line.lower() for canary in canaries)] == []


def test_a_broadcast_scale_gives_one_weighing() -> None:
    async def scenario(scale: BroadcastScale) -> None:
        await scale.weigh(72.45, impedance_ohm=503)
        await asyncio.sleep(60)

    readings = follow(lambda device: BroadcastScale(device, follow_loop(START)), scenario, broadcast=True)
    assert set(vitals(readings, "weight")) == {("weight", 72.45)}


@pytest.mark.parametrize("in_fahrenheit", [False, True])
def test_a_thermometers_unit_is_converted(in_fahrenheit: bool) -> None:
    async def scenario(thermometer: Thermometer) -> None:
        await thermometer.measure(38.4)
        await asyncio.sleep(10)

    readings = follow(lambda device: Thermometer(device, follow_loop(START), in_fahrenheit=in_fahrenheit), scenario)
    ((_, celsius),) = vitals(readings, "temperature")
    assert celsius == pytest.approx(38.4, abs=0.03)


def test_a_watch_gives_rate_steps_and_motion() -> None:
    async def scenario(watch: Watch) -> None:
        await asyncio.sleep(2)
        watch.find_pulse(72)
        watch.is_walking = True
        await asyncio.sleep(10)

    readings = follow(lambda device: Watch(device, follow_loop(START)), scenario)
    rates = {
        (reading.value, reading.flags) for reading in readings if isinstance(reading, Vital) and reading.kind == "heart_rate"
    }
    assert rates == {(0, ("no_pulse_found",)), (72, ())}
    assert vitals(readings, "steps")[-1][1] > 10
    assert vitals(readings, "motion_z")[0][1] == 1.0


def test_an_armband_gives_its_compressed_signals_sample_by_sample() -> None:
    async def scenario(armband: Armband) -> None:
        await asyncio.sleep(40)
        await armband.stop_unasked(1)
        await asyncio.sleep(20)

    readings = follow(lambda device: Armband(device, SensorClock.set_to(START_US * 1000, 0.0)), scenario)
    waves = [reading for reading in readings if isinstance(reading, Waveform)]
    ppg = [wave for wave in waves if wave.kind == "ppg"]
    assert sum(len(wave.samples) for wave in ppg) > 40 * 55
    truth = SIGNALS[1].sample
    for wave in ppg:
        assert wave.last_ns is not None
        last = round((wave.last_ns / 1e9 + 946_684_800 - START_US / 1e6) * 55)
        numbers = range(last - len(wave.samples) + 1, last + 1)
        assert list(wave.samples) == truth(np.array(numbers))[:, 0].tolist()
    assert any(isinstance(reading, Intervals) for reading in readings)
    assert {wave.kind for wave in waves} >= {"ppg", "ppg_2", "ppg_3", "ppg_ambient"}


def test_a_movesense_gives_its_ecg_and_its_motion() -> None:
    async def scenario(_sensor: Movesense) -> None:
        await asyncio.sleep(10)

    readings = follow(Movesense, scenario)
    ecg = [reading for reading in readings if isinstance(reading, Waveform) and reading.kind == "ecg"]
    samples = [sample * wave.scale for wave in ecg for sample in wave.samples]
    start = next(offset for offset in range(2000) if round(samples[0] * 1000) == ecg_microvolts(offset))
    candidates = [offset for offset in range(start, 2000) if round(samples[0] * 1000) == ecg_microvolts(offset)]
    expected = [[ecg_microvolts(offset + number) / 1000 for number in range(len(samples))] for offset in candidates]
    assert any(samples == pytest.approx(values) for values in expected)
    assert len(samples) > 1800
    kinds = {reading.kind for reading in readings if isinstance(reading, Waveform)}
    assert kinds >= {"acc_x", "gyro_z"}
    assert vitals(readings, "heart_rate")[0] == ("heart_rate", 75.0)
