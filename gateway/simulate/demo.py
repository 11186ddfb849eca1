"""`pulsegate demo`: a virtual chest strap, the agent and the clinic, each in a process of its own; more sensors with `--home`.

The demo's own process runs the virtual radio between sensors and agent, and restarts the processes when they exit. It reads the
clinic's page over the same WebSocket as a browser. At the end it compares the alerts with the script, and what the clinic has
stored with what the sensors sent.
"""

import asyncio
import contextlib
import errno
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from config.process import leaf_errors
from config.terminal import escape_controls
from gateway.radio.virtual_radio_server import VirtualRadioServer
from gateway.simulate.audit import SentFrame, audit
from gateway.simulate.demo_folder import demo_folder
from gateway.simulate.demo_report import SEVERE_SYSTOLIC_MMHG, DemoResult, compare_home_alerts, compare_with_script
from gateway.simulate.home import HOME, write_home_settings
from gateway.simulate.home_audit import SensorLog, audit_sensor
from gateway.simulate.journal import read_journal
from gateway.simulate.processes import ManagedProcess, ProcessFailedError, run_processes
from gateway.simulate.progress import COUNTERS, DemoProgress, Json

HUB: Final = "demo-hub"
SUBJECT: Final = "demo-patient"
SENSOR: Final = "strap"
REFRESH_S: Final = 0.5
"""Interval between two updates on a terminal."""
PLAIN_REFRESH_S: Final = 10.0
"""Interval between two lines if the output is not a terminal."""
POLL_S: Final = 0.05
CLINIC_START_TIMEOUT_S: Final = 45.0
"""Time limit for the clinic to start on a slow machine and to create its key pair and database."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of the command line."""

    seconds: float | None
    port: int
    record: Path | None
    json: Path | None
    script: str = "demo"
    data: Path | None = None
    home: bool = False


class DemoError(Exception):
    """The demo cannot continue. The message says why and what to do."""


def run_demo(options: DemoOptions) -> int:
    """Run the demo. Return 0 if no sample was lost and every expected alert was shown, else 1."""
    console = Console(stderr=True, soft_wrap=True)
    failures: list[BaseException] = []
    status = 1
    try:
        _check_result_file(options.json)
        with _open_folder(options.data) as folder:
            status = asyncio.run(_Demo(options, folder, console).run())
    except* (ProcessFailedError, DemoError, OSError) as group:
        failures = leaf_errors(group)
    for failure in failures:
        message = escape_controls(describe_failure(failure, options.data))
        console.print(f"pulsegate demo: {message}", style="bold red", highlight=False, markup=False)
    return status


def describe_failure(failure: BaseException, data: Path | None) -> str:
    """Return the failure's message, completed by what the system does not say: where the log is, which disk is full.

    Args:
        failure: why the demo failed.
        data: the folder that was chosen with --data; None for a temporary folder, which is deleted by now.
    """
    if isinstance(failure, ProcessFailedError):
        return f"{failure} ({f'log: {failure.log}' if data else 'to keep its log, run the demo again with --data'})"
    if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT) and failure.filename is None:
        folder = data or tempfile.gettempdir()
        return f"{failure.strerror} in {folder}: free some space there, or choose another folder with --data"
    return str(failure)


def _check_result_file(path: Path | None) -> None:
    """Check now, not after the demo, that the result can be written."""
    if path and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise DemoError(f"cannot write {path}: choose a file in a folder that exists")


@contextmanager
def _open_folder(chosen: Path | None) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(demo_folder(chosen))
        except OSError as error:
            raise DemoError(f"cannot create {error.filename} ({error.strerror}): choose another folder with --data") from error
        yield folder


def _read_json(path: Path) -> Json:
    """Read a file that another process rewrites and removes at any time; return {} if it is absent or incomplete."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


def _now_us() -> int:
    return time.time_ns() // 1000


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Demo:
    def __init__(self, options: DemoOptions, folder: Path, console: Console) -> None:
        self.options, self.folder, self.console = options, folder, console
        self.home = {name: SensorLog(sensor.result) for name, sensor in HOME.items()} if options.home else {}
        self.progress = DemoProgress(home=self.home)
        self.stop = asyncio.Event()
        self.processes: list[ManagedProcess] = []
        (folder / "log").mkdir(exist_ok=True)
        self.clinic_data, self.agent_data = folder / "clinic", folder / "agent"
        self.registration = folder / "registration.toml"
        self.journal = folder / "strap.jsonl"
        self.status = self.agent_data / "status.json"

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the last when the terminal is closed
            loop.add_signal_handler(number, self._on_stop_signal)
        with demo_folder(None) as short:  # a socket's path has at most 107 bytes
            async with VirtualRadioServer(short) as server:
                stored = await self._run_with_radio(server.path)
        return 0 if stored is None else self._report(stored)

    def _on_stop_signal(self) -> None:
        """Stop cleanly at the first signal; kill all processes at the second."""
        if self.stop.is_set():
            for process in self.processes:
                process.kill()
        self.stop.set()

    async def _run_with_radio(self, radio: Path) -> list[Json] | None:
        """Run all processes, and return what the clinic has stored; None if the user stops the demo before the clinic runs."""
        clinic = self._add_process("clinic", "cloud.cli", "dev", "--data", self.clinic_data, *self._port_arguments())
        async with run_processes(clinic):
            page = await self._wait_clinic_ready(clinic)
            if page is None:
                return None
            await self._run_sensors_and_agent(radio, page)
            return await self._read_stored()

    async def _run_sensors_and_agent(self, radio: Path, page: Json) -> None:
        """Run the sensors and the agent until the time limit is reached or the user stops the demo."""
        source = self._source_arguments()
        strap = self._add_process("strap", "gateway.simulate.strap", "--socket", radio, "--journal", self.journal, *source)
        strap.on_event = lambda event: self.progress.on_strap_event(event, _now_us())
        others = [self._add_home_sensor(name, log, radio) for name, log in self.home.items()]
        settings = self._write_settings(radio, page)
        await self._register(settings)
        agent = self._add_process("agent", "gateway.cli", "run", "--config", settings)
        async with run_processes(agent, strap, *others), asyncio.TaskGroup() as group:
            watchers = [group.create_task(self._watch_page(page["page"])), group.create_task(self._watch_agent())]
            await self._show_progress(page["page"])
            await self._wait_last_alerts()
            for watcher in watchers:
                watcher.cancel()
        self.progress.on_agent_status(_read_json(self.status))

    def _add_process(self, name: str, module: str, *arguments: object) -> ManagedProcess:
        command = [module, *map(str, arguments), "--watch-stdin"]
        self.processes.append(ManagedProcess(name, command, self.folder / "log" / f"{name}.log"))
        return self.processes[-1]

    def _add_home_sensor(self, name: str, log: SensorLog, radio: Path) -> ManagedProcess:
        arguments = (name, "--socket", radio, "--folder", self.folder, "--at-home")
        process = self._add_process(name, "gateway.simulate.sensor_process", *arguments)
        process.on_event = lambda event: log.on_event(event, _now_us())
        return process

    def _port_arguments(self) -> tuple[str, ...]:
        """Return ports that stay the same for the whole demo, because the agent must find a restarted clinic."""
        page = self.options.port or _free_port()
        return ("--port", str(page), "--mqtt-port", str(_free_port()))

    def _source_arguments(self) -> tuple[str, ...]:
        if self.options.record:
            return ("--record", str(self.options.record.resolve()))
        return ("--script", self.options.script)

    async def _wait_clinic_ready(self, clinic: ManagedProcess) -> Json | None:
        """Return what the clinic publishes about itself once it runs, or None if the user stops the demo before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLINIC_START_TIMEOUT_S):
                while not self.stop.is_set():
                    page = _read_json(self.clinic_data / "clinic.json")
                    if page and page["pid"] == clinic.pid:
                        return page
                    await asyncio.sleep(POLL_S)
                return None
        raise ProcessFailedError(f"the clinic did not start within {CLINIC_START_TIMEOUT_S:g} s", clinic.log)

    def _write_settings(self, radio: Path, page: Json) -> Path:
        path = self.folder / "agent.toml"
        path.write_text(
            f'hub = "{HUB}"\nsubject = "{SUBJECT}"\ndata = "{self.agent_data.name}"\nupload = "all"\n'
            f"radio = {json.dumps(f'virtual:{radio}')}\n"
            f'[clinic]\nhost = "{page["mqtt"]["host"]}"\nport = {page["mqtt"]["port"]}\n'
            f'registration = "{self.registration.name}"\n'
            "[limits]\nrepeat_medium = 0  # the script has a day's episodes within minutes, and each must be shown\n"
            f'[[sensor]]\nname = "{SENSOR}"\nadvertised_name = "Virtual H10"\n'
            + (write_home_settings(self.folder) if self.home else ""),
            encoding="utf-8",
        )
        return path

    async def _register(self, settings: Path) -> None:
        """Create the hub's keys and register hub and patient at the clinic, as an operator does with three files."""
        printed = await self._run_command("create the hub's identity", "gateway.cli", "identity", "--config", settings)
        device, command = printed.decode().splitlines()
        hub = ("--hub", HUB, "--hub-key", device, "--command-key", command, "--subject", SUBJECT)
        register = ("cloud.cli", "register", "--data", self.clinic_data, *hub, "--out", self.registration)
        await self._run_command("register the hub", *register)

    async def _run_command(self, purpose: str, *arguments: object) -> bytes:
        """Run a command of the agent or the clinic, and return its standard output."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *map(str, arguments)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so Ctrl-C in the terminal reaches only the demo
        )
        output, errors = await process.communicate()
        if process.returncode:
            raise DemoError(f"cannot {purpose}: {errors.decode(errors='replace').strip()}")
        return output

    async def _watch_page(self, page: str) -> None:
        """Receive the page's messages as a browser does, and reconnect while the clinic restarts."""
        address = page.replace("http", "ws", 1).rstrip("/") + "/ws"
        while True:
            with contextlib.suppress(OSError, WebSocketException):
                async with connect(address, origin=page.rstrip("/"), max_size=1 << 22) as viewer:  # type: ignore[arg-type]
                    async for message in viewer:
                        self.progress.on_page_message(json.loads(message), _now_us())
            await asyncio.sleep(REFRESH_S)

    async def _watch_agent(self) -> None:
        while True:
            self.progress.on_agent_status(_read_json(self.status))
            await asyncio.sleep(REFRESH_S)

    async def _show_progress(self, page: str) -> None:
        """Show the progress until the time limit is reached or the user stops the demo."""
        self.console.print(f"The clinician's page: [bold]{page}[/bold]   (Ctrl-C to stop)", highlight=False)
        if self.console.is_terminal:
            with Live(self.progress.make_table(self._restarts()), console=self.console, auto_refresh=False) as live:
                while not await self._wait_end(REFRESH_S):
                    live.update(self.progress.make_table(self._restarts()), refresh=True)
        else:
            while not await self._wait_end(PLAIN_REFRESH_S):
                self.console.print(self.progress.format_line(), highlight=False)

    def _restarts(self) -> dict[str, int]:
        return {process.name: process.restarts for process in self.processes}

    async def _wait_end(self, seconds: float) -> bool:
        """Wait at most `seconds` for the end of the demo; return whether it has come."""
        start_us, limit_s = self.progress.script_start_us, self.options.seconds
        left_s = None if start_us is None or limit_s is None else limit_s - (_now_us() - start_us) / 1e6
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds if left_s is None else min(seconds, left_s))):
                await self.stop.wait()
        return self.stop.is_set() or (left_s is not None and left_s <= seconds)

    async def _wait_last_alerts(self) -> None:
        """Wait briefly, so an alert that the agent decided at the last moment reaches the page."""
        await asyncio.sleep(0 if self.stop.is_set() else REFRESH_S)

    async def _read_stored(self) -> list[Json]:
        """Return the records in the clinic's store, which the clinic's own command opens."""
        stored = ("cloud.cli", "open", "--data", self.clinic_data, "--json")
        output = await self._run_command("read the clinic's store for the audit", *stored)
        return list(map(json.loads, output.splitlines()))

    def _report(self, stored: list[Json]) -> int:
        """Write the result and print a summary. Return the exit status."""
        agent, alerts, restarts = self.progress.agent, self.progress.alerts_in_script_time(), self._restarts()
        result = self._make_result(stored, alerts)
        written = {
            "seconds": self.options.seconds,
            **{name: agent.get(name, 0) for name in COUNTERS},
            "first_ecg_s": self.progress.first_ecg_s,
            "alerts": alerts,
            **result.as_json(),
            "restarts": restarts,
        }
        if self.options.json:
            self.options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
        self.console.print(f"{self.progress.format_line()}\n{result.format()}", highlight=False)
        return 0 if result.passed else 1

    def _make_result(self, stored: list[Json], alerts: list[dict[str, Any]]) -> DemoResult:
        """Compare what the sensors sent with what the clinic has stored, and the alerts with the script.

        The alerts are not compared for a recording, for a demo without a time limit or stopped early, and after a restart,
        because an episode may then fall into a gap.
        """
        seconds = self.options.seconds
        frames = read_journal(self.journal).frames if self.journal.exists() else ()
        audited = audit([SentFrame(frame.last_us, frame.n, frame.samples_crc32) for frame in frames], stored)
        home = {name: audit_sensor(log, name, stored) for name, log in self.home.items()}
        pending = self.progress.agent.get("blocks_pending", 0)
        if self.options.record or seconds is None or self.stop.is_set() or any(self._restarts().values()):
            return DemoResult(audited, pending, home)
        of_strap = [alert for alert in alerts if alert["sensor"] == SENSOR]
        of_home = [alert for alert in alerts if alert["sensor"] != SENSOR]
        severe = sum(record.get("kind") == "systolic" and record["value"] >= SEVERE_SYSTOLIC_MMHG for record in stored)
        script = compare_with_script(of_strap, self.options.script, seconds)
        return DemoResult(audited, pending, home, compare_home_alerts(of_home, severe), *script)
