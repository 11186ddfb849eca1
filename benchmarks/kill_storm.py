"""Kills agent, clinic (with its broker) and strap at random under load, sets the hub's clock in between, and audits the rest.

    python -m benchmarks.kill_storm FOLDER [--kills N] [--seed S]

Every kill is SIGKILL, also during a start. The folder keeps all data, the log `kill_storm.log` and the number of kills that
were done, so that a stopped run is continued with the same command. At the end the account of all runs in the folder is
printed: no block that the clinic acknowledged may be missing, nothing stored twice, and every lost sample inside a gap record.
The exit status is 0 if the account holds.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
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

from benchmarks.loss_account import LossAccount, account
from cloud.folder import ClinicFolder
from cloud.register import BACKUP_INTERVAL_H, RegistrationRequest, register_hub
from gateway.radio.virtual_radio_server import VirtualRadioServer
from gateway.simulate.journal import read_journal
from gateway.simulate.processes import ManagedProcess, run_processes
from gateway.startup import DEVICE_PUBLIC_FILE, load_device_key

NAMES: Final = ("agent", "clinic", "strap")
PAUSE_S: Final = (0.3, 12.0)
"""Between two kills: from the middle of a start to after the first regular commit of the agent."""
STEPS_S: Final = (-7200.0, -600.0, -1.0, 1.0, 600.0, 7200.0)
"""The wall clock is set by one of these, times a random number from 0.5 to 1; half of the kills are preceded by a step."""
MAX_OFFSET_S: Final = 86_400.0
"""Beyond a day from the true time the clock is set right, as NTP would."""
START_TIMEOUT_S: Final = 120.0
HUB: Final = "storm-hub"
SUBJECT: Final = "storm-subject"

log = logging.getLogger("kill_storm")


@dataclass(slots=True)
class Storm:
    """One run in a folder; `done` is the number of kills of this and earlier runs."""

    folder: Path
    kills: int
    seed: int
    done: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    offset_us: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.state.exists():
            saved = json.loads(self.state.read_text())
            self.done, self.steps, self.offset_us = saved["done"], saved["steps"], saved["offset_us"]
            self.killed = Counter(saved["killed"])
        self.set_offset(self.offset_us)

    @property
    def state(self) -> Path:
        return self.folder / "kill_storm.json"

    @property
    def offset_file(self) -> Path:
        return self.folder / "clock_offset"

    def set_offset(self, offset_us: int) -> None:
        self.offset_us = offset_us
        descriptor = os.open(self.offset_file, os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(descriptor, offset_us.to_bytes(8, "little", signed=True), 0)
        os.close(descriptor)

    def save(self) -> None:
        saved = {"done": self.done, "steps": self.steps, "offset_us": self.offset_us, "killed": self.killed}
        self.state.write_text(json.dumps(saved) + "\n")

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.folder / "agent" / "status.json").read_text()))
        return {}

    async def run(self, progress: Progress) -> None:
        """Runs the processes until all kills are done or the user stops it, then stops them cleanly."""
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._register()
        page, mqtt = _free_ports(2)
        with tempfile.TemporaryDirectory(prefix="pulsegate-air-") as short:  # a socket's path has at most 107 bytes
            async with VirtualRadioServer(Path(short)) as server:
                ports = ("--port", str(page), "--mqtt-port", str(mqtt), "--watch-stdin")
                clinic = self._process("clinic", "cloud.cli", "dev", "--data", self.folder / "clinic", *ports)
                journal = ("--journal", self.folder / "strap.jsonl", "--watch-stdin")
                strap = self._process("strap", "gateway.simulate.strap", "--socket", server.path, *journal)
                settings = self._write_settings(server.path, mqtt)
                run = ("run", "--config", settings, "--watch-stdin")
                agent = self._process("agent", "benchmarks.stepped_agent", self.offset_file, *run)
                async with run_processes(clinic):
                    await _wait((self.folder / "clinic" / "clinic.json").exists)
                    async with run_processes(agent, strap):
                        received = self.status().get("samples_received", 0)
                        await _wait(lambda: self.status().get("samples_received", received) != received)
                        await self._kill_all({"agent": agent, "clinic": clinic, "strap": strap}, progress, stop)
                        await self._wait_recovery()

    def _register(self) -> None:
        """Registers the hub; the assignment begins before every time that its clock is set to."""
        data, now_s = self.folder / "agent", int(time.time())
        data.mkdir(exist_ok=True)
        load_device_key(data)
        from_s = now_s - 2 * round(MAX_OFFSET_S)
        request = RegistrationRequest(HUB, data / DEVICE_PUBLIC_FILE, SUBJECT, from_s, BACKUP_INTERVAL_H)
        register_hub(ClinicFolder(self.folder / "clinic"), request, now_s).save(self.folder / "registration.toml")

    async def _kill_all(self, processes: dict[str, ManagedProcess], progress: Progress, stop: asyncio.Event) -> None:
        task = progress.add_task("kills", total=self.kills, completed=self.done)
        while self.done < self.kills and not stop.is_set():
            rng = random.Random(f"{self.seed} {self.done}")
            await asyncio.sleep(rng.uniform(*PAUSE_S))
            if rng.random() < 0.5:
                self._step_clock(rng)
            process = processes[rng.choice(NAMES)]
            if process.pid is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
                self.killed[process.name] += 1
                self.done += 1
            log.info("kill %d: %s; clock %+.1f s", self.done, process.name, self.offset_us / 1e6)
            self.save()
            progress.update(task, completed=self.done)

    def _step_clock(self, rng: random.Random) -> None:
        offset_us = self.offset_us + round(rng.choice(STEPS_S) * rng.uniform(0.5, 1.0) * 1e6)
        self.set_offset(offset_us if abs(offset_us) < MAX_OFFSET_S * 1e6 else 0)
        self.steps += 1

    async def _wait_recovery(self) -> None:
        """Waits until blocks of after the last kill are acknowledged."""
        await _wait(lambda: "blocks_acked" in self.status())
        before = self.status().get("blocks_acked", 0)
        await _wait(lambda: self.status().get("blocks_acked", 0) > before + 2)

    def account(self) -> LossAccount:
        """Opens the clinic's store with its own command and compares it with the strap's journal."""
        command = [sys.executable, "-m", "cloud.cli", "open", "--data", str(self.folder / "clinic"), "--json"]
        opened = subprocess.run(command, capture_output=True, text=True, check=True)
        return account(read_journal(self.folder / "strap.jsonl").frames, map(json.loads, opened.stdout.splitlines()))

    def _process(self, name: str, module: str, *arguments: object) -> ManagedProcess:
        return ManagedProcess(name, [module, *map(str, arguments)], self.folder / f"{name}.log")

    def _write_settings(self, radio: Path, mqtt_port: int) -> Path:
        path = self.folder / "agent.toml"
        path.write_text(
            f'hub = "{HUB}"\nsubject = "{SUBJECT}"\ndata = {json.dumps(str(self.folder / "agent"))}\n'
            f"radio = {json.dumps(f'virtual:{radio}')}\n"
            f'[clinic]\nhost = "127.0.0.1"\nport = {mqtt_port}\n'
            'registration = "registration.toml"\n'
            '[[sensor]]\nname = "strap"\nadvertised_name = "Virtual H10"\n'
        )
        return path


async def _wait(condition: Any) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.05)


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
    parser.add_argument("folder", type=Path, help="folder for the data, the log and the progress")
    parser.add_argument("--kills", type=int, default=200, help="total number of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    console = Console(stderr=True)
    storm = Storm(arguments.folder.resolve(), arguments.kills, arguments.seed)
    file = logging.FileHandler(storm.folder / "kill_storm.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[file, RichHandler(console=console, show_path=False)]
    )
    for noisy in ("bumble", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        asyncio.run(storm.run(progress))
    result, pending = storm.account(), storm.status().get("blocks_pending")
    log.info("killed %s, %d clock steps; %s; pending %s", dict(storm.killed), storm.steps, result.counts(), pending)
    print(json.dumps({"killed": storm.killed, "steps": storm.steps, "blocks_pending": pending, **result.counts()}))
    return 0 if result.passed and not pending else 1


if __name__ == "__main__":
    sys.exit(main())
