"""The virtual radio between processes, over real sockets: to its peer, a process that dies looks like a lost link."""

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

from gateway.errors import RadioError
from gateway.radio import Radio, open_radio, virtual
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS
from gateway.radio.virtual_radio_server import VirtualRadioServer, open_device

SENSOR = "C0:DE:00:00:00:01"
TIMEOUT_S = 20

CHILD_PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from bumble.core import AdvertisingData
from gateway.radio import bumble_backend
from gateway.radio.virtual_radio_server import open_device
from gateway.radio import open_radio

path, address = sys.argv[1:]

async def sensor():
    async with open_device(Path(path), address, "small") as device:
        device.advertising_data = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, b"small")]))
        await device.start_advertising(auto_restart=True)
        print(os.getpid(), flush=True)
        await asyncio.Event().wait()

async def hub():
    async with open_radio("virtual:" + path) as radio:
        await radio.client(address, lambda _: None, 10).connect()
        print(os.getpid(), flush=True)
        await asyncio.Event().wait()

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for role in sys.stdin:
    if os.fork() == 0:
        asyncio.run({"sensor": sensor, "hub": hub}[role.strip()]())
"""


class ForkServer:
    """Starts processes by forking one that has loaded all modules, because normal starts would take most of the test time."""

    def __init__(self, parent: asyncio.subprocess.Process) -> None:
        self._parent = parent

    @asynccontextmanager
    async def running(self, role: str) -> AsyncIterator[None]:
        """Runs a process that has started in this role, and kills it with SIGKILL at the end."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(role.encode() + b"\n")
        async with asyncio.timeout(TIMEOUT_S):
            pid = int(await self._parent.stdout.readline())
        try:
            yield
        finally:
            os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def start_fork_server(server: VirtualRadioServer) -> AsyncIterator[ForkServer]:
    pipe = asyncio.subprocess.PIPE
    arguments = ("-c", CHILD_PROGRAM, str(server.path), SENSOR)
    parent = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
    try:
        yield ForkServer(parent)
    finally:
        parent.kill()
        await parent.communicate()


@pytest.fixture(autouse=True)
def short_supervision_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "SUPERVISION_TIMEOUT_S", 0.05)


async def connect(radio: Radio) -> tuple[BleakClient, asyncio.Event]:
    lost = asyncio.Event()
    device = await radio.find(lambda device, _: device.address == SENSOR, TIMEOUT_S)
    assert device is not None
    client = radio.client(device, lambda _client: lost.set(), TIMEOUT_S)
    await client.connect()
    return client, lost


def test_a_killed_sensor_process_is_a_lost_link_and_the_next_one_connects(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            VirtualRadioServer(tmp_path) as server,
            open_radio(f"virtual:{server.path}") as radio,
            start_fork_server(server) as forks,
        ):
            for _ in range(10):
                async with forks.running("sensor"):
                    client, lost = await connect(radio)
                    assert not lost.is_set()
                async with asyncio.timeout(TIMEOUT_S):
                    await lost.wait()
                assert not client.is_connected
            assert not radio.lost.is_set()

    asyncio.run(main())


def test_a_killed_hub_process_is_a_lost_link_and_the_next_one_connects(tmp_path: Path, minimal_sensor: Any) -> None:
    async def main() -> None:
        reasons: asyncio.Queue[int] = asyncio.Queue()
        async with (
            VirtualRadioServer(tmp_path) as server,
            open_device(server.path, SENSOR, "small") as device,
            start_fork_server(server) as forks,
        ):
            device.on("connection", lambda connection: connection.on("disconnection", reasons.put_nowait))
            await minimal_sensor(device).start()
            for _ in range(10):
                async with forks.running("hub"):
                    assert [str(each.peer_address) for each in device.connections.values()] == [VIRTUAL_HUB_ADDRESS]
                async with asyncio.timeout(TIMEOUT_S):
                    assert await reasons.get() == 0x08  # Connection Timeout
                assert not device.connections

    asyncio.run(main())


def test_devices_that_end_abruptly_leave_no_controllers_behind(tmp_path: Path, minimal_sensor: Any) -> None:
    async def main() -> None:
        async with VirtualRadioServer(tmp_path) as server, open_radio(f"virtual:{server.path}") as radio:
            for _ in range(5):
                async with open_device(server.path, SENSOR, "small") as device:
                    sensor = minimal_sensor(device)
                    await sensor.start()
                    client, lost = await connect(radio)
                    values: asyncio.Queue[bytes] = asyncio.Queue()
                    await client.start_notify("2a37", lambda _, value, values=values: values.put_nowait(bytes(value)))  # type: ignore[misc]
                    await sensor.notify_heart_rate(72)
                    async with asyncio.timeout(TIMEOUT_S):
                        assert await values.get() == b"\x00\x48"
                async with asyncio.timeout(TIMEOUT_S):
                    await lost.wait()
            assert len(server.link.controllers) == 1

    asyncio.run(main())


def test_the_radio_works_after_scans_and_connects_cancelled_at_any_moment(tmp_path: Path, minimal_sensor: Any) -> None:
    async def cancel_after(steps: int, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def main() -> None:
        async with (
            VirtualRadioServer(tmp_path) as server,
            open_device(server.path, SENSOR, "small") as device,
            open_radio(f"virtual:{server.path}") as radio,
        ):
            await minimal_sensor(device).start()
            for steps in range(12):
                await cancel_after(steps, radio.scan(TIMEOUT_S))
                await cancel_after(steps, radio.client(SENSOR, lambda _client: None, TIMEOUT_S).connect())
                client, lost = await connect(radio)
                await client.disconnect()
                assert lost.is_set()

    asyncio.run(main())


def test_the_end_of_the_server_is_reported_and_a_new_one_can_be_opened(tmp_path: Path, minimal_sensor: Any) -> None:
    async def main() -> None:
        for _ in range(3):
            async with VirtualRadioServer(tmp_path) as server:
                hub = open_radio(f"virtual:{server.path}")
                radio = await hub.__aenter__()
                sensor = open_device(server.path, SENSOR, "small")
                await minimal_sensor(await sensor.__aenter__()).start()
                client, lost = await connect(radio)
                searching = asyncio.create_task(radio.find(lambda *_: False, TIMEOUT_S))
            async with asyncio.timeout(TIMEOUT_S):
                await radio.lost.wait()
                await lost.wait()
            assert not client.is_connected
            with pytest.raises(BleakError, match="the radio was lost"):
                await client.connect()
            with pytest.raises(BleakError, match="the radio was lost"):
                await radio.scan(1)
            searching.cancel()
            await asyncio.gather(searching, return_exceptions=True)
            await hub.__aexit__(None, None, None)
            await sensor.__aexit__(None, None, None)

    asyncio.run(main())


def test_invalid_data_on_the_socket_ends_only_its_own_connection(tmp_path: Path, minimal_sensor: Any) -> None:
    async def main() -> None:
        async with VirtualRadioServer(tmp_path) as server, open_device(server.path, SENSOR, "small") as device:
            await minimal_sensor(device).start()
            reader, writer = await asyncio.open_unix_connection(server.path)
            writer.write(bytes(range(0x40, 0x80)))
            async with asyncio.timeout(TIMEOUT_S):
                assert await reader.read() == b""  # the server closed the connection
            writer.close()
            await writer.wait_closed()
            async with open_radio(f"virtual:{server.path}") as radio:
                assert (await connect(radio))[0].is_connected

    asyncio.run(main())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bluetooth:", "unknown radio"),
        ("wifi", "unknown radio 'wifi': use 'bluetooth', 'bluetooth:ADAPTER' or 'virtual:PATH'"),
        ("virtual:", "unknown radio"),
        ("virtual:/nowhere/air.sock", "no virtual radio at /nowhere/air.sock .No such file or directory.: start its simulator"),
        ("virtual:/" + "x" * 200, "no virtual radio at"),
    ],
)
def test_a_radio_that_cannot_be_opened_raises_the_reason(spec: str, message: str) -> None:
    async def main() -> None:
        async with open_radio(spec):
            pass

    with pytest.raises(RadioError, match=message):
        asyncio.run(main())


def test_a_socket_that_does_not_speak_hci_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        server = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), tmp_path / "air.sock")
        async with server:
            with pytest.raises(RadioError, match="closed the connection"):
                async with open_radio(f"virtual:{tmp_path / 'air.sock'}"):
                    pass

    asyncio.run(main())


def test_the_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "air.sock"))

    async def main() -> None:
        async with VirtualRadioServer(tmp_path) as server, open_radio(f"virtual:{server.path}") as radio:
            assert await radio.scan(0.01) == []

    asyncio.run(main())


def test_a_folder_that_cannot_hold_the_socket_is_refused() -> None:
    async def main() -> None:
        async with VirtualRadioServer(Path("/nowhere")):
            pass

    with pytest.raises(RadioError, match=r"cannot open the virtual radio at /nowhere/air\.sock"):
        asyncio.run(main())


def test_the_error_without_bumble_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gateway.radio.") and name != "gateway.radio.radio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bumble", None)

    async def main() -> None:
        async with open_radio("virtual:/tmp/air.sock"):
            pass

    with pytest.raises(RadioError, match=r"needs bumble: pip install 'pulsegate\[sim\]'"):
        asyncio.run(main())


def test_a_machine_without_a_message_bus_has_no_bluetooth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")

    async def main() -> None:
        async with open_radio("bluetooth"):
            pass

    with pytest.raises(RadioError, match=r"no Bluetooth service answers.*systemctl start bluetooth"):
        asyncio.run(main())
