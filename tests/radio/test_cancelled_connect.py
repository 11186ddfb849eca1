"""A connect that is cancelled in the moment in which the link is made."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from bumble import ll

from gateway import virtual_time

SENSOR = "C0:DE:00:00:00:01"


def test_it_leaves_no_connection_that_nobody_knows(room: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
    async def main() -> None:
        async with room() as here:
            device = await here.radio.find(lambda found, _: found.address == SENSOR, 5)
            client = here.radio.client(device, lambda _: None, 5)
            connecting = asyncio.create_task(client.connect())
            send = here.link.send_advertising_pdu

            def cancel_when_made(sender: object, packet: ll.AdvertisingPdu) -> None:
                send(sender, packet)
                if isinstance(packet, ll.ConnectInd):
                    connecting.cancel()

            here.link.send_advertising_pdu = cancel_when_made
            with pytest.raises(asyncio.CancelledError):
                await connecting
            here.link.send_advertising_pdu = send
            await asyncio.sleep(1)
            assert not here.sensor.device.connections
            await client.connect()
            assert await client.read_gatt_char("2a38") == b"\x01"

    virtual_time.run(main())
