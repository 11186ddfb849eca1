"""An emulated sensor in its own process: a hub in another process gets its readings; it stops on request."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bumble.core import UUID
from bumble.device import Device, Peer
from bumble.hci import Address

from gateway.radio.virtual_radio_server import SOCKET_NAME, VirtualRadioServer, open_device
from gateway.simulate import sensor_process
from gateway.simulate.families import FAMILIES

TIMEOUT_S = 30.0
"""Time limit of a whole test on a loaded machine."""


@asynccontextmanager
async def start_sensor(folder: Path, sensor: str) -> AsyncIterator[Process]:
    command = ["-m", "gateway.simulate.sensor_process", sensor, "--socket", str(folder / SOCKET_NAME), "--folder", str(folder)]
    child = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def wait_event(child: Process, name: str) -> dict[str, Any]:
    """Return the next event of that name; skip others."""
    assert child.stdout is not None
    async for line in child.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == name:
            return event
    raise AssertionError(f"the sensor ended before {name}")


async def transfer(hub: Device, received: list[bytes], *, bonded: bool) -> None:
    """Connect to the cuff. A hub that is bonded need not subscribe again."""
    connection = await hub.connect(Address(FAMILIES["cuff"].address))
    ended = asyncio.Event()
    connection.on("disconnection", lambda _reason: ended.set())
    peer = Peer(connection)
    await peer.discover_services()
    await peer.discover_characteristics()
    (measurement,) = peer.get_characteristics_by_uuid(UUID.from_16_bits(0x2A35))
    connection.gatt_client.indication_subscribers[measurement.handle] = {lambda value: received.append(bytes(value))}
    if bonded:
        await connection.encrypt()
    else:
        await connection.pair()
        await measurement.subscribe(lambda _value: None)
    await ended.wait()


def test_a_bonded_hub_gets_readings_after_a_restart_of_the_sensor_without_subscribing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with VirtualRadioServer(tmp_path) as server, open_device(server.path, "C2:00:00:00:00:02", "hub") as hub:
            for bonded in (False, True):
                received: list[bytes] = []
                async with start_sensor(tmp_path, "cuff") as child:
                    await wait_event(child, "advertising")
                    await transfer(hub, received, bonded=bonded)
                    assert (await wait_event(child, "confirmed"))["payload"] == received[0].hex()
                    child.send_signal(signal.SIGTERM)
                    assert await child.wait() == 0

    asyncio.run(scenario())


def test_without_a_radio_the_sensor_fails_with_a_one_line_error(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sensor_process, "RADIO_TIMEOUT_S", 0.3)
    assert sensor_process.main(["scale", "--socket", str(tmp_path / "none"), "--folder", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"scale: no virtual radio at {tmp_path / 'none'}")
    assert message.count("\n") == 1


def test_the_sensor_waits_for_a_radio_that_restarts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with start_sensor(tmp_path, "watch") as child:
            for _ in range(2):
                async with VirtualRadioServer(tmp_path):
                    await wait_event(child, "advertising")

    asyncio.run(scenario())
