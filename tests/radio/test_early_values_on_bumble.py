"""A bonded sensor indicates before the hub has discovered its services: the value that the hub confirmed reaches the caller."""

import asyncio
from typing import Any

from bumble.device import Connection

from gateway import virtual_time
from gateway.radio.subscriptions import EARLY_LIMIT
from tests.radio.hub_actions import OpenTestbed, connect

LATER = b"after the subscription"


def indicate_when_encrypted(sensor: Any, values: list[bytes]) -> asyncio.Event:
    """Let the sensor indicate these pressures as soon as the next link is encrypted. The event says that all were confirmed."""
    confirmed = asyncio.Event()

    async def indicate(connection: Connection) -> None:
        for value in values:
            await sensor.device.indicate_subscriber(connection, sensor.pressure, value, force=True)
        confirmed.set()

    def on_connection(connection: Connection) -> None:
        tasks: list[asyncio.Task[None]] = []
        event = connection.EVENT_CONNECTION_ENCRYPTION_CHANGE
        connection.on(event, lambda: tasks.append(asyncio.ensure_future(indicate(connection))))

    sensor.device.on(sensor.device.EVENT_CONNECTION, on_connection)
    return confirmed


def receive_from_a_bonded_sensor(open_testbed: OpenTestbed, values: list[bytes]) -> list[bytes]:
    received: list[bytes] = []

    async def main() -> None:
        async with open_testbed() as testbed:
            first = await connect(testbed.radio)
            await first.pair()
            await first.disconnect()
            confirmed = indicate_when_encrypted(testbed.sensor, values)
            client = await connect(testbed.radio)
            await confirmed.wait()
            pressure = client.services.get_characteristic("2a35")

            def on_value(value: bytes, _age_s: float) -> None:
                received.append(value)

            subscriptions = testbed.radio.subscriptions
            subscriptions.listen(client, pressure, on_value)
            await subscriptions.subscribe(client, pressure, on_value)
            await testbed.sensor.device.indicate_subscribers(testbed.sensor.pressure, LATER)
            await client.stop_notify(pressure)
            await subscriptions.subscribe(client, pressure, on_value)

    virtual_time.run(main())
    return received


def test_what_a_bonded_sensor_indicates_at_once_is_delivered_once_and_in_order(open_testbed: OpenTestbed) -> None:
    values = [b"\x01", b"\x02", b"\x03"]
    assert receive_from_a_bonded_sensor(open_testbed, values) == [*values, LATER]


def test_a_sensor_that_floods_costs_a_limited_number_of_values(open_testbed: OpenTestbed) -> None:
    values = [bytes((number % 256,)) for number in range(EARLY_LIMIT + 10)]
    assert receive_from_a_bonded_sensor(open_testbed, values) == [*values[:EARLY_LIMIT], LATER]
