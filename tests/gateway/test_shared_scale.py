"""A scale of a family, over the virtual link, with the whole agent and a clinic: whose weights, and when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.settings import SensorSettings
from gateway.models import LoadedModels
from gateway.persons import leave_answer, read_questions
from gateway.radio.virtual import make_device
from gateway.simulate.peripherals.scale import NAME, Scale
from gateway.simulate.peripherals.services import follow_loop
from gateway.status import read_status
from sync.records import Record, VitalRecord
from tests.gateway.testbed import START_US, Testbed, run_scenario

CODES = {1: 3752, 2: 1111}
ADDRESS = "C0:DE:0A:00:00:05"
PAUSE_S = 200
"""Between two weighings: longer than a connection."""


@asynccontextmanager
async def scale(testbed: Testbed) -> AsyncIterator[Scale]:
    device = make_device(testbed.link, ADDRESS, NAME)
    await device.power_on()
    true_time = follow_loop(datetime.fromtimestamp(START_US / 1e6, UTC).astimezone().replace(tzinfo=None))
    sensor = Scale(device, true_time, dict(CODES))
    running = asyncio.create_task(sensor.run())
    try:
        yield sensor
    finally:
        running.cancel()
        await asyncio.wait([running])


def shared(folder: Path) -> Testbed:
    """The patient is user 1 of the scale."""
    code = folder / "scale.code"
    code.write_text("3752")
    code.chmod(0o600)
    testbed = Testbed(folder, LoadedModels())
    settings = SensorSettings("scale", address=ADDRESS, user=1, consent_code_file=code)
    testbed.settings = replace(testbed.settings, sensors=(settings,))
    return testbed


def weights(records: list[Record]) -> list[tuple[float, float, str]]:
    """Value, seconds since the start, and source of the time of each weight."""
    return [
        (record.value, round((record.times.at_us - START_US) / 1e6), record.origin.time_source)
        for record in records
        if isinstance(record, VitalRecord) and record.kind == "weight" and record.origin is not None
    ]


def test_each_person_of_a_shared_scale_has_their_own_weights(tmp_path: Path) -> None:
    testbed = shared(tmp_path)

    async def scenario(testbed: Testbed) -> None:
        data = testbed.settings.data
        async with scale(testbed) as sensor, testbed.agent():
            for kg, user in ((80.5, 1), (80.1, 1), (55.0, 2), (60.0, None), (81.0, None)):
                await asyncio.sleep(PAUSE_S)
                await sensor.weigh(kg, user=user)
            await asyncio.sleep(PAUSE_S)
            questions = read_questions(data, "subject-1")
            asked = {kind: value for question in questions for kind, value, _ in question.held.values}
            assert asked["weight"] == 60.0
            assert read_status(data)["results_unconfirmed"] == len(questions)
            assert [kg for kg, _, _ in weights(testbed.records())] == [80.5, 80.1, 81.0]
            for question in questions:
                leave_answer(data, question.held.id, is_patient=True)
            await asyncio.sleep(10)
            assert read_status(data)["results_unconfirmed"] == 0
        assert [kg for kg, _, _ in weights(testbed.records())] == [80.5, 80.1, 81.0, 60.0]

    run_scenario(testbed, scenario)
    assert 55.0 not in {record.value for record in testbed.records() if isinstance(record, VitalRecord)}


def test_weights_from_a_scale_whose_clock_is_wrong_have_their_own_times(tmp_path: Path) -> None:
    """It was two hours ahead. Two weights were stored before the hub came, and one follows after the hub set the clock."""
    testbed = shared(tmp_path)

    async def scenario(testbed: Testbed) -> None:
        async with scale(testbed) as sensor:
            sensor.clock.jump(7200)
            for kg in (80.5, 80.25):
                await sensor.weigh(kg)
                await asyncio.sleep(6 * PAUSE_S)
            async with testbed.agent():
                await sensor.weigh(80.0)
                await asyncio.sleep(PAUSE_S)
                await sensor.weigh(79.5)
                await asyncio.sleep(PAUSE_S)

    run_scenario(testbed, scenario)
    values, at_s, sources = zip(*weights(testbed.records()), strict=True)
    assert values == (80.5, 80.25, 80.0, 79.5)
    assert at_s == pytest.approx((0, 6 * PAUSE_S, 12 * PAUSE_S, 13 * PAUSE_S), abs=2)
    assert sources == ("corrected", "corrected", "corrected", "measured")
