"""The broker of each pair that a clinic runs on: amqtt with SQLite, mosquitto with PostgreSQL. Contract tests run on both."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import pytest

from cloud.broker import embedded_broker
from config.endpoint import Endpoint
from sync.mqtt import MqttClient
from tests.databases import Databases, SqliteDatabases
from tests.mosquitto import HOST, free_port
from tests.mosquitto import Broker as Mosquitto


class ContractBroker(Protocol):
    """A running broker."""

    shares_subscriptions: bool
    """Whether each message of `$share` topics goes to one of their subscribers."""
    speaks_mqtt_5: bool

    def hub(self, name: str) -> Endpoint:
        """The broker as a hub of this name reaches it."""
        ...

    def service(self, name: str) -> Endpoint: ...

    async def restart(self) -> None:
        """End it, and start it on the same port."""
        ...


class AmqttBroker:
    """The clinic's embedded broker, without TLS."""

    shares_subscriptions = speaks_mqtt_5 = False

    def __init__(self, running: AsyncExitStack) -> None:
        self._endpoint, self._running = Endpoint(HOST, free_port()), running

    def hub(self, _name: str) -> Endpoint:
        return self._endpoint

    def service(self, _name: str) -> Endpoint:
        return self._endpoint

    async def start(self) -> None:
        await self._running.enter_async_context(run_amqtt(self._endpoint.port))

    async def restart(self) -> None:
        await self._running.aclose()
        await self.start()


class MosquittoBroker:
    """The broker of a site, with TLS for hubs and services. It is killed."""

    shares_subscriptions = speaks_mqtt_5 = True

    def __init__(self, mosquitto: Mosquitto) -> None:
        self._mosquitto = mosquitto
        self.hub, self.service = mosquitto.hub, mosquitto.service

    async def restart(self) -> None:
        await asyncio.to_thread(self._mosquitto.kill)
        await asyncio.to_thread(self._mosquitto.start)


@asynccontextmanager
async def run_amqtt(port: int = 0) -> AsyncIterator[int]:
    """Run the embedded broker on this port, or on a free one."""
    with socket.create_server((HOST, port)) as listener:
        async with embedded_broker(listener):
            yield listener.getsockname()[1]


@asynccontextmanager
async def run_broker_beside(databases: Databases, request: pytest.FixtureRequest) -> AsyncIterator[ContractBroker]:
    """Run the broker that a clinic with these databases has."""
    async with AsyncExitStack() as running:
        if isinstance(databases, SqliteDatabases):
            amqtt = AmqttBroker(running)
            await amqtt.start()
            yield amqtt
        else:
            yield MosquittoBroker(request.getfixturevalue("broker"))


@asynccontextmanager
async def running_clients(clients: Iterable[MqttClient]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(client.run()) for client in clients]
        yield
        for task in running:
            task.cancel()
