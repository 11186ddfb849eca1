"""A link between hub and clinic in one process, which can lose messages and be slow."""

import asyncio
from collections.abc import Callable

from sync.errors import TransientError
from sync.mqtt import PACKET_OVERHEAD_BYTES, Connected, Disconnected, Message, MqttEvent


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

    @property
    def waiting(self) -> int:
        return self.events.qsize()


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
