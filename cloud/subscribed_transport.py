"""An MQTT transport that signals when it can receive the hubs' messages."""

import asyncio

from sync.mqtt import Connected, MqttClient, MqttEvent


class SubscribedTransport:
    """Passes messages through to `mqtt`. Sets `subscribed` at the first connection with granted subscriptions.

    From then on the broker delivers every published block.
    """

    def __init__(self, mqtt: MqttClient) -> None:
        self._mqtt = mqtt
        self.subscribed = asyncio.Event()

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._mqtt.publish(topic, payload)

    async def receive(self) -> MqttEvent:
        event = await self._mqtt.receive()
        if isinstance(event, Connected):
            self.subscribed.set()
        return event

    @property
    def waiting(self) -> int:
        return self._mqtt.waiting
