"""An MQTT client for asyncio. `MqttClient.run` keeps one connection open and reconnects after each loss.

It is built on paho but does not use paho's queues, retries and reconnects, which can lose, repeat or delay messages: a full
queue drops the newest message, and a reconnect may publish twice. Every connection is a new paho client with a clean session,
and at most `IN_FLIGHT_LIMIT` publishes wait for the broker. `publish` returns when the socket has taken the message: at most
one message and `UNSENT_BYTES` wait on the hub, so a more urgent one overtakes the others. Callers keep each message that must
not be lost until the application at the other end confirms it.

The client tries MQTT 5 first, then 3.1.1 for brokers that support nothing newer.
"""

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from config.endpoint import Endpoint
from config.tls import ClientContext, TlsSetupError, explain_failure, make_endpoint_context
from sync.errors import TransientError
from sync.mqtt_backoff import USEFUL_AFTER_S, Backoff
from sync.mqtt_events import Connected, Disconnected, Message, MqttEvent, MqttStatistics
from sync.paho_mqtt import (
    CallbackAPIVersion,
    Client,
    ConnectFlags,
    DisconnectFlags,
    MQTTErrorCode,
    MQTTMessage,
    MQTTProtocolVersion,
    Properties,
    ReasonCode,
)
from sync.wire import MESSAGE_LIMIT_BYTES

__all__ = ["Connected", "Disconnected", "Message", "MqttClient", "MqttEvent", "MqttStatistics"]

log = logging.getLogger(__name__)

IN_FLIGHT_LIMIT: Final = 100
"""Limit of publishes that the broker has not answered. A higher limit adds no throughput on a real link and uses
more memory in the broker."""
RECEIVE_QUEUE_LENGTH: Final = 256
"""Limit of events that wait for `receive`, together at most 16 MiB. A full queue drops and counts the oldest message; its
sender repeats it. A connect or disconnect is never dropped for a message."""
UNSENT_BYTES: Final = 16 * 1024
"""Bytes that the kernel accepts beyond those already on their way (TCP_NOTSENT_LOWAT). It fills a link of 100 Mbit/s for 1 ms,
longer than the client needs to hand over more, and an alert waits for no more than this."""
KEEPALIVE_S: Final = 20
"""A dead link is detected after at most 1.5 times this: below the 60 s after which a mobile network may drop an idle flow."""
CONNECT_TIMEOUT_S: Final = 5.0
"""Time to open the TCP connection: a slow 2G round trip takes 2 s. It bounds how long a shutdown may wait for paho's thread."""
DISCONNECT_TIMEOUT_S: Final = 1.0
"""Time to send the DISCONNECT packet; after it the socket is shut down."""
PACKET_OVERHEAD_BYTES: Final = 256
"""Size of a PUBLISH packet without its payload: the topic (≤ 100 bytes), lengths and properties."""
_UNSPECIFIED_ERROR: Final = 0x80
"""paho's reason code for a connection that ended without one."""
_CALLBACKS: Final = (
    "on_socket_open",
    "on_socket_unregister_write",
    "on_connect",
    "on_connect_fail",
    "on_subscribe",
    "on_publish",
    "on_message",
    "on_disconnect",
)


class MqttClient:
    """A client of one broker. It subscribes to fixed topics and publishes, both at QoS 1.

    Where the endpoint has an identity, it uses TLS. Each connection reads the identity again, so a renewed certificate is used
    without a restart; a certificate that is missing, expired or revoked is a reason to reconnect later, as any other.
    """

    def __init__(
        self,
        broker: Endpoint,
        *,
        client_id: str,
        subscriptions: Sequence[str],
        now_s: Callable[[], float] = time.time,
        password: bytes = b"",
    ) -> None:
        """Store the configuration; `run` opens the connection. By `now_s` the broker's certificate is valid.

        `password` opens the private key of the identity, if that is encrypted.
        """
        self._broker, self._client_id, self._now_s, self._password = broker, client_id, now_s, password
        self.subscriptions = [(topic, 1) for topic in subscriptions]
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._events: deque[MqttEvent] = deque()
        self._has_events = asyncio.Event()
        self._connection: _Connection | None = None
        self._connections = self._published = self._refused = self._dropped = 0

    async def run(self) -> NoReturn:
        """Keep a connection open until cancelled. Afterwards no thread and no socket of the client is left."""
        backoff = Backoff()
        while True:
            try:
                tls = await asyncio.to_thread(make_endpoint_context, self._broker, self._now_s, self._password)
            except TlsSetupError as error:
                self._emit(Disconnected(f"no connection to the broker {self._broker}: {error}"))
                await self._pause(backoff.next_pause_s(0.0))
                continue
            connection = await self._connect_once(tls)
            if connection.may_need_an_older_protocol and self._protocol == MQTTProtocolVersion.MQTTv5:
                self._protocol = MQTTProtocolVersion.MQTTv311
                continue
            if connection.lasted_s == 0.0:
                self._protocol = MQTTProtocolVersion.MQTTv5
                self._emit(Disconnected(connection.end_reason))
            await self._pause(backoff.next_pause_s(connection.lasted_s))

    async def receive(self) -> MqttEvent:
        """Wait for the next event; events come in the order in which they happened."""
        while not self._events:
            self._has_events.clear()
            await self._has_events.wait()
        return self._events.popleft()

    @property
    def waiting(self) -> int:
        """Number of events that wait for `receive`."""
        return len(self._events)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send a message; waits while `IN_FLIGHT_LIMIT` others are unanswered, and until the socket has taken this one.

        On return the message is sent, not delivered; if the connection was lost meanwhile, `receive` reports it. Only the
        receiving application can confirm delivery.

        Raises:
            TransientError: there is no connection. The message was not sent.
        """
        connection = self._connection
        if connection is None:
            raise TransientError(f"no connection to the broker {self._broker}: check that it runs")
        await connection.slots.acquire()
        if connection is not self._connection or not connection.hand_over(topic, payload):
            connection.slots.release()
            raise TransientError(f"lost the connection to the broker {self._broker}: pulsegate reconnects")
        self._published += 1
        await connection.written.wait()

    def statistics(self) -> MqttStatistics:
        return MqttStatistics(self._connections, self._published, self._refused, self._dropped)

    async def _pause(self, longest_s: float) -> None:
        await asyncio.sleep(longest_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret

    async def _connect_once(self, tls: ClientContext | None) -> "_Connection":
        """Open one connection, wait until it closes, and return it."""
        client = Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            protocol=self._protocol,
            clean_session=None if self._protocol == MQTTProtocolVersion.MQTTv5 else True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(IN_FLIGHT_LIMIT)
        if tls is not None:
            client.tls_set_context(tls)
        connection = _Connection(client, self, self._broker, self._client_id, tls)
        client.connect_async(self._broker.host, self._broker.port, KEEPALIVE_S)
        client.loop_start()
        try:
            await connection.closed.wait()
        finally:
            self.on_closed(connection, "stopped")
            await connection.stop()
        return connection

    def on_opened(self, connection: "_Connection") -> None:
        if not connection.closed.is_set():
            connection.opened_at = asyncio.get_running_loop().time()
            self._connections += 1
            self._connection = connection
            self._emit(Connected())
            log.info("connected to the broker %s", self._broker)

    def on_closed(self, connection: "_Connection", reason: str) -> None:
        """Handle the end of a connection. The first call per connection takes effect; later ones do nothing."""
        if connection.closed.is_set():
            return
        connection.on_closed(reason)
        for _ in range(IN_FLIGHT_LIMIT):  # wake the tasks that wait to publish
            connection.slots.release()
        if self._connection is connection:
            self._connection = None
            self._emit(Disconnected(reason))

    def on_lost(self, connection: "_Connection", code: ReasonCode) -> None:
        self.on_closed(connection, connection.describe_loss(code))

    def on_answered(self, connection: "_Connection", is_failure: bool) -> None:
        connection.unanswered -= 1
        connection.slots.release()
        self._refused += is_failure

    def on_received(self, _connection: "_Connection", message: Message) -> None:
        self._emit(message)

    def on_written(self, connection: "_Connection") -> None:
        connection.written.set()

    def _emit(self, event: MqttEvent) -> None:
        if len(self._events) >= RECEIVE_QUEUE_LENGTH:
            oldest_message = (i for i, queued in enumerate(self._events) if isinstance(queued, Message))
            del self._events[next(oldest_message, 0)]
            self._dropped += 1
        self._events.append(event)
        self._has_events.set()


class _Connection:
    """One paho client, from connect to disconnect.

    The `on_…` methods run on paho's thread and only post what happened to the event loop. All other code runs on the loop.
    """

    def __init__(self, client: Client, owner: MqttClient, broker: Endpoint, client_id: str, tls: ClientContext | None) -> None:
        self.client = client
        self.slots = asyncio.Semaphore(IN_FLIGHT_LIMIT)
        self.unanswered = 0
        """Publishes that the broker has not acknowledged."""
        self.written = asyncio.Event()
        """Whether the socket has taken everything that was published."""
        self.opened_at: float | None = None
        self.lasted_s = 0.0
        """How long the connection was open; 0 if the broker never accepted it."""
        self.end_reason = ""
        self.closed = asyncio.Event()
        self._owner = owner
        self._broker, self._client_id, self._tls = broker, client_id, tls
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        for callback in _CALLBACKS:
            setattr(client, callback, getattr(self, callback))

    @property
    def may_need_an_older_protocol(self) -> bool:
        """Whether the broker never accepted the connection, and TLS was not why."""
        return self.lasted_s == 0.0 and self._tls_failure() is None

    def hand_over(self, topic: str, payload: bytes) -> bool:
        """Give a message to paho. Returns False if the connection is lost."""
        self.written.clear()
        if self.client.publish(topic, payload, qos=1).rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        self.unanswered += 1
        if not self.client.want_write():  # paho's thread was faster, and may not call `on_socket_unregister_write`
            self.written.set()
        return True

    def on_closed(self, reason: str) -> None:
        """Note the end of the connection, and wake the tasks that wait for it."""
        if self.opened_at is not None:
            self.lasted_s = self._loop.time() - self.opened_at
        self.end_reason = reason
        self.closed.set()
        self.written.set()

    def describe_loss(self, code: ReasonCode) -> str:
        """What happened and what to check, for a connection that this side did not close."""
        failure = self._tls_failure()
        if failure is not None:
            return failure
        detail = "" if code.value == _UNSPECIFIED_ERROR else f" ({code})"
        if self.opened_at is None:
            return f"the broker {self._broker} closed a new connection{detail}: check that it accepts {self._client_id}"
        if self.unanswered and self._loop.time() - self.opened_at < USEFUL_AFTER_S:
            return (
                f"the broker {self._broker} closed the connection after a publish{detail}:"
                f" check that it allows {self._client_id} to publish"
            )
        return f"lost the connection to the broker {self._broker}{detail}: pulsegate reconnects"

    def on_socket_open(self, _client: Client, _data: Any, opened: Any) -> None:
        # With Nagle's algorithm, a caller that sends one message at a time reaches only 22 messages a second.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._socket = opened

    def on_socket_unregister_write(self, _client: Client, _data: Any, _socket: Any) -> None:
        self._post(self._owner.on_written)

    def on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        refusal = f"refused the connection: {code}" if code.is_failure else _packet_limit_problem(properties)
        if refusal is not None:
            self._post(self._owner.on_closed, f"the broker {self._broker} {refusal}")
        elif self._owner.subscriptions:
            client.subscribe(self._owner.subscriptions)
        else:
            self._post(self._owner.on_opened)

    def on_subscribe(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            problem = f"refused a subscription ({refused[0]}): check that it allows {self._client_id} to subscribe"
            self._post(self._owner.on_closed, f"the broker {self._broker} {problem}")
        else:
            self._post(self._owner.on_opened)

    def on_publish(self, _client: Client, _data: Any, _mid: int, code: ReasonCode, _properties: Properties | None) -> None:
        self._post(self._owner.on_answered, code.is_failure)

    def on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._post(self._owner.on_received, Message(message.topic, bytes(message.payload[: MESSAGE_LIMIT_BYTES + 1])))

    def on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._post(self._owner.on_lost, code)

    def on_connect_fail(self, client: Client, _data: Any) -> None:
        client.disconnect()  # otherwise paho's thread would retry by itself
        problem = f"the broker {self._broker} does not answer: check that it runs, and the host and port in the settings"
        self._post(self._owner.on_closed, self._tls_failure() or problem)

    async def stop(self) -> None:
        """Disconnect and end paho's thread, even if the broker no longer reads from its socket."""
        self.client.disconnect()
        timeout = self._loop.call_later(DISCONNECT_TIMEOUT_S, self._shut_socket)
        try:
            await asyncio.to_thread(self._stop_thread)
        finally:
            timeout.cancel()
            for callback in _CALLBACKS:  # its callbacks keep the client alive; without them its sockets are closed now
                setattr(self.client, callback, None)

    def _tls_failure(self) -> str | None:
        """What TLS refused and what to do; None if TLS was not used or did not fail."""
        if self._tls is None or self._tls.failure is None:
            return None
        return f"the broker {self._broker} {explain_failure(self._tls.failure)}"

    def _post(self, function: Callable[..., None], *values: Any) -> None:
        self._loop.call_soon_threadsafe(function, self, *values)

    def _shut_socket(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _stop_thread(self) -> None:
        with contextlib.suppress(AttributeError):  # paho's thread may clear `_thread` between loop_stop's check and its join
            self.client.loop_stop()


def _packet_limit_problem(properties: Properties | None) -> str | None:
    """Why the broker's packet limit, which it announces in MQTT 5, is too small for our messages; None if it is not."""
    largest = getattr(properties, "MaximumPacketSize", None)
    needed = MESSAGE_LIMIT_BYTES + PACKET_OVERHEAD_BYTES
    if largest is not None and largest < needed:
        return f"accepts packets of at most {largest} bytes: set its limit to {needed} or more"
    return None
