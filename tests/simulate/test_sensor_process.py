"""Emulated sensors in processes of their own: they stop on request, wait for their radio, and keep their bonds after a kill."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bumble.core import UUID
from bumble.device import Connection, Device, Peer
from bumble.hci import Address

from gateway.radio.virtual_radio_server import SOCKET_NAME, VirtualRadioServer, open_device
from gateway.simulate import pmd, sensor_process, strap
from gateway.simulate.families import FAMILIES
from gateway.simulate.journal import read_journal

HUB = "C2:00:00:00:00:02"
START_ECG = bytes.fromhex("02 00 00 01 82 00 01 01 0e 00")
TIMEOUT_S = 30.0
"""Time limit of a whole test on a loaded machine."""


def strap_arguments(folder: Path) -> list[str]:
    return ["--socket", str(folder / SOCKET_NAME), "--journal", str(folder / "strap.jsonl")]


def sensor_arguments(folder: Path, sensor: str) -> list[str]:
    return [sensor, "--socket", str(folder / SOCKET_NAME), "--folder", str(folder)]


@asynccontextmanager
async def start_sensor(folder: Path, sensor: str, *arguments: str) -> AsyncIterator[Process]:
    if sensor == "strap":
        command = ["-m", "gateway.simulate.strap", *strap_arguments(folder), *arguments]
    else:
        command = ["-m", "gateway.simulate.sensor_process", *sensor_arguments(folder, sensor), *arguments]
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


async def discover(connection: Connection) -> Peer:
    peer = Peer(connection)
    await peer.discover_services()
    await peer.discover_characteristics()
    return peer


async def start_ecg(hub: Device, *, bonded: bool) -> Connection:
    connection = await hub.connect(Address(strap.ADDRESS))
    await (connection.encrypt() if bonded else connection.pair())
    peer = await discover(connection)
    found = {c.uuid.to_hex_str().upper(): c for service in peer.services for c in service.characteristics}
    control, data = (found[uuid.replace("-", "")] for uuid in (pmd.CONTROL_POINT, pmd.DATA))
    await control.subscribe(lambda _value: None, prefer_notify=False)
    await data.subscribe(lambda _value: None)
    await control.write_value(START_ECG, with_response=True)
    return connection


async def transfer(hub: Device, received: list[bytes], *, bonded: bool) -> None:
    """Connect to the cuff. A hub that is bonded need not subscribe again."""
    connection = await hub.connect(Address(FAMILIES["cuff"].address))
    ended = asyncio.Event()
    connection.on("disconnection", lambda _reason: ended.set())
    peer = await discover(connection)
    (measurement,) = peer.get_characteristics_by_uuid(UUID.from_16_bits(0x2A35))
    connection.gatt_client.indication_subscribers[measurement.handle] = {lambda value: received.append(bytes(value))}
    if bonded:
        await connection.encrypt()
    else:
        await connection.pair()
        await measurement.subscribe(lambda _value: None)
    await ended.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_strap_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    async def scenario() -> None:
        async with VirtualRadioServer(tmp_path), start_sensor(tmp_path, "strap") as child:
            await wait_event(child, "advertising")
            child.send_signal(number)
            assert await child.wait() == 0
            assert child.stderr is not None
            assert await child.stderr.read() == b""

    asyncio.run(scenario())


def test_the_end_of_standard_input_stops_the_strap_if_watched(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with VirtualRadioServer(tmp_path), start_sensor(tmp_path, "strap", "--watch-stdin") as child:
            await wait_event(child, "advertising")
            assert child.stdin is not None
            child.stdin.close()
            assert await child.wait() == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("sensor", ["strap", "watch"])
def test_a_sensor_waits_for_a_radio_that_starts_later_or_restarts(tmp_path: Path, sensor: str) -> None:
    async def scenario() -> None:
        async with start_sensor(tmp_path, sensor) as child:
            for _ in range(2):
                async with VirtualRadioServer(tmp_path):
                    await wait_event(child, "advertising")

    asyncio.run(scenario())


@pytest.mark.parametrize("sensor", ["strap", "scale"])
def test_without_a_radio_a_sensor_fails_with_a_one_line_error(
    tmp_path: Path, monkeypatch: Any, capsys: Any, sensor: str
) -> None:
    monkeypatch.setattr(sensor_process, "RADIO_TIMEOUT_S", 0.3)
    if sensor == "strap":
        assert strap.main(strap_arguments(tmp_path)) == 1
    else:
        assert sensor_process.main(sensor_arguments(tmp_path, sensor)) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"{sensor}: no virtual radio at {tmp_path / SOCKET_NAME}")
    assert message.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--record", "missing.hea"], ["--journal", "no/such/folder"]])
def test_a_wrong_path_is_a_one_line_error(tmp_path: Path, arguments: list[str], capsys: Any) -> None:
    assert strap.main([*strap_arguments(tmp_path), *arguments]) == 1
    message = capsys.readouterr().err
    assert arguments[1] in message
    assert message.count("\n") == 1


def test_a_bonded_hub_gets_readings_after_a_restart_of_the_sensor_without_subscribing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with VirtualRadioServer(tmp_path) as server, open_device(server.path, HUB, "hub") as hub:
            for bonded in (False, True):
                received: list[bytes] = []
                async with start_sensor(tmp_path, "cuff") as child:
                    await wait_event(child, "advertising")
                    await transfer(hub, received, bonded=bonded)
                    assert (await wait_event(child, "confirmed"))["payload"] == received[0].hex()
                    child.send_signal(signal.SIGTERM)
                    assert await child.wait() == 0

    asyncio.run(scenario())


def test_bond_and_journal_survive_a_kill(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with VirtualRadioServer(tmp_path) as server, open_device(server.path, HUB, "hub") as hub:
            for bonded in (False, True):
                async with start_sensor(tmp_path, "strap") as child:
                    await wait_event(child, "advertising")
                    connection = await start_ecg(hub, bonded=bonded)
                    disconnected = asyncio.Event()
                    connection.on("disconnection", lambda _, disconnected=disconnected: disconnected.set())
                    await wait_event(child, "frames")
                    child.kill()
                    await disconnected.wait()

    asyncio.run(scenario())
    journal = read_journal(tmp_path / "strap.jsonl")
    first, second = journal.starts
    assert first.run != second.run
    assert first.script_start_ns < second.script_start_ns
    times = [frame.last_ns for frame in journal.frames]
    assert times == sorted(times)
    assert {frame.run for frame in journal.frames} == {first.run, second.run}
