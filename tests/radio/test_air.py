"""The virtual radio between processes, over real sockets: what dies on one side is a lost link on the other."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bleak import BleakClient
from bleak.exc import BleakError

from gateway.radio import virtual
from gateway.radio.air import Air, open_device
from gateway.radio.radio import VIRTUAL_HUB_ADDRESS, Radio, RadioError, bleak_radio, open_radio

SENSOR = "C0:DE:00:00:00:01"
PATIENCE_S = 20

PROCESSES = """
import asyncio, os, signal, sys
from pathlib import Path
from bumble.core import AdvertisingData
from gateway.radio import bumble_backend
from gateway.radio.air import open_device
from gateway.radio.radio import open_radio

air, address = sys.argv[1:]

async def sensor():
    async with open_device(Path(air), address, "small") as device:
        device.advertising_data = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, b"small")]))
        await device.start_advertising(auto_restart=True)
        print(os.getpid(), flush=True)
        await asyncio.Event().wait()

async def hub():
    async with open_radio("virtual:" + air) as radio:
        await radio.client(address, lambda _: None, 10).connect()
        print(os.getpid(), flush=True)
        await asyncio.Event().wait()

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for role in sys.stdin:
    if os.fork() == 0:
        asyncio.run({"sensor": sensor, "hub": hub}[role.strip()]())
"""


class Processes:
    """Starts processes by forking one that has loaded everything, since what is tested is how they end."""

    def __init__(self, mother: asyncio.subprocess.Process) -> None:
        self._mother = mother

    @asynccontextmanager
    async def running(self, role: str) -> AsyncIterator[None]:
        """A process that has come as far as its role asks; on leaving it is killed with SIGKILL."""
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.write(role.encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            pid = int(await self._mother.stdout.readline())
        try:
            yield
        finally:
            os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def processes(air: Air) -> AsyncIterator[Processes]:
    pipe = asyncio.subprocess.PIPE
    arguments = ("-c", PROCESSES, str(air.path), SENSOR)
    mother = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
    try:
        yield Processes(mother)
    finally:
        mother.kill()
        await mother.communicate()


@pytest.fixture(autouse=True)
def impatient_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "SUPERVISION_TIMEOUT_S", 0.05)


async def connect(radio: Radio) -> tuple[BleakClient, asyncio.Event]:
    lost = asyncio.Event()
    device = await radio.find(lambda found, _: found.address == SENSOR, PATIENCE_S)
    assert device is not None
    client = radio.client(device, lambda _client: lost.set(), PATIENCE_S)
    await client.connect()
    return client, lost


def test_each_killed_sensor_process_is_a_lost_link_and_the_next_one_connects(tmp_path: Path) -> None:
    async def main() -> None:
        async with Air(tmp_path) as air, open_radio(f"virtual:{air.path}") as radio, processes(air) as starting:
            for _ in range(10):
                async with starting.running("sensor"):
                    client, lost = await connect(radio)
                    assert not lost.is_set()
                async with asyncio.timeout(PATIENCE_S):
                    await lost.wait()
                assert not client.is_connected
            assert not radio.lost.is_set()

    asyncio.run(main())


def test_each_killed_hub_process_is_a_lost_link_and_the_next_one_connects(tmp_path: Path, small_sensor: Any) -> None:
    async def main() -> None:
        reasons: asyncio.Queue[int] = asyncio.Queue()
        async with Air(tmp_path) as air, open_device(air.path, SENSOR, "small") as device, processes(air) as starting:
            device.on("connection", lambda connection: connection.on("disconnection", reasons.put_nowait))
            await small_sensor(device).start()
            for _ in range(10):
                async with starting.running("hub"):
                    assert [str(each.peer_address) for each in device.connections.values()] == [VIRTUAL_HUB_ADDRESS]
                async with asyncio.timeout(PATIENCE_S):
                    assert await reasons.get() == 0x08  # Connection Timeout
                assert not device.connections

    asyncio.run(main())


def test_abrupt_ends_leave_nothing_behind(tmp_path: Path, small_sensor: Any) -> None:
    async def main() -> None:
        async with Air(tmp_path) as air, open_radio(f"virtual:{air.path}") as radio:
            for _ in range(5):
                async with open_device(air.path, SENSOR, "small") as device:
                    sensor = small_sensor(device)
                    await sensor.start()
                    client, lost = await connect(radio)
                    got: asyncio.Queue[bytes] = asyncio.Queue()
                    await client.start_notify("2a37", lambda _sender, value, got=got: got.put_nowait(bytes(value)))  # type: ignore[misc]
                    await sensor.beat(72)
                    async with asyncio.timeout(PATIENCE_S):
                        assert await got.get() == b"\x00\x48"
                async with asyncio.timeout(PATIENCE_S):
                    await lost.wait()
            assert len(air.link.controllers) == 1

    asyncio.run(main())


def test_cancelling_scans_and_connects_at_any_moment_wedges_nothing(tmp_path: Path, small_sensor: Any) -> None:
    async def cancel_after(steps: int, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def main() -> None:
        async with (
            Air(tmp_path) as air,
            open_device(air.path, SENSOR, "small") as device,
            open_radio(f"virtual:{air.path}") as radio,
        ):
            await small_sensor(device).start()
            for steps in range(12):
                await cancel_after(steps, radio.scan(PATIENCE_S))
                await cancel_after(steps, radio.client(SENSOR, lambda _client: None, PATIENCE_S).connect())
                client, lost = await connect(radio)
                await client.disconnect()
                assert lost.is_set()

    asyncio.run(main())


def test_the_end_of_the_air_is_told_and_a_new_one_can_be_opened(tmp_path: Path, small_sensor: Any) -> None:
    async def main() -> None:
        for _ in range(3):
            async with Air(tmp_path) as air:
                hub = open_radio(f"virtual:{air.path}")
                radio = await hub.__aenter__()
                sensor = open_device(air.path, SENSOR, "small")
                await small_sensor(await sensor.__aenter__()).start()
                client, lost = await connect(radio)
                reading = asyncio.create_task(radio.find(lambda *_: False, PATIENCE_S))
            async with asyncio.timeout(PATIENCE_S):
                await radio.lost.wait()
                await lost.wait()
            assert not client.is_connected
            with pytest.raises(BleakError, match="the radio has gone"):
                await client.connect()
            with pytest.raises(BleakError, match="the radio has gone"):
                await radio.scan(1)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await hub.__aexit__(None, None, None)
            await sensor.__aexit__(None, None, None)

    asyncio.run(main())


def test_nonsense_on_the_socket_costs_only_its_own_connection(tmp_path: Path, small_sensor: Any) -> None:
    async def main() -> None:
        async with Air(tmp_path) as air, open_device(air.path, SENSOR, "small") as device:
            await small_sensor(device).start()
            reader, writer = await asyncio.open_unix_connection(air.path)
            writer.write(bytes(range(0x40, 0x80)))
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""  # hung up
            writer.close()
            await writer.wait_closed()
            async with open_radio(f"virtual:{air.path}") as radio:
                assert (await connect(radio))[0].is_connected

    asyncio.run(main())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wifi", "unknown radio 'wifi': use 'bluetooth' or 'virtual:PATH'"),
        ("virtual:", "unknown radio"),
        ("virtual:/nowhere/air.sock", "no virtual radio at /nowhere/air.sock .No such file or directory.: start its simulator"),
        ("virtual:/" + "x" * 200, "no virtual radio at"),
    ],
)
def test_a_radio_that_cannot_be_opened_says_why(spec: str, message: str) -> None:
    async def main() -> None:
        async with open_radio(spec):
            pass

    with pytest.raises(RadioError, match=message):
        asyncio.run(main())


def test_a_socket_that_does_not_speak_hci_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        server = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), tmp_path / "air.sock")
        async with server:
            with pytest.raises(RadioError, match="hung up"):
                async with open_radio(f"virtual:{tmp_path / 'air.sock'}"):
                    pass

    asyncio.run(main())


def test_a_socket_left_behind_by_a_killed_air_is_no_obstacle(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "air.sock"))

    async def main() -> None:
        async with Air(tmp_path) as air, open_radio(f"virtual:{air.path}") as radio:
            assert await radio.scan(0.01) == []

    asyncio.run(main())


def test_a_folder_that_cannot_hold_the_socket_is_refused() -> None:
    async def main() -> None:
        async with Air(Path("/nowhere")):
            pass

    with pytest.raises(RadioError, match=r"can't open the virtual radio at /nowhere/air\.sock"):
        asyncio.run(main())


def test_without_bumble_the_virtual_radio_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gateway.radio.") and name != "gateway.radio.radio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bumble", None)

    async def main() -> None:
        async with open_radio("virtual:/tmp/air.sock"):
            pass

    with pytest.raises(RadioError, match=r"needs bumble: pip install 'pulsegate\[sim\]'"):
        asyncio.run(main())


def test_the_real_radio_is_left_to_bleak() -> None:
    async def main() -> None:
        async with open_radio("bluetooth") as radio:
            assert (radio.client_backend, radio.scanner_backend, radio.name) == (None, None, bleak_radio().name)
            client = radio.client(SENSOR, lambda _client: None, 5)
            assert type(client._backend).__module__.startswith("bleak.backends.")

    asyncio.run(main())
