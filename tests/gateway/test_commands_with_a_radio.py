"""`pulsegate scan`, `record` and `run` as processes on a virtual radio, with a strap whose name holds a terminal escape."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.radio.virtual_radio_server import VirtualRadioServer, open_device
from gateway.simulate.heart import from_script
from gateway.simulate.journal import Journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script
from gateway.simulate.strap import ADDRESS, Strap

ESCAPE = "\x1b[2J"
"""Clears the terminal."""
TIMEOUT_S = 60.0
"""Time limit of a whole test on a loaded machine."""


@asynccontextmanager
async def strap_on_air(folder: Path) -> AsyncIterator[Path]:
    """Runs a strap called ESC[2J Virtual H10; yields the radio's socket."""
    async with (
        asyncio.timeout(TIMEOUT_S),
        VirtualRadioServer(folder) as server,
        open_device(server.path, ADDRESS, f"{ESCAPE} Virtual H10") as device,
    ):
        with Journal(folder / "journal", "run") as journal:
            playback = Playback(from_script(load_script("demo")), SensorClock.set_to(0, 0.0), journal)
            strap = asyncio.create_task(Strap(device, playback, lambda _event: None).run())
            yield server.path
            strap.cancel()
            await asyncio.wait([strap])


async def start(folder: Path, *arguments: str) -> Process:
    command = (sys.executable, "-m", "gateway.cli", *arguments)
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=folder, umask=0o022)


def test_a_name_cannot_control_the_terminal_and_a_wrong_name_leaves_no_capture(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with strap_on_air(tmp_path) as socket:
            scan = await start(tmp_path, "scan", "--radio", f"virtual:{socket}", "--seconds", "2")
            found, _ = await scan.communicate()
            assert ADDRESS.encode() in found
            assert rb"\x1b[2J Virtual H10" in found
            assert b"\x1b" not in found
            arguments = ("record", "new.jsonl", "--name", "Wrong", "--radio", f"virtual:{socket}", "--seconds", "1")
            record = await start(tmp_path, *arguments)
            _, errors = await record.communicate()
            assert record.returncode == 1
            assert errors.startswith(b"pulsegate: nothing came from a sensor named Wrong: check that it is worn")
            assert errors.count(b"\n") == 1
            assert not (tmp_path / "new.jsonl").exists()

    asyncio.run(scenario())


def test_simulate_says_how_to_use_the_sensors(tmp_path: Path) -> None:
    async def scenario() -> None:
        simulate = await start(tmp_path, "simulate", "strap", "scale", "--folder", "sim")
        assert simulate.stderr is not None
        lines = [(await simulate.stderr.readline()).decode() for _ in range(4)]
        simulate.terminate()
        await simulate.communicate()
        assert "Virtual H10" in lines[0]
        assert '"BF720" (user 1, consent code 3752)' in lines[1]
        assert f"--radio virtual:{tmp_path}/sim/air.sock" in lines[2]
        assert f'radio = "virtual:{tmp_path}/sim/air.sock"' in lines[3]

    asyncio.run(scenario())


def test_simulated_sensors_are_found_on_one_radio(tmp_path: Path) -> None:
    async def scenario() -> None:
        simulate = await start(tmp_path, "simulate", "cuff", "watch", "scale-broadcast", "--folder", "sim")
        assert simulate.stdout is not None
        for _ in range(3):
            await simulate.stdout.readline()
        scan = await start(tmp_path, "scan", "--radio", "virtual:sim/air.sock", "--seconds", "2")
        output, _ = await scan.communicate()
        simulate.terminate()
        await simulate.communicate()
        for name in (b"Virtual BP 0001", b"InfiniTime", b"MIBCS"):
            assert name in output

    asyncio.run(scenario())


def test_the_agent_makes_what_it_finds_and_creates_readable_only_for_its_owner(hub: Path) -> None:
    """With the usual umask 022, and a data folder that a package made, with files of an earlier version."""

    async def scenario() -> None:
        async with strap_on_air(hub) as socket:
            text = (hub / "pulsegate.toml").read_text().replace("virtual:none.sock", f"virtual:{socket}")
            (hub / "pulsegate.toml").write_text(text.replace('"Virtual H10"', r'"\u001b[2J"'))
            (hub / "data").chmod(0o755)
            for name in ("models.json", "status.json"):
                (hub / "data" / name).write_text('{"newest_release": 0}')
                (hub / "data" / name).chmod(0o644)
            (hub / "data" / "buffer.db").chmod(0o644)
            agent = await start(hub, "run", "--config", "pulsegate.toml", "--watch-stdin")
            log = b""
            while b"strap: connected" not in log:
                assert agent.stderr is not None
                log = await agent.stderr.readline()
                assert log
                assert b"\x1b" not in log
            agent.kill()
            await agent.communicate()

    asyncio.run(scenario())
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (hub / "data").iterdir()}
    assert {"bonds.json", "models.json", "status.json", "buffer.db", "hub.key", "device.key"} <= set(modes)
    public = {"device.pub": "0o644", "command.pub": "0o644"}
    assert {name: mode for name, mode in modes.items() if mode != "0o600"} == public
