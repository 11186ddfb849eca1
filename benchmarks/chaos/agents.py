"""Whole agents (`pulsegate run`) among the hubs, each with a virtual chest strap that journals what it sends."""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.chaos.link import FaultyLink
from benchmarks.chaos.processes import Supervised
from benchmarks.loss_account import LossAccount, account
from cloud.block_reader import BlockReader
from cloud.database_url import PostgresUrl
from cloud.export import ExportTotals, export_records
from cloud.folder import ClinicFolder
from cloud.key_store import KeyStore
from cloud.registry import Registry
from cloud.store import Store
from gateway.radio.virtual_radio_server import VirtualRadioServer
from gateway.recorder import COMMIT_INTERVAL_S
from gateway.simulate.journal import read_journal
from gateway.status import STATUS_FILE

SENSOR: Final = "strap"
POLL_S: Final = 0.5
_SETTINGS: Final = """
hub = {hub}
subject = {subject}
data = {data}
radio = {radio}
upload = "all"
[clinic]
host = {host}
port = {port}
registration = {registration}
identity = {identity}
region = "DE"
[[sensor]]
name = "strap"
advertised_name = "Virtual H10"
"""


@dataclass(slots=True)
class Agent:
    """An agent's process, that of its strap, its data folder and its link."""

    hub: str
    process: Supervised
    strap: Supervised
    data: Path
    link: FaultyLink

    @property
    def name(self) -> str:
        return self.hub

    @property
    def journal(self) -> Path:
        return self.data.with_suffix(".journal")

    def has_sent_all(self, since_s: float) -> bool:
        """Whether a status that was written since a time (Unix) says that no block waits."""
        file = self.data / STATUS_FILE
        with suppress(OSError, ValueError):
            return file.stat().st_mtime > since_s and not json.loads(file.read_text(encoding="utf-8"))["blocks_pending"]
        return False


@asynccontextmanager
async def virtual_radios(count: int) -> AsyncIterator[list[Path]]:
    """Serve so many virtual radios; yields their sockets. A socket's path has at most 107 bytes."""
    async with AsyncExitStack() as stack:
        sockets = list[Path]()
        for _ in range(count):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pulsegate-air-"))
            sockets.append((await stack.enter_async_context(VirtualRadioServer(Path(folder)))).path)
        yield sockets


def make_agent(data: Path, logs: Path, link: FaultyLink, socket: Path, hub: str, subject: str, identity: Path) -> Agent:
    """Return an agent with a registration in its folder, and its strap; neither process is started."""
    config = data.with_suffix(".toml")
    values = {
        **{"hub": hub, "subject": subject, "data": data, "radio": f"virtual:{socket}", "host": link.host},
        **{"registration": data / "registration.toml", "identity": identity},
    }
    config.write_text(_SETTINGS.format(port=link.port, **{name: json.dumps(str(one)) for name, one in values.items()}))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = [sys.executable, "-m", "gateway.cli", "run", "--config", str(config), "--watch-stdin"]
    journal = data.with_suffix(".journal")
    strap = [sys.executable, "-m", "gateway.simulate.strap", "--socket", str(socket), "--journal", str(journal)]
    return Agent(
        hub,
        Supervised(hub, run, logs / f"{hub}.log", environment),
        Supervised(f"{hub}-strap", strap, logs / f"{hub}-strap.log", environment),
        data,
        link,
    )


async def wait_sent(agents: list[Agent], limit_s: float) -> list[str]:
    """End the straps, and wait until the agents have stored and sent everything; returns who has not after the limit."""
    for agent in agents:
        await agent.strap.hold(signal.SIGTERM)
    since_s, deadline_s = time.time() + COMMIT_INTERVAL_S + 1.0, time.monotonic() + limit_s
    while waiting := [agent.hub for agent in agents if not agent.has_sent_all(since_s)]:
        if time.monotonic() > deadline_s:
            return [f"{hub} has not sent everything" for hub in waiting]
        await asyncio.sleep(POLL_S)
    return []


def account_agents(agents: list[Agent], clinic: ClinicFolder, store_url: PostgresUrl) -> dict[str, LossAccount]:
    """Compare what the straps have sent with what the clinic's own keys open, by hub."""
    lines: dict[str, list[dict[str, Any]]] = {agent.hub: [] for agent in agents}
    totals = ExportTotals()
    with closing(Store.open(store_url)) as store:
        reader = BlockReader(store, Registry(clinic.hubs, time.monotonic), KeyStore(clinic.keys))
        for line in export_records(store, reader, totals):
            if line["hub"] in lines:
                lines[line["hub"]].append(dict(line))
    end = dict(totals.as_json())
    return {agent.hub: account(read_journal(agent.journal).frames, [*lines[agent.hub], end]) for agent in agents}


def add_counts(accounts: dict[str, LossAccount]) -> dict[str, int]:
    """Return the sums of the counts of frames."""
    names = ("sent", "stored", "in_gaps", "before_first", "unexplained", "stored_twice", "invented")
    return {f"frames_{name}": sum(asdict(one)[name] for one in accounts.values()) for name in names}
