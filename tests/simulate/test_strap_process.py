"""The strap in its own process: it stops on request, waits for its radio, and keeps its bonds after a kill."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bumble.device import Connection, Device, Peer
from bumble.hci import Address

from gateway.radio.virtual_radio_server import SOCKET_NAME, VirtualRadioServer, open_device
from gateway.simulate import pmd, strap
from gateway.simulate.journal import read_journal

START_ECG = bytes.fromhex("02 00 00 01 82 00 01 01 0e 00")
TIMEOUT_S = 30.0
"""Time limit of a whole test on a loaded machine."""


@asynccontextmanager
async def start_strap(folder: Path, *arguments: str) -> AsyncIterator[Process]:
    command = ["-m", "gateway.simulate.strap", "--socket", str(folder / SOCKET_NAME), "--journal", str(folder / "strap.jsonl")]
    child = await asyncio.create_subprocess_exec(sys.executable, *command, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE)
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
    raise AssertionError(f"the strap ended before {name}")


async def start_ecg(hub: Device, *, bonded: bool) -> Connection:
    connection = await hub.connect(Address(strap.ADDRESS))
    await (connection.encrypt() if bonded else connection.pair())
    peer = Peer(connection)
    await peer.discover_services()
    await peer.discover_characteristics()
    found = {c.uuid.to_hex_str().upper(): c for service in peer.services for c in service.characteristics}
    control, data = (found[uuid.replace("-", "")] for uuid in (pmd.CONTROL_POINT, pmd.DATA))
    await control.subscribe(lambda _value: None, prefer_notify=False)
    await data.subscribe(lambda _value: None)
    await control.write_value(START_ECG, with_response=True)
    return connection


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_strap_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    async def scenario() -> None:
        async with VirtualRadioServer(tmp_path), start_strap(tmp_path) as child:
            await wait_event(child, "advertising")
            child.send_signal(number)
            assert await child.wait() == 0
            assert child.stderr is not None
            assert await child.stderr.read() == b""

    asyncio.run(scenario())


def test_the_end_of_standard_input_stops_the_strap_if_watched(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with VirtualRadioServer(tmp_path), start_strap(tmp_path, "--watch-stdin") as child:
            await wait_event(child, "advertising")
            assert child.stdin is not None
            child.stdin.close()
            assert await child.wait() == 0

    asyncio.run(scenario())


def test_the_strap_waits_for_a_radio_that_starts_later_or_restarts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with start_strap(tmp_path) as child:
            for _ in range(2):
                async with VirtualRadioServer(tmp_path):
                    await wait_event(child, "advertising")

    asyncio.run(scenario())


def test_without_a_radio_the_strap_fails_with_a_one_line_error(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(strap, "RADIO_TIMEOUT_S", 0.3)
    assert strap.main(["--socket", str(tmp_path / "none"), "--journal", str(tmp_path / "strap.jsonl")]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"strap: no virtual radio at {tmp_path / 'none'}")
    assert message.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--record", "missing.hea"], ["--journal", "no/such/folder"]])
def test_a_wrong_path_is_a_one_line_error(tmp_path: Path, arguments: list[str], capsys: Any) -> None:
    command = ["--socket", str(tmp_path / "none"), "--journal", str(tmp_path / "strap.jsonl"), *arguments]
    assert strap.main(command) == 1
    message = capsys.readouterr().err
    assert arguments[1] in message
    assert message.count("\n") == 1


def test_bond_and_journal_survive_a_kill(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with VirtualRadioServer(tmp_path) as server, open_device(server.path, "C2:00:00:00:00:02", "hub") as hub:
            for bonded in (False, True):
                async with start_strap(tmp_path) as child:
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


def test_a_recording_is_played_with_its_beats(data: Path) -> None:
    ecg = strap.ecg_from_file(data / "polar-h10" / "polar_h10.csv")
    assert ecg.period_s == pytest.approx(600, abs=0.5)
    intervals = ecg.rr_intervals(0.0, 600.0)
    assert 60 * len(intervals) / sum(intervals) == pytest.approx(80, abs=5)
    swings = [np.ptp(ecg.samples(round(beat * 130.16) - 8, 17)) for beat in ecg.beats_s[1:-1]]  # its QRS is biphasic
    assert np.percentile(swings, 2) > 800
