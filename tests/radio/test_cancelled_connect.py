"""A connect that is cancelled at the moment at which the link is established."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from bumble import ll

from gateway import virtual_time

SENSOR = "C0:DE:00:00:00:01"


def test_no_untracked_connection_is_left(open_testbed: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            device = await testbed.radio.find(lambda device, _: device.address == SENSOR, 5)
            client = testbed.radio.client(device, lambda _: None, 5)
            connecting = asyncio.create_task(client.connect())
            send = testbed.link.send_advertising_pdu

            def cancel_when_connected(sender: object, packet: ll.AdvertisingPdu) -> None:
                send(sender, packet)
                if isinstance(packet, ll.ConnectInd):
                    connecting.cancel()

            testbed.link.send_advertising_pdu = cancel_when_connected
            with pytest.raises(asyncio.CancelledError):
                await connecting
            testbed.link.send_advertising_pdu = send
            await asyncio.sleep(1)
            assert not testbed.sensor.device.connections
            await client.connect()
            assert await client.read_gatt_char("2a38") == b"\x01"

    virtual_time.run(main())
