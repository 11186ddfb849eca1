"""The emulated thermometer as a hub sees it."""

import asyncio

import pytest

from gateway import virtual_time
from gateway.radio.virtual import VirtualLink
from gateway.simulate.peripherals.services import follow_loop
from gateway.simulate.peripherals.thermometer import Thermometer
from tests.simulate.plain_hub import START, att_error_of, make_sensor_device, run_sensor

TEMPERATURE, RISING, SITE = "2A1C", "2A1E", "2A1D"


@pytest.mark.parametrize(
    ("in_fahrenheit", "celsius", "expected"),
    [
        (False, 36.8, "06 70 01 00 ff ea 07 0b 1e 08 00 00 06"),
        (True, 36.8, "07 d6 03 00 ff ea 07 0b 1e 08 00 00 06"),
        (False, None, "06 ff ff 7f 00 ea 07 0b 1e 08 00 00 06"),
    ],
)
def test_a_temperature_is_indicated_and_the_thermometer_leaves(
    in_fahrenheit: bool, celsius: float | None, expected: str
) -> None:
    async def run() -> None:
        link = VirtualLink()
        thermometer = Thermometer(make_sensor_device(link), follow_loop(START), in_fahrenheit=in_fahrenheit)
        async with run_sensor(link, thermometer) as hub:
            await thermometer.measure(celsius)
            connection = await hub.connect()
            assert await att_error_of(hub.subscribe(TEMPERATURE)) in (0x05, 0x0F)
            await connection.pair()
            assert await hub.read(SITE) == b"\x06"
            await hub.subscribe(TEMPERATURE, RISING)
            await asyncio.sleep(0.5)
            await thermometer.measure(37.5)
            await hub.wait_disconnected()
            assert hub.values(TEMPERATURE)[0].hex(" ") == expected
            assert len(hub.values(TEMPERATURE)) == 2
            assert [value[0] & 6 for value in hub.values(RISING)] == [4, 4]  # without a date
            assert thermometer.sent.confirmed(TEMPERATURE) == hub.values(TEMPERATURE)
            assert await hub.wait_advertisement() is None

    virtual_time.run(run())
