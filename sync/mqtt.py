"""MQTT for asyncio: one connection at a time, renewed for as long as `Mqtt.run` runs.

Built on paho, whose queues, retries and reconnects are not used: they can drop, repeat and stall (a full queue drops the newest
message; a reconnect may publish twice). Every connection is a new paho client with a clean session, and at most `IN_FLIGHT`
publishes wait for the broker. What must not be lost is kept by the callers until the other end's application confirms it.

MQTT 5 is tried first, 3.1.1 where the broker has nothing newer.
"""

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from sync.errors import Permanent, Transient
from sync.wire import MESSAGE_LIMIT

IN_FLIGHT: Final = 100
"""Publishes without the broker's answer. More buys no throughput over a real link and fills the broker's memory."""
RECEIVE_LIMIT: Final = 256
"""Events that wait for `receive`: 16 MiB of the largest. Then the oldest is dropped and counted; its sender sends it again."""
KEEPALIVE_S: Final = 20
"""A dead link is noticed after at most 1.5 times this: under the 60 s after which a mobile network may forget an idle flow."""
CONNECT_TIMEOUT_S: Final = 5.0
"""For the TCP connection: a slow 2G round trip takes 2 s. It bounds how long a shutdown may have to wait for paho's thread."""
GOODBYE_TIMEOUT_S: Final = 1.0
"""For the DISCONNECT packet to leave; then the socket is shut."""
BACKOFF_S: Final = (0.5, 30.0)
"""First and longest pause before a new connection; it doubles in between and is cut by a random part of up to one half, so that
the hubs of a restarted broker do not return all at once."""

PACKET_OVERHEAD: Final = 256
"""Bytes of a PUBLISH packet besides its payload: the topic (≤ 100), lengths and properties."""
_CALLBACKS: Final = (
    "on_socket_open",
    "on_connect",
    "on_connect_fail",
    "on_subscribe",
    "on_publish",
    "on_message",
    "on_disconnect",
)


@dataclass(frozen=True, slots=True)
class Connected:
    """A new connection, with its subscriptions granted."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; what was published on it may or may not have arrived."""

    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes


Event = Connected | Disconnected | Message


@dataclass(frozen=True, slots=True)
class MqttStatistics:
    """`refused`: publishes that the broker turned down. `dropped`: events that nobody received in time."""

    connections: int
    published: int
    refused: int
    dropped: int


class Mqtt:
    """A client of one broker that subscribes to fixed topics at QoS 1 and publishes at QoS 1."""

    def __init__(self, host: str, port: int, *, client_id: str, subscriptions: Sequence[str]) -> None:
        """Nothing is opened before `run`.

        Raises:
            Permanent: the host is not this machine. Other hosts need TLS, which this version does not have.
        """
        if not _is_loopback(host):
            raise Permanent(f"broker {host}: without TLS only this machine's own broker is allowed; use 127.0.0.1 or localhost")
        self._host, self._port, self._client_id = host, port, client_id
        self.subscriptions = [(topic, 1) for topic in subscriptions]
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._events: asyncio.Queue[Event] = asyncio.Queue(RECEIVE_LIMIT)
        self._connection: _Connection | None = None
        self._connections = self._published = self._refused = self._dropped = 0

    async def run(self) -> NoReturn:
        """Keep a connection until cancelled. On return no thread and no socket of it is left."""
        pause, longest = BACKOFF_S
        while True:
            if await self._connect_once():
                pause = BACKOFF_S[0]
            elif self._protocol == MQTTProtocolVersion.MQTTv5:
                self._protocol = MQTTProtocolVersion.MQTTv311
                continue
            else:
                self._protocol = MQTTProtocolVersion.MQTTv5
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, keeps no secret
            pause = min(2 * pause, longest)

    async def receive(self) -> Event:
        """The next event, in the order in which they happened."""
        return await self._events.get()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Hand a message to the connection; waits while `IN_FLIGHT` others are on their way.

        On return it is sent, not delivered: only the receiving application can confirm that.

        Raises:
            Transient: there is no connection, or it was lost meanwhile.
        """
        connection = self._connection
        if connection is None:
            raise Transient(f"no connection to the broker {self._host}:{self._port}")
        await connection.slots.acquire()
        if (
            connection is not self._connection
            or connection.client.publish(topic, payload, qos=1).rc != MQTTErrorCode.MQTT_ERR_SUCCESS
        ):
            connection.slots.release()
            raise Transient(f"the connection to the broker {self._host}:{self._port} was lost")
        self._published += 1

    def statistics(self) -> MqttStatistics:
        return MqttStatistics(self._connections, self._published, self._refused, self._dropped)

    async def _connect_once(self) -> bool:
        """One connection, to its end. False: the broker did not accept it."""
        client = Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            protocol=self._protocol,
            clean_session=None if self._protocol == MQTTProtocolVersion.MQTTv5 else True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(IN_FLIGHT)
        connection = _Connection(client, self)
        client.connect_async(self._host, self._port, KEEPALIVE_S)
        client.loop_start()
        try:
            await connection.closed.wait()
        finally:
            self.closed(connection, "stopped")
            await connection.stop()
        return connection.is_open

    def opened(self, connection: "_Connection") -> None:
        if not connection.closed.is_set():
            connection.is_open = True
            self._connections += 1
            self._connection = connection
            self._emit(Connected())

    def closed(self, connection: "_Connection", reason: str) -> None:
        """Called by the connection's first sign of its end; a later sign changes nothing."""
        if connection.closed.is_set():
            return
        connection.closed.set()
        for _ in range(IN_FLIGHT):  # whoever waits to publish must learn of it
            connection.slots.release()
        if self._connection is connection:
            self._connection = None
            self._emit(Disconnected(reason))

    def answered(self, connection: "_Connection", is_failure: bool) -> None:
        connection.slots.release()
        self._refused += is_failure

    def received(self, _connection: "_Connection", message: Message) -> None:
        self._emit(message)

    def _emit(self, event: Event) -> None:
        if self._events.full():
            self._events.get_nowait()
            self._dropped += 1
        self._events.put_nowait(event)


class _Connection:
    """One paho client, from its connect to its end.

    The `on_…` methods run on paho's thread and do nothing but post what happened to the event loop, where all else happens.
    """

    def __init__(self, client: Client, owner: Mqtt) -> None:
        self.client = client
        self.slots = asyncio.Semaphore(IN_FLIGHT)
        self.is_open = False
        self.closed = asyncio.Event()
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        for callback in _CALLBACKS:
            setattr(client, callback, getattr(self, callback))

    def on_socket_open(self, _client: Client, _data: Any, opened: Any) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a window of 1 sends 22 messages a second
        self._socket = opened

    def on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        refusal = str(code) if code.is_failure else _unfit(properties)
        if refusal is not None:
            self._post(self._owner.closed, refusal)
        elif self._owner.subscriptions:
            client.subscribe(self._owner.subscriptions)
        else:
            self._post(self._owner.opened)

    def on_subscribe(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            self._post(self._owner.closed, f"subscription refused: {refused[0]}")
        else:
            self._post(self._owner.opened)

    def on_publish(self, _client: Client, _data: Any, _mid: int, code: ReasonCode, _properties: Properties | None) -> None:
        self._post(self._owner.answered, code.is_failure)

    def on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._post(self._owner.received, Message(message.topic, bytes(message.payload)))

    def on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._post(self._owner.closed, str(code))

    def on_connect_fail(self, client: Client, _data: Any) -> None:
        client.disconnect()  # else paho's thread would try again by itself
        self._post(self._owner.closed, "the broker does not answer")

    async def stop(self) -> None:
        """Say goodbye and end paho's thread, also where the broker no longer reads."""
        self.client.disconnect()
        patience = self._loop.call_later(GOODBYE_TIMEOUT_S, self._shut)
        try:
            await asyncio.to_thread(self._join)
        finally:
            patience.cancel()
            for callback in _CALLBACKS:  # they refer back to the client; without them it closes its sockets here and now
                setattr(self.client, callback, None)

    def _post(self, function: Callable[..., None], *values: Any) -> None:
        self._loop.call_soon_threadsafe(function, self, *values)

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _join(self) -> None:
        with contextlib.suppress(AttributeError):  # paho's thread may clear `_thread` between loop_stop's check and its join
            self.client.loop_stop()


def _unfit(properties: Properties | None) -> str | None:
    """Why a broker cannot carry our messages, from what it says of itself in MQTT 5."""
    largest = getattr(properties, "MaximumPacketSize", None)
    if largest is not None and largest < MESSAGE_LIMIT + PACKET_OVERHEAD:
        return (
            f"the broker takes packets of {largest} bytes at most; set its limit to {MESSAGE_LIMIT + PACKET_OVERHEAD} or more"
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
