"""The site under test: PostgreSQL, mosquitto, ingest workers, an opener and hubs, each its own process, with mutual TLS."""

import asyncio
import os
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from benchmarks.chaos.agents import Agent, make_agent, virtual_radios
from benchmarks.chaos.hub import HubSettings
from benchmarks.chaos.link import FaultyLink
from benchmarks.chaos.network import SITE_ADDRESS, FarNetwork
from benchmarks.chaos.processes import Supervised
from cloud.folder import ClinicFolder
from cloud.register import BACKUP_INTERVAL_H, RegistrationRequest, register_hub
from cloud.site import Authority, Kind
from cloud.site.mosquitto import INGEST, OPENER, PAGE
from gateway.startup import DEVICE_PUBLIC_FILE, load_device_key
from tests.mosquitto import HOST, Broker
from tests.postgresql import Server, as_other_user, prepare_server

N_INGEST: Final = 2
FAR_HUBS: Final = 4
STORE: Final = "site_blocks"
PROJECTIONS: Final = "site_projections"
ROOT: Final = Path(__file__).parents[2]
POSTGRESQL_OPTIONS: Final = (
    *("listen_addresses=", "jit=off", "shared_buffers=32MB", "max_wal_size=128MB", "min_wal_size=32MB"),
    *("max_connections=60", "log_min_messages=warning"),
)
"""Every commit is synced, as in operation. The log of transactions is short, so that a small disk is enough."""
_SETTINGS: Final = """
data = "clinic"
public = "{public}"
[databases]
store = "{store}"
projections = "{projections}"
[broker]
host = "{host}"
port = {port}
region = "DE"
[ingest]
identity = "{ingest}"
key = "clinic/acknowledgement.key"
audit_key = "clinic/audit.pub"
[opener]
identity = "{opener}"
key = "clinic/receipt.key"
audit_key = "clinic/audit.key"
command_key = "clinic/command.key"
[page]
identity = "{page}"
hosts = ["localhost"]
listen = "127.0.0.1"
port = 1
"""


@dataclass(frozen=True, slots=True)
class SitePlan:
    """How a site is built: where, how many hubs, how often a hub stores a number, and its longest pause between connections.

    `disks` has a folder on a disk of its own for the clinic (`clinic`) and for some hubs (their names), which may be filled.
    Other users must be able to reach the clinic's: PostgreSQL does not run as root.
    The last `FAR_HUBS` hubs run in the network `far`, if there is one. Beside the hubs run so many whole agents.
    """

    folder: Path
    hubs: int
    period_s: float
    longest_pause_s: float
    seed: int
    disks: dict[str, Path] = field(default_factory=dict)
    far: FarNetwork | None = None
    agents: int = 0


@dataclass(slots=True)
class Hub:
    """A hub's process, its settings and its link. `former` holds the settings under which it ran as a copy, if it is one."""

    settings: HubSettings
    process: Supervised
    link: FaultyLink
    rolled_back: list[tuple[int, int]] = field(default_factory=list)
    """The numbers (after the first, up to the last) that a roll-back of its buffer may have lost."""
    discarded: list[Path] = field(default_factory=list)
    """The buffers that were replaced by older ones."""

    @property
    def name(self) -> str:
        return self.settings.hub

    @property
    def folder(self) -> Path:
        return Path(self.settings.folder)

    @property
    def journal(self) -> Path:
        return Path(self.settings.journal)

    @property
    def settings_file(self) -> Path:
        return Path(f"{self.settings.journal}.json")

    def configure(self, settings: HubSettings) -> None:
        """Use other settings from the next start on."""
        self.settings = settings
        settings.save(self.settings_file)


@dataclass(slots=True)
class Site:
    """A running site. `copies` are hubs that run beside the one whose folder they copied."""

    plan: SitePlan
    server: Server
    broker: Broker
    clinic: ClinicFolder
    services: dict[str, list[Supervised]]
    hubs: list[Hub]
    agents: list[Agent] = field(default_factory=list)
    copies: list[Hub] = field(default_factory=list)
    retired: list[Hub] = field(default_factory=list)
    """Copies that ran to an end."""
    copied: int = 0

    def engine(self, name: str) -> Engine:
        return self.server.engine(name)

    def processes(self) -> list[Supervised]:
        found = [one for group in self.services.values() for one in group]
        found += [process for agent in self.agents for process in (agent.process, agent.strap)]
        return [*found, *(hub.process for hub in [*self.hubs, *self.copies])]

    def links(self) -> list[FaultyLink]:
        """Return the link of each hub and agent."""
        return [*(hub.link for hub in self.hubs), *(agent.link for agent in self.agents)]

    def make_copy(self, hub: Hub) -> Hub:
        """Start a second hub on a copy of a hub's folder: it has the same identity, and another sensor. Hold the hub before."""
        self.copied += 1
        writer = f"copy-{self.copied}"
        folder = self.plan.folder / writer
        shutil.copytree(hub.folder, folder)
        journal = str(self.plan.folder / "journals" / f"{hub.name}.{writer}")
        copy = make_hub(self.plan, replace(hub.settings, folder=str(folder), journal=journal, writer=writer), hub.link)
        self.copies.append(copy)
        copy.process.start()
        return copy


def make_hub(plan: SitePlan, settings: HubSettings, link: FaultyLink) -> Hub:
    """Return a hub whose process is not started."""
    file = Path(f"{settings.journal}.json")
    name = file.name.removesuffix(".json")
    prefix = plan.far.prefix if plan.far is not None and settings.host == SITE_ADDRESS else ()
    command = [*prefix, sys.executable, "-m", "benchmarks.chaos.hub", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    hub = Hub(settings, Supervised(name, command, plan.folder / "logs" / f"{name}.log", environment, is_asked=True), link)
    hub.configure(settings)
    return hub


async def _make_hubs(plan: SitePlan, broker: Broker, clinic: ClinicFolder) -> list[Hub]:
    hubs = list[Hub]()
    for number in range(1, plan.hubs + 1):
        name, subject = f"hub-{number}", f"subject-{number}"
        folder = plan.disks.get(name, plan.folder) / name
        _register(clinic, folder, name, subject)
        is_far = plan.far is not None and number > plan.hubs - FAR_HUBS
        link = FaultyLink(name, broker.hubs_port, random.Random(f"{plan.seed} {name}"), SITE_ADDRESS if is_far else HOST)
        await link.open()
        settings = HubSettings(
            hub=name,
            subject=subject,
            folder=str(folder),
            journal=str(plan.folder / "journals" / name),
            writer="sensor",
            identity=str(broker.identity(Kind.HUBS, name)),
            host=link.host,
            port=link.port,
            period_s=plan.period_s,
            longest_pause_s=plan.longest_pause_s,
        )
        hubs.append(make_hub(plan, settings, link))
    return hubs


def _register(clinic: ClinicFolder, folder: Path, name: str, subject: str) -> None:
    """Make the data folder of a hub, which the clinic knows."""
    now_s = int(time.time())
    folder.mkdir(mode=0o700)
    load_device_key(folder)
    request = RegistrationRequest(name, folder / DEVICE_PUBLIC_FILE, subject, now_s, BACKUP_INTERVAL_H)
    register_hub(clinic, request, now_s).save(folder / "registration.toml")


async def _make_agents(plan: SitePlan, broker: Broker, clinic: ClinicFolder, sockets: list[Path]) -> list[Agent]:
    agents = list[Agent]()
    for number, socket in enumerate(sockets, start=1):
        name, subject = f"agent-{number}", f"agent-subject-{number}"
        data = plan.folder / name
        _register(clinic, data, name, subject)
        link = FaultyLink(name, broker.hubs_port, random.Random(f"{plan.seed} {name}"))
        await link.open()
        agents.append(make_agent(data, plan.folder / "logs", link, socket, name, subject, broker.identity(Kind.HUBS, name)))
    return agents


def _make_services(plan: SitePlan, broker: Broker, server: Server, command: list[str]) -> dict[str, list[Supervised]]:
    identities = {name: broker.identity(Kind.SERVICES, name) for name in (INGEST, OPENER, PAGE)}
    urls = {"store": server.url(STORE), "projections": server.url(PROJECTIONS)}
    values = {"public": broker.authority.public, "host": HOST, "port": broker.services_port}
    config = plan.folder / "site.toml"
    config.write_text(_SETTINGS.format(**identities, **urls, **values), encoding="utf-8")
    environment = {**os.environ, "PGPASSFILE": str(server.password_file), "PYTHONPATH": str(ROOT)}
    logs = plan.folder / "logs"

    def service(name: str, number: int) -> Supervised:
        words = [sys.executable, "-m", "cloud.cli", name, "--config", str(config)]
        return Supervised(f"{name}-{number}", words, logs / f"{name}-{number}.log", environment)

    as_user = as_other_user()[1:-1]
    return {
        "postgresql": [Supervised("postgresql", command, logs / "postgresql.log", user=as_user)],
        "broker": [Supervised("broker", broker.command, logs / "broker.log", broker.environment)],
        INGEST: [service(INGEST, number) for number in range(1, N_INGEST + 1)],
        OPENER: [service(OPENER, 1)],
    }


@asynccontextmanager
async def running_site(plan: SitePlan) -> AsyncIterator[Site]:
    """Build a site in the folder of the plan, which is created, and run it."""
    for name in ("journals", "logs"):
        (plan.folder / name).mkdir(parents=True)
    clinic = ClinicFolder(plan.folder / "clinic")
    authority = await asyncio.to_thread(Authority.create, clinic.site, "Testklinik", "DE", "Bayern", int(time.time()))
    broker = Broker(authority, plan.folder, hosts=(HOST, SITE_ADDRESS))
    disk = plan.disks.get("clinic", plan.folder) / "postgresql"
    disk.mkdir()
    server, command = await asyncio.to_thread(prepare_server, disk, POSTGRESQL_OPTIONS)
    os.environ["PGPASSFILE"] = str(server.password_file)
    services = _make_services(plan, broker, server, command)
    async with virtual_radios(plan.agents) as sockets:
        hubs, agents = await _make_hubs(plan, broker, clinic), await _make_agents(plan, broker, clinic, sockets)
        site = Site(plan, server, broker, clinic, services, hubs, agents)
        try:
            services["postgresql"][0].start()
            await _create_databases(site)
            for process in site.processes():
                process.start()
            yield site
        finally:
            for process in site.processes():
                await process.stop()
            for link in site.links():
                await link.close()
            server.close()


async def _create_databases(site: Site) -> None:
    deadline_s = time.monotonic() + 60
    while not await asyncio.to_thread(site.server.is_ready):
        assert time.monotonic() < deadline_s, "PostgreSQL does not start"
        await asyncio.sleep(0.1)
    for name in (STORE, PROJECTIONS):
        await asyncio.to_thread(site.server.create, name)
