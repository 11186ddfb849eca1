"""A clinic that sends commands to a whole agent, and sees its answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.audit_actors import operator
from cloud.block_reader import BlockReader
from cloud.commands import send_command
from cloud.folder import ClinicFolder
from cloud.key_store import KeyStore
from cloud.opener import Opener
from cloud.projections_database import open_projections
from cloud.registry import Registry, hub_file, load_hub
from cloud.signing_keys import SigningKeys
from cloud.store.commands import StoredCommand, list_commands
from config.contexts import Contexts
from config.limits import Limits
from gateway import app
from gateway.clinic_commands import ClinicCommands
from gateway.models import LoadedModels
from gateway.storage import Storage
from sync.commands import ANSWER_KINDS, Command, CommandKind, encode_command
from sync.mqtt import Message
from sync.records import StatusRecord
from sync.signing import SigningKey
from sync.wire import command_topic
from tests.gateway.testbed import HUB, START_S, InProcessTransport, Testbed, run_scenario

HOUR_S = 3600


class Site:
    """The clinic of the testbed, with its opener, and the connection of the agent that runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.testbed = Testbed(folder, LoadedModels())
        self.folder = ClinicFolder(folder / "clinic")
        self.key = SigningKeys.load(self.folder.path).command
        self.engine: Engine = open_projections(self.folder.projections)
        self.runs: list[tuple[ClinicCommands, Storage]] = []
        self.limits: list[Limits] = []
        self.contexts: list[Contexts] = []
        self.connection: InProcessTransport | None = None
        self.testbed.transport_type = self._connect  # type: ignore[assignment]
        run, pipeline = ClinicCommands.run, app.Pipeline

        def note_run(commands: ClinicCommands, storage: Storage) -> Any:
            self.runs.append((commands, storage))
            return run(commands, storage)

        def note_limits(sensor: str, limits: Limits, *arguments: Any, **options: Any) -> Any:
            self.limits.append(limits)
            self.contexts.append(options["contexts"])
            return pipeline(sensor, limits, *arguments, **options)

        monkeypatch.setattr(ClinicCommands, "run", note_run)
        monkeypatch.setattr(app, "Pipeline", note_limits)

    def _connect(self, *arguments: Any) -> InProcessTransport:
        self.connection = InProcessTransport(*arguments)
        return self.connection

    @asynccontextmanager
    async def agent(self, *, crash: bool = False) -> AsyncIterator[None]:
        """Runs an agent that has connected."""
        async with self.testbed.agent(crash=crash):
            await asyncio.sleep(5)
            yield

    @property
    def store(self) -> Any:
        return self.testbed.clinic.store

    @property
    def policy(self) -> str:
        """By what the agent selects waveforms now."""
        return self.runs[-1][1].recorder.upload.policy

    def send(self, kind: CommandKind, now_s: int = START_S, **arguments: Any) -> StoredCommand:
        hub = load_hub(hub_file(self.folder.hubs, HUB))
        return send_command(self.store, self.key, hub, kind, arguments, operator(), now_s * 1_000_000)

    def forge(self, key: SigningKey | None = None, **changes: Any) -> bytes:
        """A command as the clinic makes it, with other values."""
        command = Command(HUB, START_S, START_S, START_S + HOUR_S, CommandKind.UPLOAD, "subject-1", {"policy": "none"})
        public = load_hub(hub_file(self.folder.hubs, HUB)).command_key
        assert public is not None
        return encode_command(replace(command, **changes), public, key or self.key)

    async def deliver(self, payload: bytes, wait_s: float = 1.0) -> None:
        assert self.connection is not None
        self.connection._events.put_nowait(Message(command_topic(HUB), payload))
        await asyncio.sleep(wait_s)

    def answers(self) -> list[tuple[str, Any]]:
        """What the hub said of commands, as the clinic has received it."""
        found = [record for record in self.testbed.records() if isinstance(record, StatusRecord)]
        return [(record.kind, record.value) for record in found if record.kind in ANSWER_KINDS]

    def open_all(self) -> None:
        reader = BlockReader(self.store, Registry(self.folder.hubs, lambda: 0.0), KeyStore(self.folder.keys))
        opener = Opener(self.store, self.engine, reader, lambda _outcomes: None)
        while opener.open_batch() is not None:
            pass

    def commands(self) -> list[StoredCommand]:
        with self.store.transaction() as connection:
            return list_commands(connection)

    def states(self, now_s: int = START_S) -> list[str]:
        return [command.state_at(now_s) for command in self.commands()]


def run(site: Site, scenario: Any) -> None:
    run_scenario(site.testbed, lambda _testbed: scenario())
