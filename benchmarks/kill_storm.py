"""Kills agent, clinic (with its broker) and strap at random under load, and audits what is left.

    python -m benchmarks.kill_storm FOLDER [--kills N] [--seed S]

Every kill is SIGKILL, also during a start. In between the hub's clock is set, the clinic's store is restored from a backup
(with or without the projections), the hub's buffer is rolled back to a copy, and somebody watches the page at times. After a
roll-back, a second hub without a sensor may run on the buffer as it was: it has the same identity. The seed determines all of
this, but not how far the processes have come.

At the end the strap is stopped and everything settles. The account then compares the strap's journal, the hub's buffer and the
buffers that were rolled back, the clinic's store and its projections. The clinic must hold what the hub holds. Every frame that
is lost must be inside a gap record, and every missing block must be one that a roll-back has lost. Nothing may be there twice.
The folder keeps all data and the log `kill_storm.log`. The exit status is 0 if the account holds.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks.block_account import (
    account_blocks,
    count_without_receipt,
    list_missing,
    read_buffer,
    read_projections,
    read_store,
)
from benchmarks.database_copies import copy_databases, put_back_databases
from benchmarks.loss_account import account
from cloud.folder import ClinicFolder
from cloud.register import BACKUP_INTERVAL_H, RegistrationRequest, register_hub
from gateway.radio.virtual_radio_server import VirtualRadioServer
from gateway.recorder import COMMIT_INTERVAL_S
from gateway.simulate.journal import read_journal
from gateway.simulate.processes import ManagedProcess, run_processes
from gateway.startup import DEVICE_PUBLIC_FILE, load_device_key
from gateway.status import STATUS_FILE

NAMES: Final = ("agent", "clinic", "strap")
PAUSE_S: Final = (0.3, 12.0)
"""Between two kills: from the middle of a start to after the first regular commit of the agent."""
COPY_PROBABILITY: Final = 0.3
"""Of a copy of the databases after a kill of agent or clinic, and of putting one back."""
COPIES_KEPT: Final = 4
"""Only the last copies are put back: minutes old, and not all of the first."""
COPIED_HUB_PROBABILITY: Final = 0.5
"""Of a second hub on a buffer that is rolled back. It is killed at the next kill of the agent."""
STEPS_S: Final = (-7200.0, -600.0, -1.0, 1.0, 600.0, 7200.0)
"""The wall clock is set by one of these, times a random number from 0.5 to 1."""
CLOCK_PROBABILITY: Final = 0.5
"""Of a step of the clock before a kill."""
MAX_OFFSET_S: Final = 86_400.0
"""Beyond a day from the true time the clock is set right, as NTP would."""
VIEWER_PROBABILITY: Final = 0.15
"""Of a kill after which a viewer opens the page, or closes it."""
START_TIMEOUT_S: Final = 120.0
SETTLE_TIMEOUT_S: Final = 300.0
RECEIPT_STEP_S: Final = 80_000.0
"""The hub's clock is set forward by this if a receipt was lost: the hub then asks for it again. It is 10 minutes after the
times that the hub noted while its clock was wrong, and less than the day from which a step counts for nothing then."""
AGENT: Final = "benchmarks.stepped_agent"
CLOCK_TOLERANCE_S: Final = 5.0
"""The agent's clock is less than this from what it was set to: a status file takes so long to write on a busy machine."""
HUB: Final = "storm-hub"
SUBJECT: Final = "storm-subject"

log = logging.getLogger("kill_storm")


@dataclass(slots=True)
class Storm:
    """One run in a folder. `done` counts what was done: kills of each process, copies and so on."""

    folder: Path
    kills: int
    seed: int
    done: Counter[str] = field(default_factory=Counter)
    offset_us: int = 0
    _is_watched: asyncio.Event = field(default_factory=asyncio.Event)
    _mqtt_port: int = 0
    _copied_hub: subprocess.Popen[bytes] | None = None
    _copies: dict[str, list[Path]] = field(default_factory=lambda: {"agent": [], "clinic": []})

    @property
    def buffer(self) -> Path:
        return self.folder / "agent" / "buffer.db"

    @property
    def clinic_databases(self) -> list[Path]:
        """The store, then the projections."""
        return [self.folder / "clinic" / "blocks.db", self.folder / "clinic" / "projections.db"]

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(self._status_file.read_text()))
        return {}

    async def run(self, progress: Progress) -> None:
        """Runs the processes until all kills are done, lets everything settle, and stops the processes cleanly."""
        self._set_offset(0)
        self._register()
        page, self._mqtt_port = _free_ports(2)
        with tempfile.TemporaryDirectory(prefix="pulsegate-air-") as short:  # a socket's path has at most 107 bytes
            async with VirtualRadioServer(Path(short)) as server:
                ports = ("--port", str(page), "--mqtt-port", str(self._mqtt_port), "--watch-stdin")
                clinic = self._process("clinic", "cloud.cli", "dev", "--data", self.folder / "clinic", *ports)
                journal = ("--journal", self.folder / "strap.jsonl", "--watch-stdin")
                strap = self._process("strap", "gateway.simulate.strap", "--socket", server.path, *journal)
                agent = self._process("agent", AGENT, *self._agent_arguments(self.buffer.parent, server.path))
                async with run_processes(clinic):
                    await _wait((self.folder / "clinic" / "clinic.json").exists)
                    async with run_processes(agent, strap):
                        await _wait(lambda: self.status().get("samples_received", 0) > 0)
                        await self._kill_all({"agent": agent, "clinic": clinic, "strap": strap}, progress, page)
                        strap.terminate()
                        await self._settle()

    def account(self) -> tuple[bool, dict[str, Any]]:
        """Opens the clinic's store with its own command. Returns whether the account holds, and its counts."""
        lines = [json.loads(line) for line in self._open("--json").splitlines()]
        frames = account(read_journal(self.folder / "strap.jsonl").frames, lines)
        store, projections = self.clinic_databases
        blocks = account_blocks(
            read_buffer(self.buffer),
            [read_buffer(path) for path in sorted(self.folder.glob("rolled_back/*/buffer.db"))],
            read_store(store),
            list_missing(lines[-1]),
            count_without_receipt(self.buffer),
        )
        before = read_projections(projections)
        self._open("--rebuild")
        rebuilt = read_projections(projections)
        differing = [name for name, rows in rebuilt.items() if before[name] != rows]
        counts = {"done": self.done, **frames.counts(), **blocks.counts(), "projections_differing": differing}
        return frames.passed and blocks.passed and not differing, counts

    async def _kill_all(self, processes: dict[str, ManagedProcess], progress: Progress, page_port: int) -> None:
        task = progress.add_task("kills", total=self.kills)
        viewer = asyncio.create_task(self._watch(page_port))
        while self.n_kills < self.kills:
            rng = random.Random(f"{self.seed} {self.n_kills}")
            await asyncio.sleep(rng.uniform(*PAUSE_S))
            process = processes[rng.choice(NAMES)]
            if process.pid is not None:
                self._strike(process, rng)
            progress.update(task, completed=self.n_kills)
        viewer.cancel()
        await asyncio.wait([viewer])
        self._stop_copied_hub()

    def _strike(self, process: ManagedProcess, rng: random.Random) -> None:
        """Kills a process that runs, and changes what it depends on. It does not start again before this returns."""
        if rng.random() < CLOCK_PROBABILITY:
            self._step_clock(rng)
        if rng.random() < VIEWER_PROBABILITY:
            self._toggle_viewer()
        _kill(process.pid)
        self.done[process.name] += 1
        action = self._change_databases(process.name, rng) if process.name in self._copies else ""
        watched = "; watched" if self._is_watched.is_set() else ""
        log.info("kill %d: %s%s; clock %+.1f s%s", self.n_kills, process.name, action, self.offset_us / 1e6, watched)

    @property
    def n_kills(self) -> int:
        return sum(self.done[name] for name in NAMES)

    def _change_databases(self, name: str, rng: random.Random) -> str:
        """Copies the databases of a killed process, or puts a copy back, or does nothing. Returns what it did."""
        if name == "agent":
            self._stop_copied_hub()
        chance, copies = rng.random(), self._copies[name]
        if chance < COPY_PROBABILITY:
            copies.append(self.folder / f"{name}_copies" / str(self.n_kills))
            copy_databases(self._databases(name), copies[-1])
            self.done[f"{name}_copies"] += 1
            return " copied"
        if chance > 2 * COPY_PROBABILITY or not copies:
            return ""
        copy = rng.choice(copies[-COPIES_KEPT:])
        if name == "agent":
            copy_databases([self.buffer], rolled_back := self.folder / "rolled_back" / str(self.n_kills))
            put_back_databases([self.buffer], copy)
            self.done["roll_backs"] += 1
            if is_copied := rng.random() < COPIED_HUB_PROBABILITY:
                self._start_copied_hub(rolled_back)
            return f" rolled back to {copy.name}" + (", and copied hub started" if is_copied else "")
        n_databases = rng.choice((1, 2))
        put_back_databases(self.clinic_databases[:n_databases], copy)
        self.done[f"restores_of_{n_databases}"] += 1
        return f" restored to {copy.name}" + (" with projections" if n_databases == 2 else "")

    def _databases(self, name: str) -> list[Path]:
        return [self.buffer] if name == "agent" else self.clinic_databases

    def _toggle_viewer(self) -> None:
        if self._is_watched.is_set():
            self._is_watched.clear()
        else:
            self._is_watched.set()
            self.done["views"] += 1

    async def _watch(self, port: int) -> None:
        """Keeps the page's live feed open while it is watched: the hub then commits every second."""
        while True:
            await self._is_watched.wait()
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                async with connect(f"ws://127.0.0.1:{port}/ws") as socket:
                    while self._is_watched.is_set():
                        await socket.recv()
            await asyncio.sleep(0.5)

    def _step_clock(self, rng: random.Random) -> None:
        offset_us = self.offset_us + round(rng.choice(STEPS_S) * rng.uniform(0.5, 1.0) * 1e6)
        self._set_offset(offset_us if abs(offset_us) < MAX_OFFSET_S * 1e6 else 0)
        self.done["clock_steps"] += 1

    async def _settle(self) -> None:
        """Waits until the agent has stored its last records, and the clinic has acknowledged and opened all blocks."""
        stored_s = time.time() + COMMIT_INTERVAL_S + 1.0

        def is_settled(count: str) -> bool:
            written_s, status = self._status_file.stat().st_mtime, self.status()
            follows_clock = abs(status["at_us"] / 1e6 - self.offset_us / 1e6 - written_s) < CLOCK_TOLERANCE_S
            return written_s > stored_s and follows_clock and not status[count]

        await _wait(lambda: is_settled("blocks_pending"), SETTLE_TIMEOUT_S)
        with contextlib.suppress(TimeoutError):
            await _wait(lambda: is_settled("blocks_without_receipt"), 5.0)
            return
        self._set_offset(self.offset_us + round(RECEIPT_STEP_S * 1e6))
        self.done["receipts_awaited"] += 1
        await _wait(lambda: is_settled("blocks_without_receipt"), SETTLE_TIMEOUT_S)

    def _open(self, option: str) -> str:
        """Runs `pulsegate-cloud open`. Its exit status is 1 if a hub seems to be copied, as one does after two roll-backs."""
        command = [sys.executable, "-m", "cloud.cli", "open", "--data", str(self.folder / "clinic"), option]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout

    def _register(self) -> None:
        """Registers the hub; the assignment begins before every time that its clock is set to."""
        data, now_s = self.folder / "agent", int(time.time())
        data.mkdir()
        load_device_key(data)
        from_s = now_s - 2 * round(MAX_OFFSET_S)
        request = RegistrationRequest(HUB, data / DEVICE_PUBLIC_FILE, SUBJECT, from_s, BACKUP_INTERVAL_H)
        register_hub(ClinicFolder(self.folder / "clinic"), request, now_s).save(self.folder / "registration.toml")

    @property
    def _status_file(self) -> Path:
        return self.folder / "agent" / STATUS_FILE

    @property
    def _offset_file(self) -> Path:
        return self.folder / "clock_offset"

    def _set_offset(self, offset_us: int) -> None:
        self.offset_us = offset_us
        descriptor = os.open(self._offset_file, os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(descriptor, offset_us.to_bytes(8, "little", signed=True), 0)
        os.close(descriptor)

    def _process(self, name: str, module: str, *arguments: object) -> ManagedProcess:
        return ManagedProcess(name, [module, *map(str, arguments)], self.folder / f"{name}.log")

    def _agent_arguments(self, data: Path, radio: Path) -> list[str]:
        """Writes settings for an agent; returns its arguments."""
        settings = self.folder / f"{data.name}.toml"
        settings.write_text(
            f'hub = "{HUB}"\nsubject = "{SUBJECT}"\ndata = {json.dumps(str(data))}\nupload = "all"\n'
            f"radio = {json.dumps(f'virtual:{radio}')}\n"
            f'[clinic]\nhost = "127.0.0.1"\nport = {self._mqtt_port}\n'
            'registration = "registration.toml"\n'
            '[[sensor]]\nname = "strap"\nadvertised_name = "Virtual H10"\n'
        )
        return [str(self._offset_file), "run", "--config", str(settings), "--watch-stdin"]

    def _start_copied_hub(self, data: Path) -> None:
        """Starts a hub on a folder with a buffer. It is not started again when it exits."""
        for file in self.buffer.parent.iterdir():
            if file.is_file() and not file.name.startswith(self.buffer.name):
                shutil.copy2(file, data)
        command = [sys.executable, "-m", AGENT, *self._agent_arguments(data, self.folder / "no_radio")]
        with (self.folder / "copied_hubs.log").open("ab") as output:
            self._copied_hub = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
        self.done["copied_hubs"] += 1

    def _stop_copied_hub(self) -> None:
        if self._copied_hub is not None:
            self._copied_hub.kill()
            self._copied_hub.wait()
            self._copied_hub = None


async def _wait(condition: Any, timeout_s: float = START_TIMEOUT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


def _kill(pid: int | None) -> None:
    """Kills a child and returns when it has ended. It stays a zombie, for asyncio to notice."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_storm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="new folder for the data and the log")
    parser.add_argument("--kills", type=int, default=200, help="total number of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    console = Console(stderr=True)
    storm = Storm(arguments.folder.resolve(), arguments.kills, arguments.seed)
    storm.folder.mkdir(parents=True)
    file = logging.FileHandler(storm.folder / "kill_storm.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[file, RichHandler(console=console, show_path=False)]
    )
    for noisy in ("bumble", "asyncio", "websockets"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        asyncio.run(storm.run(progress))
    is_accounted, counts = storm.account()
    log.info("seed %d: %s", storm.seed, json.dumps(counts))
    print(json.dumps(counts))
    return 0 if is_accounted else 1


if __name__ == "__main__":
    sys.exit(main())
