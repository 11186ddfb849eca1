"""Notes the passing of time for sensors that send nothing: their episodes become stale without a newer value."""

import asyncio
from collections.abc import Sequence
from typing import Final, NoReturn

from gateway.sensor_runner import SensorRunner

INTERVAL_S: Final = 60.0
"""Half of the shortest time after which an episode of a continuous sensor is called stale (`stale_continuous`)."""


async def watch_ages(sensors: Sequence[SensorRunner]) -> NoReturn:
    """End, each minute, the episodes of every sensor of which no newer value has come for too long."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        for sensor in sensors:
            await sensor.note_time()
