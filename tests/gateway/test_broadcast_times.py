"""The time of a result that a sensor only broadcasts: no link shows that its clock restarted between two results."""

import asyncio

import pytest

from config.settings import SensorSettings
from drivers.registry import build_registry
from gateway import virtual_time
from gateway.buffer_alert import BufferAlert
from gateway.clock import VirtualClock
from gateway.recorder import Recorder
from gateway.sensor_events import Notification
from gateway.sensor_runner import SensorRunner
from gateway.timeline import Arrival
from sync.records import VitalRecord
from tests.gateway.list_outbox import ListOutbox, call_inline
from tests.gateway.spot_pipeline import MIN, NOW, S, pipeline, weight

LATER_US, SIX_HOURS_US = 4 * MIN, 360 * MIN


async def sources(*, is_broadcast: bool) -> list[str]:
    """How the times of two results were found: a live one, and one that is six hours old by the same clock."""
    outbox, clock = ListOutbox(), VirtualClock(asyncio.get_running_loop(), NOW)
    recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(clock))
    settings = SensorSettings("scale", advertised_name="scale", is_broadcast=is_broadcast)
    runner = SensorRunner(settings, pipeline(slots=None), build_registry([]), clock, recorder, call_inline)
    for measured_us, arrived_us in ((NOW - 5 * S, NOW), (NOW + LATER_US - SIX_HOURS_US, NOW + LATER_US)):
        readings = tuple(weight(measured_us, 80.0))
        arrival = Arrival(arrived_us, arrived_us * 1000)
        await runner._process_batch([Notification("service_data 181d", b"", readings, arrival, is_indicated=True)])
    return [record.origin.time_source for record in outbox.records() if isinstance(record, VitalRecord) and record.origin]


@pytest.mark.parametrize(("is_broadcast", "second"), [(False, "measured"), (True, "unconfirmed")])
def test_only_a_connection_confirms_the_time_of_an_older_result(is_broadcast: bool, second: str) -> None:
    assert virtual_time.run(sources(is_broadcast=is_broadcast)) == ["measured", second]
