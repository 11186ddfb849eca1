"""What `sync.mqtt.MqttClient` reports: events of its connection, messages, and counts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connected:
    """A new connection is open and its subscriptions are granted."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """There is no connection: it was closed, or an attempt to open one failed. Messages published on it may have arrived.

    `reason` names the broker and says what to check.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message on a subscribed topic. A payload over `MESSAGE_LIMIT_BYTES` is cut to one byte more: receivers reject it."""

    topic: str
    payload: bytes


MqttEvent = Connected | Disconnected | Message


@dataclass(frozen=True, slots=True)
class MqttStatistics:
    """Counts since start. `refused`: publishes that the broker refused. `dropped`: events dropped from a full queue."""

    connections: int
    published: int
    refused: int
    dropped: int
