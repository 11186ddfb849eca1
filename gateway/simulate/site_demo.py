"""`make site-demo`: a virtual strap and a hub against the site that `make site` installed on this machine, as root.

    strap ─▶ hub, enrolled by an invitation ─▶ proxy ─▶ broker ─▶ ingest ─▶ opener ─▶ page ─▶ proxy ─▶ viewer

It uses the operator's commands, and at the end takes back what it was given: hub and viewer are revoked, the patient is
erased. The viewer has a staff certificate. What the page shows is compared with what the strap sent, sample by sample.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import ssl
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NoReturn
from urllib.parse import urlencode

import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12
from rich.console import Console
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from config.identity import write_identity
from config.process import leaf_errors
from config.terminal import escape_controls
from config.tls import make_client_context
from gateway.clock import SystemClock
from gateway.enrolment.identity import FOLDER, REGISTRATION_FILE, SiteRecord
from gateway.radio.virtual_radio_server import SOCKET_NAME, VirtualRadioServer
from gateway.simulate.demo_folder import demo_folder
from gateway.simulate.demo_report import compare_with_script
from gateway.simulate.journal import checksum, read_journal
from gateway.simulate.processes import ManagedProcess, ProcessFailedError, run_processes
from gateway.simulate.progress import DemoProgress
from gateway.simulate.site_counts import Counts, count_samples

OPERATOR: Final = "/usr/local/sbin/pulsegate-site"
"""The operator's commands on a machine with a site."""
PLAN: Final = Path("/etc/pulsegate/install.toml")
ROOTS: Final = Path("/var/lib/pulsegate/site/public/roots.pem")
HUBS: Final = Path("/var/lib/pulsegate/hubs")
ACCOUNT: Final = "pulsegate"
"""The account of the operator's commands: it writes the viewer's file."""
ENROLMENT_PORT: Final = 8443
SENSOR: Final = "strap"
SCRIPT: Final = "demo"
SCRIPT_S: Final = 74.0
"""By then the script has raised two alerts: atrial fibrillation and a tachycardia."""
START_LIMIT_S: Final = 20.0
DRAIN_LIMIT_S: Final = 120.0
"""Time for the last blocks to be acknowledged and opened: less than a second, unless the machine is so busy that the clinic
asks the hub to wait."""
SETTLE_S: Final = 3.0
"""The agent writes its status once a second, and the last record when the link has been lost for two."""
POLL_S: Final = 0.2
REPORT_S: Final = 10.0
REQUEST_LIMIT_S: Final = 10.0
_CODE_ROW: Final = re.compile(r"[0-9A-Z]{1,5}(-[0-9A-Z]{1,5})+")
_PASSWORD: Final = re.compile(r"password of the file: (\S+)")
_LIVE_LIMIT_BYTES: Final = 1 << 22

Json = Mapping[str, Any]


class SiteDemoError(Exception):
    """The demo cannot continue. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Names:
    """The hub, the patient and the viewer of one demo. They are random: the site may have run a demo before."""

    hub: str
    subject: str
    viewer: str

    @classmethod
    def choose(cls) -> "Names":
        suffix = secrets.token_hex(3)
        return cls(f"demo-hub-{suffix}", f"demo-patient-{suffix}", f"demo-viewer-{suffix}")


class Page:
    """The page of the site, as a person with a staff certificate reaches it through the proxy."""

    def __init__(self, host: str, context: ssl.SSLContext) -> None:
        self.host, self._context = host, context

    def get(self, path: str, **query: object) -> Any:
        """Return the JSON of an answer. Raises SiteDemoError if the page does not answer."""
        with closing(HTTPSConnection(self.host, timeout=REQUEST_LIMIT_S, context=self._context)) as connection:
            try:
                connection.request("GET", f"{path}?{urlencode(query)}")
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, HTTPException) as error:
                raise SiteDemoError(f"the page does not answer ({error}): see pulsegate-cloud site state") from error
        if answer.status != 200:
            raise SiteDemoError(f"the page answers {path} with {answer.status}: see the log of pulsegate-page")
        return json.loads(body)

    async def watch(self, on_message: Callable[[Json], None]) -> NoReturn:
        """Receive the live feed as a browser does; connect again when it ends."""
        while True:
            with suppress(OSError, WebSocketException):
                origin: Any = f"https://{self.host}"
                options: dict[str, Any] = {"origin": origin, "ssl": self._context, "proxy": None, "max_size": _LIVE_LIMIT_BYTES}
                async with connect(f"wss://{self.host}/ws", **options) as viewer:
                    async for message in viewer:
                        on_message(json.loads(message))
            await asyncio.sleep(POLL_S)


class SiteDemo:
    """One run: a hub's folder, a viewer's certificate, and the processes of strap and agent."""

    def __init__(self, host: str, folder: Path, console: Console) -> None:
        self._host, self._folder, self._console = host, folder, console
        self._names = Names.choose()
        self._progress = DemoProgress()
        self._given: list[tuple[str, ...]] = []
        """The commands that take back what was given."""
        self._journal, self._data = folder / "strap.jsonl", folder / "agent"
        self._status = self._data / "status.json"

    async def run(self) -> Counts:
        """Run the demo; what it was given is taken back however it ends."""
        try:
            self._say(f"inviting {self._names.hub}, and giving {self._names.viewer} a certificate to look at the page")
            page = await self._make_viewer()
            settings = await self._enrol()
            async with VirtualRadioServer(self._folder) as radio:
                return await self._stream(page, settings, radio.path)
        finally:
            await self._take_back()

    async def _make_viewer(self) -> Page:
        identity = self._folder / "viewer"
        with TemporaryDirectory(prefix="pulsegate-viewer-") as handover:
            shutil.chown(handover, ACCOUNT)
            path = Path(handover) / "viewer.p12"
            output = await self._operate("user", "add", self._names.viewer, "--out", path)
            self._given.append(("user", "revoke", self._names.viewer))
            found = _PASSWORD.search(output)
            assert found is not None
            key, leaf, issuers = pkcs12.load_key_and_certificates(path.read_bytes(), found[1].encode())
        assert key is not None
        assert leaf is not None
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = b"".join(one.public_bytes(Encoding.PEM) for one in (leaf, *issuers))
        write_identity(identity, pem, chain, ROOTS.read_bytes())
        region = tomllib.loads(PLAN.read_text(encoding="utf-8"))["country"]
        return Page(self._host, make_client_context(ROOTS.read_text(encoding="ascii"), region, identity=identity))

    async def _enrol(self) -> Path:
        """Enrol the hub as a patient does, by the code; returns the agent's settings."""
        address = f"{self._host}:{ENROLMENT_PORT}"
        invitation = ("invite", "--hub", self._names.hub, "--subject", self._names.subject, "--address", address)
        rows = [line for line in (await self._operate(*invitation)).splitlines() if _CODE_ROW.fullmatch(line)]
        config = self._folder / "enrolled.toml"
        command = (sys.executable, "-m", "gateway.cli", "enroll", "--config", str(config), "-")
        self._given += [("erase", "--subject", self._names.subject), ("site", "revoke", "hubs", self._names.hub)]
        await run_command(command, "enrol the hub", "\n".join(rows), PULSEGATE_DATA=str(self._data))
        record = SiteRecord.load(self._data / FOLDER)
        self._say(f"{record.hub} is enrolled for {record.subject}")
        return self._write_settings(record)

    def _write_settings(self, record: SiteRecord) -> Path:
        host, port, region = record.brokers[0]
        identity = self._data / FOLDER
        values = {"host": host, "port": port, "region": region, "identity": str(identity)}
        clinic = values | {"registration": str(identity / REGISTRATION_FILE)}
        path = self._folder / "agent.toml"
        path.write_text(
            f'hub = "{record.hub}"\nsubject = "{record.subject}"\ndata = "{self._data}"\nupload = "all"\n'
            f'radio = "virtual:{self._folder / SOCKET_NAME}"\n[clinic]\n'
            + "".join(f"{name} = {json.dumps(value)}\n" for name, value in clinic.items())
            + "[limits]\nrepeat_medium = 0  # the script has a day's episodes within minutes\n"
            f'[[sensor]]\nname = "{SENSOR}"\nadvertised_name = "Virtual H10"\n',
            encoding="utf-8",
        )
        return path

    async def _stream(self, page: Page, settings: Path, radio: Path) -> Counts:
        """Run strap and agent for `SCRIPT_S`, then wait until the clinic has opened all."""
        strap_arguments = ("--socket", str(radio), "--journal", str(self._journal), "--script", SCRIPT)
        strap = self._make_process("strap", "gateway.simulate.strap", *strap_arguments)
        strap.on_event = lambda event: self._progress.on_strap_event(event, SystemClock().wall_us())
        agent = self._make_process("agent", "gateway.cli", "run", "--config", str(settings))
        async with run_processes(agent), asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(page.watch(self._on_message))
            async with run_processes(strap):
                await self._wait_script()
            await self._wait_drained()
            counts = await asyncio.to_thread(self._count, page)
            watching.cancel()
        return counts

    def _make_process(self, name: str, module: str, *arguments: str) -> ManagedProcess:
        return ManagedProcess(name, [module, *arguments, "--watch-stdin"], self._folder / f"{name}.log")

    def _on_message(self, message: Json) -> None:
        """The site may have other patients: only this demo's messages count."""
        if message.get("alert", message).get("subject") == self._names.subject:
            self._progress.on_page_message(message, SystemClock().wall_us())

    async def _wait_script(self) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + START_LIMIT_S
        while self._progress.script_start_us is None:
            if loop.time() > deadline_s:
                raise SiteDemoError(f"the strap is not streaming after {START_LIMIT_S:g} s: is the machine overloaded?")
            await asyncio.sleep(POLL_S)
        end_us = self._progress.script_start_us + int(SCRIPT_S * 1e6)
        reported_s = loop.time()
        while SystemClock().wall_us() < end_us:
            await asyncio.sleep(POLL_S)
            self._progress.on_agent_status(_read_json(self._status))
            if loop.time() - reported_s >= REPORT_S:
                reported_s = loop.time()
                self._say(self._progress.format_line())

    async def _wait_drained(self) -> None:
        """Wait until nothing waits for an acknowledgement or a receipt; if that does not come, the counts say so."""
        await asyncio.sleep(SETTLE_S)
        deadline_s = reported_s = asyncio.get_running_loop().time()
        deadline_s += DRAIN_LIMIT_S
        while not self._is_drained(_read_json(self._status)) and (now_s := asyncio.get_running_loop().time()) < deadline_s:
            await asyncio.sleep(POLL_S)
            if now_s - reported_s >= REPORT_S:
                reported_s = now_s
                self._say(self._progress.format_line())

    def _is_drained(self, status: Json) -> bool:
        self._progress.on_agent_status(status)
        return bool(status) and not status["blocks_pending"] and not status["blocks_without_receipt"]

    def _count(self, page: Page) -> Counts:
        start_us = self._progress.script_start_us or 0
        names = {"subject": self._names.subject, "hub": self._names.hub, "sensor": SENSOR}
        found = page.get("/api/ecg", **names, from_us=start_us - 60_000_000, to_us=SystemClock().wall_us() + 60_000_000)
        shown = [(checksum(np.rint(np.array(one["mv"]) * 1000).astype(np.int32)), len(one["mv"])) for one in found["segments"]]
        sent = [(frame.samples_crc32, frame.n) for frame in read_journal(self._journal).frames]
        opened, foreign = count_samples(sent, shown)
        alerts = self._progress.alerts_in_script_time()
        episodes, compared = compare_with_script(alerts, SCRIPT, SCRIPT_S)
        agent = self._progress.agent
        return Counts(
            sent=sum(n for _, n in sent),
            received=agent.get("samples_received", 0),
            opened=opened,
            foreign=foreign,
            blocks=agent.get("blocks_stored", 0),
            acknowledged=agent.get("blocks_acked", 0),
            without_receipt=agent.get("blocks_without_receipt", 0),
            episodes=len(episodes),
            alerts=len(alerts),
            missed=len(compared.missed),
            unexpected=len(compared.unexpected),
        )

    async def _take_back(self) -> None:
        """Revoke hub and viewer, and erase the patient, as far as they were given. Nothing is expected of the hub then."""
        for command in reversed(self._given):
            output = await self._operate(*command)
            self._say(output.splitlines()[0])
        registration = HUBS / f"{self._names.hub}.toml"
        if registration.exists():
            with registration.open("a", encoding="utf-8") as file:
                file.write(f"to = {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n")

    async def _operate(self, *arguments: object) -> str:
        words = [str(argument) for argument in arguments]
        return await run_command((OPERATOR, *words), f"run pulsegate-site {' '.join(words[:2])}")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)


async def run_command(command: Sequence[str], purpose: str, text: str = "", **environment: str) -> str:
    """Run a command; returns its standard output.

    Raises:
        SiteDemoError: it failed, with what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C reaches only the demo, which takes back what it was given
    )
    output, errors = await process.communicate(text.encode())
    if process.returncode:
        raise SiteDemoError(f"cannot {purpose}: {errors.decode(errors='replace').strip()}")
    return output.decode()


def run_site_demo() -> int:
    """Run the demo; returns 0 if everything arrived, else 1."""
    console = Console(stderr=True, soft_wrap=True)
    failures: list[BaseException] = []
    counts = None
    try:
        host = _find_site()
        with demo_folder(None) as folder:
            counts = asyncio.run(SiteDemo(host, folder, console).run())
    except* (SiteDemoError, ProcessFailedError, OSError) as group:
        failures = leaf_errors(group)
    for failure in failures:
        console.print(f"site-demo: {escape_controls(str(failure))}", style="bold red", highlight=False, markup=False)
    if counts is None:
        return 1
    console.print(counts.format(), highlight=False, markup=False)
    return 0 if counts.passed else 1


def _find_site() -> str:
    """Return the name by which the site is reached."""
    if os.geteuid() != 0:
        raise SiteDemoError("only root may invite a hub and a viewer: use sudo make site-demo")
    try:
        return str(tomllib.loads(PLAN.read_text(encoding="utf-8"))["host"])
    except (OSError, ValueError, KeyError) as error:
        raise SiteDemoError("no site is installed on this machine: run make site first") from error


def _read_json(path: Path) -> Json:
    """Read a file that another process replaces; {} if there is none yet."""
    with suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


if __name__ == "__main__":
    sys.exit(run_site_demo())
