"""`pulsegate demo`: a virtual chest strap, the agent and the clinic, three processes as in life.

This process is the air between the first two (it carries the virtual radio), the service manager of all three, and the
audience: it watches the clinic's page over the same WebSocket as a browser, and at the end compares what was found with the
published script and what the clinic holds with what the strap says it sent.
"""

import asyncio
import contextlib
import errno
import json
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from config.process import leaf_errors
from gateway.radio.air import Air
from gateway.simulate.audit import Audit, SentFrame, audit
from gateway.simulate.children import Child, ChildFailedError, running
from gateway.simulate.journal import read_journal
from gateway.simulate.script import Episode, expected, load_script

HUB: Final = "demo-hub"
SENSOR: Final = "strap"
ONSET_TOLERANCE_S: Final[Mapping[str, float]] = {"af": 15.0}
"""How far an alert's onset may be from the script's: AF shows only in a window of intervals; the others at a beat."""
OTHER_TOLERANCE_S: Final = 3.0
REFRESH_S: Final = 0.5
PLAIN_REPORT_S: Final = 10.0
LOOK_S: Final = 0.05
READY_S: Final = 45.0
"""For the clinic to start on a slow machine, its key pair and database included."""
DRAIN_S: Final = 15.0

COUNTERS: Final = ("samples_received", "samples_lost", "blocks_stored", "blocks_sent", "blocks_acked", "blocks_pending")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line asks for."""

    seconds: float | None
    port: int
    record: Path | None
    json: Path | None
    script: str = "demo"
    data: Path | None = None


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(slots=True)
class Watched:
    """What the demo has seen so far."""

    started: float = field(default_factory=time.monotonic)
    strap: str = "starting"
    samples_sent: int = 0
    script_start_us: int | None = None
    first_ecg_s: float | None = None
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    agent: Json = field(default_factory=dict)

    def strap_event(self, event: Json) -> None:
        """A line of the strap's standard output."""
        match event.get("event"):
            case "frames":
                self.samples_sent = event["sent_samples"]
            case "streaming":
                self.strap = "streaming"
                if self.script_start_us is None:
                    self.script_start_us = event["script_start_us"]
            case str(name):
                self.strap = name
            case _:
                pass

    def page_message(self, message: Json, now_us: int) -> None:
        """A message of the clinic's WebSocket, as a browser gets it."""
        if message.get("type") == "ecg" and self.first_ecg_s is None:
            self.first_ecg_s = round(time.monotonic() - self.started, 1)
        if message.get("type") == "alert":
            alert = message.get("alert", message)
            known = self.alerts.setdefault(alert["id"], {"latency_ms": round((now_us - alert["decided_us"]) / 1000, 1)})
            known.update({name: alert[name] for name in ("kind", "priority", "onset_us", "end_us")})

    def found(self) -> list[dict[str, Any]]:
        """The alerts, by onset, in seconds of the script."""
        start = self.script_start_us or 0
        rows = sorted(self.alerts.values(), key=lambda alert: alert["onset_us"])
        return [
            {
                "kind": alert["kind"],
                "priority": alert["priority"],
                "onset": round((alert["onset_us"] - start) / 1e6, 2),
                "end": None if alert["end_us"] is None else round((alert["end_us"] - start) / 1e6, 2),
                "latency_ms": alert["latency_ms"],
            }
            for alert in rows
        ]


def matched(alerts: list[dict[str, Any]], episodes: tuple[Episode, ...]) -> tuple[list[Episode], list[dict[str, Any]]]:
    """Episodes that no alert tells of, and alerts that tell of no episode. One alert serves one episode."""
    missed, left = [], list(alerts)
    for episode in episodes:
        tolerance = ONSET_TOLERANCE_S.get(episode.kind, OTHER_TOLERANCE_S)
        hit = next((a for a in left if a["kind"] == episode.kind and abs(a["onset"] - episode.onset_s) <= tolerance), None)
        if hit:
            left.remove(hit)
        else:
            missed.append(episode)
    return missed, left


def _counters(agent: Json) -> str:
    count = {name: agent.get(name, 0) for name in COUNTERS}
    return (
        f"{count['samples_received']} samples received, {count['samples_lost']} lost, blocks {count['blocks_stored']} stored → "
        f"{count['blocks_sent']} sent → {count['blocks_acked']} acknowledged"
    )


def _read_json(path: Path) -> Json:
    """A file that another process writes and removes as it likes; empty where there is none now."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_demo(options: DemoOptions) -> int:
    """Runs the demo; 0 when all that was to be shown was shown."""
    console = Console(stderr=True, soft_wrap=True)
    failures: list[BaseException] = []
    status, folder = 1, options.data
    try:
        folder = _made_folder(options)
        status = asyncio.run(_Demo(options, folder, console).run())
    except* (ChildFailedError, DemoError, OSError) as group:
        failures = leaf_errors(group)
    for failure in failures:
        console.print(f"pulsegate demo: {told(failure, folder)}", style="bold red", highlight=False)
    if folder and folder != options.data and status == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return status


def told(failure: BaseException, folder: Path | None) -> str:
    """What went wrong, in words: of a full disk the system says neither where nor what to do."""
    if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT) and failure.filename is None:
        return f"{failure.strerror} in {folder}: make room there, or choose another folder with --data"
    return str(failure)


def _made_folder(options: DemoOptions) -> Path:
    """The folder for all data; told now, not at the end, when the result could not be written."""
    if options.json and (options.json.is_dir() or not options.json.absolute().parent.is_dir()):
        raise DemoError(f"cannot write {options.json}: name a file in a folder that exists")
    if options.data is None:
        return Path(tempfile.mkdtemp(prefix="pulsegate-demo-"))
    try:
        options.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"cannot create {options.data} ({error.strerror}): choose another --data") from error
    return options.data


class _Demo:
    def __init__(self, options: DemoOptions, folder: Path, console: Console) -> None:
        self.options, self.folder, self.console = options, folder, console
        self.watched = Watched()
        self.stop = asyncio.Event()
        self.children: list[Child] = []
        (folder / "log").mkdir(exist_ok=True)
        self.clinic_data, self.agent_data = folder / "clinic", folder / "agent"
        self.journal = folder / "strap.jsonl"
        self.status = self.agent_data / "status.json"

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_stop)
        with tempfile.TemporaryDirectory(prefix="pulsegate-air-") as short:  # a socket's path has at most 107 bytes
            return await self._run_over(Air(Path(short)))

    def _told_to_stop(self) -> None:
        """Once: end cleanly. Twice: end now."""
        if self.stop.is_set():
            for child in self.children:
                child.kill()
        self.stop.set()

    async def _run_over(self, ether: Air) -> int:
        async with ether as air:
            clinic = self._child("clinic", "cloud.cli", "dev", "--data", self.clinic_data, *self._ports())
            async with running(clinic):
                page = await self._clinic_ready(clinic)
                if page is None:
                    return 0
                await self._play(air.path, page)
                audited = await self._audit()
        return self._report(audited, {child.name: child.restarts for child in self.children})

    async def _play(self, air: Path, page: Json) -> None:
        """Strap and agent, until the time is over or somebody stops it."""
        strap = self._child("strap", "gateway.simulate.strap", "--socket", air, "--journal", self.journal, *self._plays())
        strap.on_event = self.watched.strap_event
        agent = self._child("agent", "gateway.cli", "run", "--config", self._settings(air, page))
        async with running(agent, strap), asyncio.TaskGroup() as group:
            watchers = [group.create_task(self._watch_page(page["page"])), group.create_task(self._watch_agent())]
            await self._show(page["page"])
            await self._drain()
            for watcher in watchers:
                watcher.cancel()
        self.watched.agent = _read_json(self.status) or self.watched.agent

    def _child(self, name: str, module: str, *arguments: object) -> Child:
        words = [module, *map(str, arguments), "--watch-stdin"]
        self.children.append(Child(name, words, self.folder / "log" / f"{name}.log"))
        return self.children[-1]

    def _ports(self) -> tuple[str, ...]:
        """Fixed for the life of the demo, so that a clinic that was restarted is found again."""
        page = self.options.port or _free_port()
        return ("--port", str(page), "--mqtt-port", str(_free_port()))

    def _plays(self) -> tuple[str, ...]:
        if self.options.record:
            return ("--record", str(self.options.record.resolve()))
        return ("--script", self.options.script)

    async def _clinic_ready(self, clinic: Child) -> Json | None:
        """What the clinic says of itself once it runs; None when somebody stopped the demo before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not self.stop.is_set():
                    page = _read_json(self.clinic_data / "clinic.json")
                    if page and page["pid"] == clinic.pid:
                        return page
                    await asyncio.sleep(LOOK_S)
                return None
        raise DemoError(f"the clinic did not start within {READY_S:g} s: see {clinic.log}")

    def _settings(self, air: Path, page: Json) -> Path:
        path = self.folder / "agent.toml"
        path.write_text(
            f'hub = "{HUB}"\nsubject = "demo-subject"\ndata = {json.dumps(str(self.agent_data))}\n'
            f"radio = {json.dumps(f'virtual:{air}')}\n"
            f'[clinic]\nhost = "{page["mqtt"]["host"]}"\nport = {page["mqtt"]["port"]}\n'
            f"public_key = {json.dumps(page['public_key'])}\n"
            "[limits]\nrepeat_medium = 0  # the script has a day's episodes within minutes, and each is to be shown\n"
            f'[[sensor]]\nname = "{SENSOR}"\nadvertised_name = "Virtual H10"\n',
            encoding="utf-8",
        )
        return path

    async def _watch_page(self, page: str) -> None:
        """Listens as a browser does, and comes again when the clinic was away."""
        address = page.replace("http", "ws", 1).rstrip("/") + "/ws"
        while True:
            with contextlib.suppress(OSError, WebSocketException):
                async with connect(address, origin=page.rstrip("/"), max_size=1 << 22) as viewer:  # type: ignore[arg-type]
                    async for message in viewer:
                        self.watched.page_message(json.loads(message), time.time_ns() // 1000)
            await asyncio.sleep(REFRESH_S)

    async def _watch_agent(self) -> None:
        while True:
            self.watched.agent = _read_json(self.status) or self.watched.agent
            await asyncio.sleep(REFRESH_S)

    async def _show(self, page: str) -> None:
        """Shows the progress until the time is over or somebody stops it."""
        self.console.print(f"The clinician's page: [bold]{page}[/bold]   (Ctrl-C ends the demo)", highlight=False)
        if self.console.is_terminal:
            with Live(self._table(), console=self.console, auto_refresh=False) as live:
                while not await self._over(REFRESH_S):
                    live.update(self._table(), refresh=True)
        else:
            while not await self._over(PLAIN_REPORT_S):
                self.console.print(self._line(), highlight=False)

    async def _over(self, seconds: float) -> bool:
        """Waits at most so long; whether the demo is over then."""
        start, wanted = self.watched.script_start_us, self.options.seconds
        left = None if start is None or wanted is None else wanted - (time.time_ns() // 1000 - start) / 1e6
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds if left is None else min(seconds, left))):
                await self.stop.wait()
        return self.stop.is_set() or (left is not None and left <= seconds)

    async def _drain(self) -> None:
        """Before the end: time for an alert that was decided in the last moment to reach the page."""
        await asyncio.sleep(0 if self.stop.is_set() else REFRESH_S)

    def _line(self) -> str:
        agent, seen = self.watched.agent, self.watched
        return f"strap {seen.strap}, {seen.samples_sent} samples sent | agent {_counters(agent)} | {len(seen.alerts)} alerts"

    def _table(self) -> Table:
        table, agent, seen = Table(box=None, show_header=False, pad_edge=False), self.watched.agent, self.watched
        restarts = {child.name: f", restarted {child.restarts}×" if child.restarts else "" for child in self.children}
        sensors = ", ".join(f"{name} {state}" for name, state in agent.get("sensors", {}).items())
        table.add_row("strap", f"{seen.strap}, {seen.samples_sent} samples sent{restarts['strap']}")
        table.add_row(
            "agent",
            f"{sensors or 'starting'}, {_counters(agent)}{restarts['agent']}",
        )
        table.add_row("clinic", f"{len(seen.alerts)} alerts{restarts['clinic']}")
        for alert in seen.found():
            until = "goes on" if alert["end"] is None else f"until {alert['end']:.1f} s"
            shown = f"shown after {alert['latency_ms']:.0f} ms"
            table.add_row("", f"{alert['priority']:>6}  {alert['kind']} from {alert['onset']:.1f} s, {until}, {shown}")
        return table

    async def _audit(self) -> Audit:
        """Compares the strap's journal with the clinic's store, which is opened by the clinic's own command."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cloud.cli", "open", "--data", str(self.clinic_data), "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        output, complaint = await process.communicate()
        if process.returncode:
            raise DemoError(f"the audit could not read the clinic's store: {complaint.decode().strip()}")
        frames = read_journal(self.journal).frames if self.journal.exists() else ()
        sent = [SentFrame(frame.last_us, frame.n, frame.samples_crc32) for frame in frames]
        return audit(sent, map(json.loads, output.splitlines()))

    def _report(self, audited: Audit, restarts: Mapping[str, int]) -> int:
        agent, alerts = self.watched.agent, self.watched.found()
        seconds = self.options.seconds
        # After a restart an episode may fall into the gap: then the samples are judged, not the alerts.
        judged = not (self.options.record or seconds is None or self.stop.is_set() or any(restarts.values()))
        episodes = expected(load_script(self.options.script), seconds) if judged and seconds is not None else ()
        missed, unexpected = matched(alerts, episodes) if judged else ([], [])
        result = {
            "seconds": seconds,
            **{name: agent.get(name, 0) for name in COUNTERS},
            **audited.figures(),
            "first_ecg_s": self.watched.first_ecg_s,
            "alerts": alerts,
            "expected": [asdict(episode) for episode in episodes],
            "missed": [asdict(episode) for episode in missed],
            "unexpected": unexpected,
            "restarts": dict(restarts),
        }
        if self.options.json:
            self.options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        passed = audited.passed and not missed and not unexpected and not agent.get("blocks_pending", 0)
        self.console.print(self._line(), highlight=False)
        self.console.print(
            f"{audited.samples_unaccounted} samples unaccounted for, {len(missed)} episodes missed, "
            f"{len(unexpected)} alerts without an episode, {agent.get('blocks_pending', 0)} blocks not acknowledged: "
            + ("[green]passed[/green]" if passed else "[bold red]failed[/bold red]"),
            highlight=False,
        )
        return 0 if passed else 1
