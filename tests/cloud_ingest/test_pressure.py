"""A clinic that is slower than its hubs: it slows them down, loses nothing, and alerts do not wait behind the rest."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.ingest import run_ingest
from cloud.pressure import DELAY_LIMIT_S, Pressure
from cloud.store import Store
from gateway.virtual_time import run
from sync.in_flight import MAX_MESSAGES
from sync.keys import HubKey, HubKeys
from sync.mqtt import Connected, Message, MqttEvent
from sync.outbox import Outbox
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.signing import SigningKey, Use
from sync.uplink import Uplink, UplinkCallbacks
from sync.wire import RETRY_AFTER_LIMIT_S
from tests.cloud_ingest.ingest_testbed import ACK_KEY, NOW_US, START_S, FakeRegistry, SendingHub
from tests.sync.uplink_testbed import call_inline

N_HUBS = 4
TURN_S = 0.05


class TestPressure:
    def test_a_clinic_that_keeps_up_asks_for_nothing(self) -> None:
        pressure = Pressure()
        for _ in range(100):
            pressure.note(0.03)
        assert [pressure.retry_after_s(waiting) for waiting in (0, 10, 30)] == [0, 0, 0]

    def test_hubs_wait_twice_the_time_that_the_queue_takes(self) -> None:
        pressure = Pressure()
        for _ in range(100):
            pressure.note(0.5)
        assert [pressure.retry_after_s(waiting) for waiting in (0, 1, 2, 19)] == [0, 0, 3, 20]

    def test_one_slow_message_is_not_an_overload(self) -> None:
        pressure = Pressure()
        pressure.note(4.0)
        assert pressure.retry_after_s(0) == 0
        pressure.note(4.0)
        assert pressure.retry_after_s(0) > 0

    @given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=20), st.integers(0, 10**6))
    def test_no_hub_is_asked_to_wait_longer_than_the_protocol_allows(self, handled_s: list[float], waiting: int) -> None:
        pressure = Pressure()
        for seconds in handled_s:
            pressure.note(seconds)
        assert 0 <= pressure.retry_after_s(waiting) <= RETRY_AFTER_LIMIT_S

    def test_the_limit_is_half_of_the_shortest_time_after_which_a_hub_sends_again(self) -> None:
        assert DELAY_LIMIT_S == 1.0


class Broker:
    """Takes messages of all hubs into one queue for ingest, and its answers to their hub.

    `longest` is the largest number of messages without an answer.
    """

    def __init__(self) -> None:
        self.queue: asyncio.Queue[MqttEvent] = asyncio.Queue()
        self.hubs: dict[str, HubEnd] = {}
        self.unanswered = self.longest = 0

    async def receive(self) -> MqttEvent:
        return await self.queue.get()

    async def publish(self, topic: str, payload: bytes) -> None:
        self.unanswered -= 1
        self.hubs[topic.split("/")[2]].events.put_nowait(Message(topic, payload))


class HubEnd:
    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.events: asyncio.Queue[MqttEvent] = asyncio.Queue()
        self.events.put_nowait(Connected())

    async def publish(self, topic: str, payload: bytes) -> None:
        self.broker.queue.put_nowait(Message(topic, payload))
        self.broker.unanswered += 1
        self.broker.longest = max(self.broker.longest, self.broker.unanswered)

    async def receive(self) -> MqttEvent:
        return await self.events.get()


async def use_processor(processor: asyncio.Lock, seconds: float) -> None:
    """Take turns with others: whoever has waited longest is next."""
    while seconds > 0:
        async with processor:
            await asyncio.sleep(min(seconds, TURN_S))
        seconds -= TURN_S


class Overload:
    """Four hubs that store a vital sign every second, and a clinic that takes `handling_s` for each message.

    What it handles at the same time shares one processor, in turns of `TURN_S`.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.store = stack.enter_context(closing(Store.open(folder / "blocks.db")))
        self.registry = FakeRegistry()
        self.handling_s = 0.4
        recipient, receipt = RecipientKeyPair.generate(), SigningKey.generate(Use.RECEIPT)
        self.outboxes: dict[str, tuple[Outbox, HubKeys, Registration]] = {}
        for n in range(N_HUBS):
            hub = SendingHub(f"hub-{n}", f"subject-{n}").register(self.registry)
            keys = HubKeys(HubKey(bytes(32)), hub.device)
            recipients = {hub.subject: recipient.public}
            registration = Registration(hub.name, "main", ACK_KEY.public, receipt.public, 24, START_S - 1, recipients)
            outbox = Outbox.open(
                folder / f"{hub.name}.db",
                hub=hub.name,
                subject=hub.subject,
                keys=keys,
                registration=registration,
                clock=lambda: START_S,
            )
            stack.enter_context(closing(outbox))
            self.outboxes[hub.name] = outbox, keys, registration

    async def run(self, seconds: int) -> tuple[Broker, list[Uplink], list[float]]:
        """Let the hubs store data for so long, with an alert of one of them every 7 s, and then send everything.

        Returns the broker, the uplinks, and how long each alert took to be acknowledged.
        """
        broker, uplinks, delays, processor = Broker(), list[Uplink](), list[float](), asyncio.Lock()

        async def call(function: Callable[..., Any], /, *values: Any) -> Any:
            await use_processor(processor, self.handling_s * len(values[3]))  # the messages of the group
            return function(*values)

        async def put_alert(outbox: Outbox, uplink: Uplink) -> None:
            outbox.put("alert", b"a")
            uplink.wake()
            began_s = asyncio.get_running_loop().time()
            while outbox.statistics().pending["alert"]:
                await asyncio.sleep(0.1)
            delays.append(asyncio.get_running_loop().time() - began_s)

        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(
                    run_ingest(self.store, self.registry, ACK_KEY, broker, lambda: None, now_us=lambda: NOW_US, call=call)
                )
            ]
            for name, (outbox, keys, registration) in self.outboxes.items():
                broker.hubs[name] = HubEnd(broker)
                uplink = Uplink(
                    outbox,
                    broker.hubs[name],
                    hub=name,
                    keys=keys,
                    registration=registration,
                    call=call_inline,
                    callbacks=UplinkCallbacks(),
                )
                uplinks.append(uplink)
                running.append(tasks.create_task(uplink.run()))
            alerts = list[asyncio.Task[None]]()
            for second in range(seconds):
                for n, (outbox, _, _) in enumerate(self.outboxes.values()):
                    outbox.put("vital", b"v")
                    uplinks[n].wake()
                if second % 7 == 0:
                    n = second % N_HUBS
                    outbox, _, _ = self.outboxes[f"hub-{n}"]
                    alerts.append(tasks.create_task(put_alert(outbox, uplinks[n])))
                await asyncio.sleep(1.0)
            await asyncio.gather(*alerts)
            while not self.is_drained():
                await asyncio.sleep(5.0)
            for task in running:
                task.cancel()
        return broker, uplinks, delays

    def is_drained(self) -> bool:
        return not any(any(outbox.statistics().pending.values()) for outbox, _, _ in self.outboxes.values())


@pytest.fixture
def overload(tmp_path: Path) -> Iterator[Overload]:
    with ExitStack() as stack:
        yield Overload(tmp_path, stack)


def test_an_overloaded_clinic_slows_hubs_down_and_loses_nothing(overload: Overload) -> None:
    broker, uplinks, delays = run(overload.run(28))
    assert overload.store.count_blocks() == 28 * N_HUBS + 4
    assert len(delays) == 4
    assert max(delays) < 1.5  # twice its own time, and again if two alerts come together; nothing waits before it
    assert broker.longest <= N_HUBS * (MAX_MESSAGES + 1)
    assert sum(uplink.statistics.pauses for uplink in uplinks) > 0


def test_a_clinic_that_keeps_up_never_slows_a_hub_down(overload: Overload) -> None:
    overload.handling_s = 0.02
    _, uplinks, delays = run(overload.run(8))
    assert [uplink.statistics.pauses for uplink in uplinks] == [0] * N_HUBS
    assert [uplink.statistics.resent for uplink in uplinks] == [0] * N_HUBS
    assert max(delays) < 0.5
