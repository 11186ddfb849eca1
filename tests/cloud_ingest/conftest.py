"""A hub's outbox, a clinic's store, and a link between them in one process that can lose messages."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloud.store import Store
from sync.errors import TransientError
from sync.keys import HubKey
from sync.mqtt import PACKET_OVERHEAD_BYTES, Connected, Disconnected, Message, MqttEvent
from sync.outbox import Outbox
from sync.seal import ClinicKeyPair, open_block, parse_header, unwrap_at_clinic
from tests.databases import Databases

HUB = "hub-1"


class LinkEnd:
    """One end of the link."""

    def __init__(self, link: "Link") -> None:
        self.link = link
        self.events: asyncio.Queue[MqttEvent] = asyncio.Queue()
        self.other: LinkEnd

    async def publish(self, topic: str, payload: bytes) -> None:
        if not self.link.is_up:
            raise TransientError("no connection")
        message = Message(topic, payload)
        self.link.sent.append(message)
        if self.link.is_lost(message):
            return
        if self is self.link.hub and self.link.bytes_per_s is not None:
            self.link.carry_slowly(message)
        else:
            self.other.events.put_nowait(message)

    async def receive(self) -> MqttEvent:
        return await self.events.get()


class Link:
    """Two ends that are up or down together. `is_lost` decides whether a message is lost; `sent` keeps all messages."""

    def __init__(self) -> None:
        self.hub, self.clinic = LinkEnd(self), LinkEnd(self)
        self.hub.other, self.clinic.other = self.clinic, self.hub
        self.is_up = False
        self.is_lost: Callable[[Message], bool] = lambda _message: False
        self.sent: list[Message] = []
        self.bytes_per_s: float | None = None
        """What the link carries towards the clinic; None: no limit. Unlimited buffers hold what it cannot carry yet."""
        self._free_at = 0.0

    def carry_slowly(self, message: Message) -> None:
        assert self.bytes_per_s is not None
        loop = asyncio.get_running_loop()
        size = len(message.payload) + PACKET_OVERHEAD_BYTES
        self._free_at = max(self._free_at, loop.time()) + size / self.bytes_per_s
        loop.call_at(self._free_at, self.clinic.events.put_nowait, message)

    def connect(self) -> None:
        self.is_up = True
        for end in (self.hub, self.clinic):
            end.events.put_nowait(Connected())

    def cut(self) -> None:
        """Cut the connection; all messages in transit are lost."""
        self.is_up = False
        for end in (self.hub, self.clinic):
            while not end.events.empty():
                end.events.get_nowait()
            end.events.put_nowait(Disconnected("cut"))


@dataclass
class Testbed:
    """The outbox of a hub, and the store and keys of a clinic."""

    outbox: Outbox
    store: Store
    keys: ClinicKeyPair
    folder: Path
    sealed_at_s: list[int] = field(default_factory=lambda: [1_790_000_000])

    def opened_plaintexts(self) -> list[bytes]:
        """Return the plaintexts of all stored blocks, in the order of commit."""
        plaintexts = []
        for row in self.store.blocks_after(None, 100_000):
            header = parse_header(row.block)
            wrapped = self.store.wrapped_key(row.hub, row.key)
            assert wrapped is not None
            key = unwrap_at_clinic(wrapped, key_id=row.key, hub=header.hub, subject=header.subject, clinic=self.keys)
            plaintexts.append(open_block(row.block, key)[1])
        return plaintexts

    def is_drained(self) -> bool:
        return not any(self.outbox.statistics().pending.values())


@pytest.fixture
def testbed(tmp_path: Path, databases: Databases) -> Iterator[Testbed]:
    keys = ClinicKeyPair.generate()
    sealed_at_s = [1_790_000_000]
    outbox = Outbox.open(
        tmp_path / "outbox.db",
        hub=HUB,
        subject="subject-1",
        hub_key=HubKey(bytes(32)),
        clinic=keys.public,
        clock=lambda: sealed_at_s[0],
    )
    store = Store.open(databases.location("blocks"))
    yield Testbed(outbox, store, keys, tmp_path, sealed_at_s)
    outbox.close()
    store.close()


@pytest.fixture
def make_link() -> Callable[[], Link]:
    return Link
