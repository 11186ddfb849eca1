"""Attacks on the broker's ports, with the certificates that an attacker may have. What counts is what is delivered."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cloud.site import Authority, Kind
from cloud.site.certificates import LIFE_S
from cloud.site.mosquitto import INGEST, PACKET_LIMIT_BYTES, cut_connection
from config.endpoint import Endpoint
from config.tls import make_endpoint_context
from gateway.commands.doctor import check_broker
from sync.errors import TransientError
from sync.mqtt import Connected, Disconnected, Message, MqttClient, MqttEvent
from sync.wire import UP_TOPICS, ack_topic, up_topic
from tests.mosquitto import HOST, Broker, make_identity, now_s
from tests.tls_probe import check_tls_policy

TIMEOUT_S = 20.0
ALONE = "hub-alone"
"""A hub that no other test connects."""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.mqtt_backoff.BACKOFF_S", (0.01, 0.01))


@asynccontextmanager
async def connecting(endpoint: Endpoint, client_id: str, *topics: str) -> AsyncIterator[MqttClient]:
    client = MqttClient(endpoint, client_id=client_id, subscriptions=topics)
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run())
        yield client
        running.cancel()


@asynccontextmanager
async def connected(endpoint: Endpoint, client_id: str, *topics: str) -> AsyncIterator[MqttClient]:
    async with connecting(endpoint, client_id, *topics) as client:
        assert await client.receive() == Connected()
        yield client


def first_event(endpoint: Endpoint, client_id: str = "hub-1") -> MqttEvent:
    async def connect() -> MqttEvent:
        async with connecting(endpoint, client_id) as client:
            return await client.receive()

    return asyncio.run(connect())


def refusal(endpoint: Endpoint) -> str:
    event = first_event(endpoint)
    assert isinstance(event, Disconnected), event
    return event.reason.removeprefix(f"the broker {endpoint} ")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_S))


async def wait_refused(client: MqttClient, count: int) -> None:
    """Wait until the broker has refused so many publishes."""
    while client.statistics().refused < count:
        await asyncio.sleep(0.005)


class TestCertificates:
    def test_a_hub_and_a_service_are_accepted(self, broker: Broker) -> None:
        assert first_event(broker.hub("hub-1")) == Connected()
        assert first_event(broker.service(INGEST)) == Connected()

    @pytest.mark.parametrize("port", ["hubs", "services"])
    def test_tls_1_2_and_other_suites_are_refused(self, broker: Broker, port: str) -> None:
        if port == "hubs":
            check_tls_policy(broker.hubs_port, identity=broker.identity(Kind.HUBS, "hub-1"))
        else:
            check_tls_policy(broker.services_port, identity=broker.identity(Kind.SERVICES, INGEST))

    def test_a_hub_whose_certificate_expired(self, broker: Broker) -> None:
        expired = broker.identity(Kind.HUBS, "hub-late", at_s=now_s() - LIFE_S[Kind.HUBS] - 1)
        assert refusal(Endpoint(HOST, broker.hubs_port, expired, "DE")).startswith("refuses our certificate, which has expired")

    def test_a_hub_of_a_foreign_site(self, broker: Broker, tmp_path: Path) -> None:
        foreign = Authority.create(tmp_path / "foreign", "Testklinik", "DE", "Bayern", now_s())
        identity = make_identity(foreign, tmp_path / "hub", Kind.HUBS, "hub-1")
        (identity / "roots.pem").write_bytes(broker.authority.roots)
        assert refusal(Endpoint(HOST, broker.hubs_port, identity, "DE")).startswith(
            "refuses our certificate, which is of another"
        )

    @pytest.mark.parametrize("kind", [Kind.STAFF, Kind.SERVICES])
    def test_a_certificate_of_another_kind_with_the_name_of_a_hub(self, broker: Broker, kind: Kind) -> None:
        endpoint = Endpoint(HOST, broker.hubs_port, broker.identity(kind, "hub-1"), "DE")
        assert refusal(endpoint).startswith("refuses our certificate, which is of another site or purpose")

    @pytest.mark.parametrize("kind", [Kind.STAFF, Kind.HUBS])
    def test_a_certificate_of_another_kind_with_the_name_of_a_service(self, broker: Broker, kind: Kind) -> None:
        endpoint = Endpoint(HOST, broker.services_port, broker.identity(kind, INGEST), "DE")
        assert refusal(endpoint).startswith("refuses our certificate, which is of another site or purpose")

    @pytest.mark.parametrize("port", ["hubs", "services"])
    def test_a_client_without_a_certificate(self, broker: Broker, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("config.tls.load_identity", lambda *_: None)
        endpoint = broker.hub("hub-1") if port == "hubs" else Endpoint(HOST, broker.services_port, broker.folder, "DE")
        (broker.folder / "roots.pem").write_bytes(broker.authority.roots)
        assert refusal(endpoint).startswith("asks for a certificate: enrol first")


class TestServers:
    """What a hub refuses. It sends no CONNECT then: the broker learns neither its name nor that it speaks MQTT."""

    def check(self, broker: Broker, endpoint: Endpoint, reason: str) -> None:
        assert refusal(endpoint).startswith(reason)
        assert not any(f"as {ALONE}" in line for line in broker.log)
        check = asyncio.run(check_broker(endpoint))
        assert check.state == "failed"
        assert check.detail == f"{endpoint} {reason}"

    def test_in_another_country_than_that_of_the_settings(self, broker: Broker) -> None:
        identity = broker.identity(Kind.HUBS, ALONE)
        self.check(broker, Endpoint(HOST, broker.hubs_port, identity, "AT"), "is in DE, and region is AT")

    def test_with_a_certificate_for_another_name(self, broker: Broker) -> None:
        identity = broker.identity(Kind.HUBS, ALONE)
        self.check(broker, Endpoint("localhost", broker.hubs_port, identity, "DE"), "has a certificate for another name")

    def test_of_another_site(self, broker: Broker, tmp_path: Path) -> None:
        own = Authority.create(tmp_path / "own", "Testklinik", "DE", "Bayern", now_s())
        identity = make_identity(own, tmp_path / "hub", Kind.HUBS, ALONE)
        self.check(broker, Endpoint(HOST, broker.hubs_port, identity, "DE"), "has a certificate of another site")

    def test_without_tls(self, tmp_path: Path, broker: Broker) -> None:
        with socket.create_server((HOST, 0)) as plain:
            thread = threading.Thread(target=answer_in_plain_text, args=(plain,))
            thread.start()
            endpoint = Endpoint(HOST, plain.getsockname()[1], broker.identity(Kind.HUBS, ALONE), "DE")
            assert refusal(endpoint) == "does not speak TLS at this port: check the port"
            plain.shutdown(socket.SHUT_RDWR)
            thread.join()

    def test_the_doctor_sees_a_certificate_that_the_broker_refuses(self, broker: Broker) -> None:
        assert asyncio.run(check_broker(broker.hub("hub-1"))).state == "ok"
        staff = Endpoint(HOST, broker.hubs_port, broker.identity(Kind.STAFF, "hub-1"), "DE")
        check = asyncio.run(check_broker(staff))
        assert (check.state, check.remedy) == ("failed", "enrol again")
        missing = Endpoint(HOST, broker.hubs_port, broker.folder / "missing", "DE")
        assert "roots.pem" in str(asyncio.run(check_broker(missing)).remedy)


def answer_in_plain_text(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                client.recv(1000)


class TestRevocation:
    def test_a_revoked_hub_is_cut_and_does_not_come_back(self, broker: Broker) -> None:
        async def scenario() -> None:
            async with connected(broker.hub("hub-lost"), "hub-lost") as lost, connected(broker.hub("hub-1"), "hub-1") as other:
                broker.authority.revoke(Kind.HUBS, "hub-lost", now_s())
                await asyncio.to_thread(broker.reload)
                await lost.publish(up_topic("hub-lost", "vital"), b"")  # the connection outlives the reload
                await cut_connection(broker.service("control"), "hub-lost")
                events = [await lost.receive() for _ in range(2)]
                assert all(isinstance(event, Disconnected) for event in events)
                assert "refuses our certificate, which was revoked: ask the clinic" in str(events[1])
                await other.publish(up_topic("hub-1", "vital"), b"")
                assert (other.statistics().connections, lost.statistics().connections) == (1, 1)

        run(scenario)

    def test_a_handshake_that_began_before_the_revocation(self, broker: Broker) -> None:
        context = make_endpoint_context(broker.hub("hub-half"))
        assert context is not None
        with socket.create_connection((HOST, broker.hubs_port), timeout=TIMEOUT_S) as plain:
            assert first_event(broker.hub("hub-1")) == Connected()  # so the broker has accepted the other one
            broker.authority.revoke(Kind.HUBS, "hub-half", now_s())
            broker.reload()
            with context.wrap_socket(plain, server_hostname=HOST) as tls, pytest.raises(ssl.SSLError, match="REVOKED"):
                tls.recv(1)

    def test_a_revoked_service(self, broker: Broker) -> None:
        stolen = broker.service("stolen")
        assert first_event(stolen) == Connected()
        broker.authority.revoke(Kind.SERVICES, "stolen", now_s())
        broker.reload()
        assert refusal(stolen).startswith("refuses our certificate, which was revoked")

    def test_a_renewed_certificate_is_used_without_a_restart(self, broker: Broker) -> None:
        identity = broker.identity(Kind.HUBS, "hub-back", at_s=now_s() - LIFE_S[Kind.HUBS] - 1)

        async def scenario() -> None:
            async with connecting(Endpoint(HOST, broker.hubs_port, identity, "DE"), "hub-back") as hub:
                assert "which has expired: it is used again when it is renewed" in str(await hub.receive())
                make_identity(broker.authority, identity, Kind.HUBS, "hub-back")
                while isinstance(event := await hub.receive(), Disconnected):
                    pass
                assert event == Connected()

        run(scenario)


class TestTopics:
    def test_a_message_in_the_name_of_another_hub_is_not_delivered(self, broker: Broker) -> None:
        async def scenario() -> None:
            async with (
                connected(broker.service(INGEST), "ingest/1", *UP_TOPICS) as ingest,
                connected(broker.hub("hub-1"), "hub-1") as hub,
            ):
                topics = (up_topic("hub-2", "alert"), "pulsegate/v1/hub-1/down/ack", "pulsegate/v1/hub-1/up/a/b", "$SYS/a", "a")
                for topic in (*topics, up_topic("hub-1", "alert")):
                    await hub.publish(topic, topic.encode())
                own = up_topic("hub-1", "alert")
                assert await ingest.receive() == Message(own, own.encode())
                await wait_refused(hub, len(topics))

        run(scenario)

    def test_what_is_sent_to_another_hub_is_not_delivered(self, broker: Broker) -> None:
        async def scenario() -> None:
            wildcards = ("#", "pulsegate/v1/+/down/+", "$share/group/pulsegate/v1/hub-2/down/ack", "$SYS/#", *UP_TOPICS)
            async with (
                connected(broker.service(INGEST), "ingest/1") as ingest,
                connected(broker.hub("hub-2"), "hub-2", ack_topic("hub-2")) as target,
                connected(broker.hub("hub-1"), "hub-1", ack_topic("hub-2"), *wildcards) as attacker,
            ):
                await ingest.publish(ack_topic("hub-2"), b"for hub-2")
                assert await target.receive() == Message(ack_topic("hub-2"), b"for hub-2")
                await target.publish(up_topic("hub-2", "alert"), b"from hub-2")
                await ingest.publish(ack_topic("hub-1"), b"for hub-1")
                assert await attacker.receive() == Message(ack_topic("hub-1"), b"for hub-1")

        run(scenario)

    def test_a_hub_with_the_name_of_a_service_has_the_rights_of_a_hub(self, broker: Broker) -> None:
        async def scenario() -> None:
            async with (
                connected(broker.service(INGEST), "ingest/1") as ingest,
                connected(broker.hub("hub-2"), "hub-2", ack_topic("hub-2")) as target,
                connected(broker.hub(INGEST), INGEST, *UP_TOPICS) as attacker,
            ):
                await attacker.publish(ack_topic("hub-2"), b"forged")
                await target.publish(up_topic("hub-2", "alert"), b"from hub-2")
                await ingest.publish(ack_topic("hub-2"), b"true")
                assert await target.receive() == Message(ack_topic("hub-2"), b"true")
                await ingest.publish(ack_topic(INGEST), b"")
                await wait_refused(attacker, 1)

        run(scenario)

    def test_a_service_may_do_its_own_work_only(self, broker: Broker) -> None:
        async def scenario() -> None:
            async with (
                connected(broker.hub("hub-2"), "hub-2", "pulsegate/v1/hub-2/down/+") as hub,
                connected(broker.service("metrics"), "metrics/1", "#") as stranger,
                connected(broker.service(INGEST), "ingest/1") as ingest,
            ):
                await stranger.publish(ack_topic("hub-2"), b"forged")
                await ingest.publish("pulsegate/v1/hub-2/down/command", b"forged")
                await ingest.publish(ack_topic("hub-2"), b"true")
                assert await hub.receive() == Message(ack_topic("hub-2"), b"true")
                await wait_refused(stranger, 1)
                await wait_refused(ingest, 1)

        run(scenario)

    def test_the_client_id_of_another_hub_does_not_end_its_connection(self, broker: Broker) -> None:
        async def scenario() -> None:
            async with connected(broker.hub("hub-2"), "hub-2", ack_topic("hub-2")) as target:
                async with connected(broker.hub("hub-1"), "hub-2"), connected(broker.service(INGEST), "ingest/1") as ingest:
                    await ingest.publish(ack_topic("hub-2"), b"")
                    assert await target.receive() == Message(ack_topic("hub-2"), b"")
                assert target.statistics().connections == 1

        run(scenario)

    def test_an_oversize_packet_ends_the_connection_of_its_sender_only(self, broker: Broker) -> None:
        async def scenario() -> None:
            async with (
                connected(broker.service(INGEST), "ingest/1", *UP_TOPICS) as ingest,
                connected(broker.hub("hub-2"), "hub-2") as other,
                connected(broker.hub("hub-1"), "hub-1") as hub,
            ):
                with contextlib.suppress(TransientError):
                    await hub.publish(up_topic("hub-1", "wave"), bytes(PACKET_LIMIT_BYTES))
                assert isinstance(await hub.receive(), Disconnected)
                await other.publish(up_topic("hub-2", "wave"), b"")
                assert await ingest.receive() == Message(up_topic("hub-2", "wave"), b"")

        run(scenario)
