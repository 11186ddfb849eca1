"""Pairing through an agent of our own, and the end of bluetoothd or of the adapter, on the fake BlueZ with bleak unmodified.

Not covered: bluetoothd, the kernel and real radio. The docstring of `fake_bluez` says what it leaves out.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.exc import BleakError
from bumble.keys import MemoryKeyStore
from bumble.pairing import PairingDelegate
from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from gateway.errors import RadioError
from gateway.radio import Bond, PairingError, Radio, StaleBondError, bluez_adapter, open_radio
from gateway.radio.bluez_agent import AGENT_PATH, BlueZAgent
from gateway.radio.virtual import VirtualLink
from tests.bluez.dbus_objects import ADAPTER, AGENT_MANAGER, BLUEZ, DEVICE, PROPERTIES
from tests.bluez.fake_agents import AGENT
from tests.bluez.fake_bluez import ADAPTER_PATH, FakeBlueZ
from tests.bluez.passkey_cuff import CUFF, CUFF_NAME, RESULT, PasskeyCuff, run_cuff
from tests.bluez.testbed import run_bluez, run_test, wait_until
from tests.radio.pairing_people import DISPLAY, KEYBOARD, NOTHING, PASSKEY, YES_NO, AbsentPerson, Answers

CUFF_PATH = f"{ADAPTER_PATH}/dev_{CUFF.replace(':', '_')}"
STRONG, WEAK = -50, -95


@dataclass
class CuffTestbed:
    link: VirtualLink
    cuff: PasskeyCuff
    bluez: FakeBlueZ
    radio: Radio
    answers: Answers
    clients: list[BleakClient] = field(default_factory=list)

    async def find(self) -> BLEDevice:
        device = await self.radio.find(lambda _, advertisement: advertisement.local_name == CUFF_NAME, 5)
        assert device is not None
        return device

    async def pair(self) -> None:
        await self.radio.pair(await self.find(), self.answers)

    async def connect(
        self, rssi_dbm: int = STRONG, losses: list[BleakClient] | None = None, timeout_s: float = 5
    ) -> BleakClient:
        lost = [] if losses is None else losses
        self.clients.append(await self.radio.connect(await self.find(), lost.append, timeout_s, rssi_dbm))
        return self.clients[-1]

    async def disconnect(self) -> None:
        """Disconnect all clients, those too whose link was lost: only this closes their bus."""
        for client in self.clients:
            await client.disconnect()


@asynccontextmanager
async def open_cuff(
    bus: str, folder: Path, capability: PairingDelegate.IoCapability = DISPLAY, answers: Answers | None = None
) -> AsyncIterator[CuffTestbed]:
    link, answers = VirtualLink(), answers or Answers()
    async with (
        run_cuff(link, folder, capability, answers) as cuff,
        run_bluez(link, bus, folder) as bluez,
        open_radio("bluetooth") as radio,
    ):
        testbed = CuffTestbed(link, cuff, bluez, radio, answers)
        try:
            yield testbed
        finally:
            await testbed.disconnect()


@pytest.mark.parametrize("capability", [NOTHING, DISPLAY, KEYBOARD, YES_NO])
def test_the_agent_answers_each_method(bus: str, tmp_path: Path, capability: PairingDelegate.IoCapability) -> None:
    async def main() -> None:
        async with open_cuff(bus, tmp_path, capability) as testbed:
            await testbed.pair()
            answers = testbed.answers
            assert answers.asked == (capability is DISPLAY)
            assert len(answers.shown) == (capability is KEYBOARD)
            assert answers.compared == testbed.cuff.delegate.compared
            assert len(answers.compared) == (capability is YES_NO)
            ((_, keys),) = await testbed.cuff.device.keystore.get_all()
            assert keys.ltk.authenticated == (capability is not NOTHING)
            assert [bond.address for bond in await testbed.radio.bonds()] == [CUFF]
            with pytest.raises(PairingError, match="paired already"):
                await testbed.pair()

    run_test(main())


@pytest.mark.parametrize(
    ("capability", "answers", "message"),
    [
        (DISPLAY, Answers(passkey=654_321), "refused the pairing: check the six digits"),
        (DISPLAY, Answers(passkey=None), "was cancelled"),
        (YES_NO, Answers(is_equal=False), "was cancelled"),
        (DISPLAY, AbsentPerson(), "not finished within 0.5 s"),
    ],
)
def test_a_failed_pairing_leaves_no_bond_and_the_next_one_works(
    bus: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capability: PairingDelegate.IoCapability,
    answers: Answers,
    message: str,
) -> None:
    if isinstance(answers, AbsentPerson):
        for module in ("bluez_adapter", "pairing"):
            monkeypatch.setattr(f"gateway.radio.{module}.PAIRING_TIMEOUT_S", 0.5)

    async def main() -> None:
        async with open_cuff(bus, tmp_path, capability, answers) as testbed:
            with pytest.raises(PairingError, match=message):
                await testbed.pair()
            assert await testbed.radio.bonds() == []
            await wait_until(lambda: not testbed.cuff.device.connections)
            testbed.answers = Answers()
            await testbed.pair()
            assert [bond.address for bond in await testbed.radio.bonds()] == [CUFF]

    run_test(main())


def test_a_bond_is_removed(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_cuff(bus, tmp_path) as testbed:
            await testbed.pair()
            losses: list[BleakClient] = []
            client = await testbed.connect(losses=losses)
            assert await testbed.radio.unpair(CUFF)
            await wait_until(lambda: losses == [client])
            assert not await testbed.radio.unpair(CUFF)
            assert await testbed.radio.bonds() == []
            await testbed.pair()
            assert testbed.answers.asked == 2

    run_test(main())


def test_a_forgotten_bond_is_told_from_a_weak_signal(bus: str, tmp_path: Path) -> None:
    """BlueZ says le-connection-abort-by-local, and bleak retries without a word until its timeout."""

    async def main() -> None:
        async with open_cuff(bus, tmp_path) as testbed:
            await testbed.pair()
            await (await testbed.connect()).disconnect()
            testbed.cuff.device.keystore = MemoryKeyStore()
            with pytest.raises(TimeoutError):
                await testbed.connect(WEAK, timeout_s=0.5)
            started_s, losses = time.monotonic(), list[BleakClient]()
            with pytest.raises(StaleBondError, match=f"{CUFF} no longer knows this hub"):
                await testbed.connect(STRONG, losses)
            assert time.monotonic() - started_s < 5
            assert losses == []
            assert await testbed.radio.bonds() != []  # only the caller decides to remove it
            assert await testbed.radio.unpair(CUFF)
            await testbed.pair()
            assert (await testbed.connect()).is_connected

    run_test(main())


def test_a_lost_link_without_a_bond_is_not_a_stale_bond(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_cuff(bus, tmp_path) as testbed:
            device = await testbed.find()
            testbed.link.out_of_range.add(CUFF)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await testbed.radio.connect(device, lambda _client: None, 0.2, STRONG)
            testbed.link.out_of_range.clear()
            assert (await testbed.connect()).is_connected

    run_test(main())


@pytest.mark.parametrize("capability", [NOTHING, DISPLAY])
def test_bleaks_own_pairing_works_where_nobody_is_asked(
    bus: str, tmp_path: Path, capability: PairingDelegate.IoCapability
) -> None:
    """A session pairs so, on its connection; a passkey is only taken by `Radio.pair`."""

    async def main() -> None:
        async with open_cuff(bus, tmp_path, capability) as testbed:
            client = await testbed.connect()
            if capability is NOTHING:
                await client.pair()
                await client.pair()  # does nothing
                await receive_all(client, testbed.cuff)
            else:
                with pytest.raises(BleakError, match="Authentication"):
                    await client.pair()
            assert testbed.answers.asked == 0
            assert len(await testbed.radio.bonds()) == (capability is NOTHING)

    run_test(main())


@asynccontextmanager
async def open_bus(address: str) -> AsyncIterator[MessageBus]:
    """Another program on the bus."""
    bus = await MessageBus(bus_address=address).connect()
    try:
        yield bus
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it untyped


async def call(bus: MessageBus, path: str, interface: str, member: str, signature: str = "", *body: Any) -> Message:
    return await bus.call(Message(BLUEZ, path, interface, member, signature=signature, body=list(body)))


def test_nobody_else_can_pair_through_our_agent(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_cuff(bus, tmp_path) as testbed, open_bus(bus) as other:
            await testbed.find()
            reply = await call(other, CUFF_PATH, DEVICE, "Pair")
            assert (reply.message_type, reply.error_name) == (MessageType.ERROR, "org.bluez.Error.AuthenticationFailed")
            assert testbed.answers.asked == 0
            assert await testbed.radio.bonds() == []

    run_test(main())


def test_a_question_is_withdrawn_when_the_sensor_goes_away(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        person = AbsentPerson()
        async with open_cuff(bus, tmp_path, DISPLAY, person) as testbed:
            pairing = asyncio.create_task(testbed.pair())
            await wait_until(lambda: person.asked == 1)
            testbed.link.simulate_link_loss(CUFF)
            with pytest.raises(BleakError):
                await asyncio.wait_for(pairing, 5)
            await wait_until(lambda: person.cancelled == 1)

    run_test(main())


def test_a_question_about_another_device_is_refused_during_a_pairing(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_bus(bus) as ours, open_bus(bus) as bluez:
            agent, answers = BlueZAgent(ours), Answers()

            async def ask(member: str, device: str) -> Message:
                message = Message(ours.unique_name, AGENT_PATH, AGENT, member, signature="o", body=[device])
                return await bluez.call(message)

            with agent.answering(CUFF_PATH, answers):
                stranger = await ask("RequestPasskey", f"{CUFF_PATH}_0")
                assert stranger.error_name == "org.bluez.Error.Rejected"
                assert (await ask("RequestPinCode", CUFF_PATH)).error_name == "org.bluez.Error.Rejected"
                assert not agent.is_cancelled
                assert (await ask("RequestPasskey", CUFF_PATH)).body == [PASSKEY]
                assert (await ask("RequestAuthorization", CUFF_PATH)).message_type is MessageType.METHOD_RETURN
            for member in ("RequestPasskey", "RequestAuthorization"):
                assert (await ask(member, CUFF_PATH)).error_name == "org.bluez.Error.Rejected"
            assert answers.asked == 1
            await agent.close()

    run_test(main())


def test_bluez_withdraws_a_question_by_cancel(bus: str) -> None:
    async def main() -> None:
        async with open_bus(bus) as ours, open_bus(bus) as bluez:
            agent, person = BlueZAgent(ours), AbsentPerson()

            def ask(member: str, signature: str = "", *body: Any) -> asyncio.Task[Message]:
                message = Message(ours.unique_name, AGENT_PATH, AGENT, member, signature=signature, body=list(body))
                return asyncio.create_task(bluez.call(message))

            with agent.answering(CUFF_PATH, person):
                question = ask("RequestPasskey", "o", CUFF_PATH)
                await wait_until(lambda: person.asked == 1)
                await ask("Cancel")
                assert (await question).error_name == "org.bluez.Error.Canceled"
                assert person.cancelled == 1
                await ask("DisplayPasskey", "ouq", CUFF_PATH, 42, 0)
                await ask("DisplayPasskey", "ouq", CUFF_PATH, 42, 1)  # the first digit was entered
                assert person.shown == [42]
            await agent.close()

    run_test(main())


def test_our_agent_is_asked_although_another_program_registered_the_default_one(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_cuff(bus, tmp_path) as testbed, open_bus(bus) as other:
            await call(other, "/org/bluez", AGENT_MANAGER, "RegisterAgent", "os", "/other", "KeyboardDisplay")
            await call(other, "/org/bluez", AGENT_MANAGER, "RequestDefaultAgent", "o", "/other")
            await testbed.pair()
            assert testbed.answers.asked == 1

    run_test(main())


def test_pair_stream_spot_reading_link_loss_and_a_killed_bluetoothd(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        link, answers = VirtualLink(), Answers(PASSKEY)
        async with run_cuff(link, tmp_path, DISPLAY, answers) as cuff, AsyncExitStack() as bluetoothd:
            bluez = await bluetoothd.enter_async_context(run_bluez(link, bus, tmp_path))
            async with open_radio("bluetooth") as radio:
                testbed = CuffTestbed(link, cuff, bluez, radio, answers)
                await testbed.pair()
                losses: list[BleakClient] = []
                for expected_losses in (1, 2):
                    client = await testbed.connect(losses=losses)
                    await receive_all(client, cuff)
                    if expected_losses == 1:
                        link.simulate_link_loss(CUFF)
                        await wait_until(lambda: losses == [client])  # noqa: B023  awaited within the loop
                        await client.disconnect()  # only this closes the client's bus, and so ends its subscriptions
                        assert not radio.lost.is_set()
                killed_s = time.monotonic()
                await bluetoothd.aclose()
                await asyncio.wait_for(radio.lost.wait(), 5)
                assert losses == [losses[0], client]
                assert not client.is_connected
                await testbed.disconnect()
            with pytest.raises(RadioError, match="no Bluetooth service answers"):
                async with open_radio("bluetooth"):
                    pass
            bluez = await bluetoothd.enter_async_context(run_bluez(link, bus, tmp_path))
            async with open_radio("bluetooth") as radio:
                testbed = CuffTestbed(link, cuff, bluez, radio, answers)
                assert await radio.bonds() == [Bond(CUFF, CUFF.replace(":", "-"))]
                await receive_all(await testbed.connect(), cuff)
                await testbed.disconnect()
            assert time.monotonic() - killed_s < 10
            assert answers.asked == 1

    run_test(main())


async def receive_all(client: BleakClient, cuff: PasskeyCuff) -> None:
    """Subscribe to the pulse and to the results, and receive one value of each, once."""
    values: list[bytes] = []
    for uuid in ("2a37", "2a35"):
        await client.start_notify(uuid, lambda _, value: values.append(bytes(value)))
    await cuff.send_pulse(61)
    await cuff.send_result()
    await wait_until(lambda: len(values) == 2)
    assert values == [bytes([0, 61]), RESULT]


def test_an_unplugged_adapter_loses_the_radio(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_cuff(bus, tmp_path) as testbed:
            testbed.bluez.remove_adapter()
            await asyncio.wait_for(testbed.radio.lost.wait(), 5)
            with pytest.raises(RadioError, match="no Bluetooth adapter: plug one in"):
                async with open_radio("bluetooth"):
                    pass

    run_test(main())


def test_an_adapter_that_somebody_switches_off_is_reopened_and_switched_on(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_cuff(bus, tmp_path, NOTHING) as testbed, open_bus(bus) as other:
            await call(other, ADAPTER_PATH, PROPERTIES, "Set", "ssv", ADAPTER, "Powered", Variant("b", False))
            await asyncio.wait_for(testbed.radio.lost.wait(), 5)
            async with open_radio("bluetooth") as testbed.radio:
                assert (await testbed.connect()).is_connected
                assert not testbed.radio.lost.is_set()
                await testbed.disconnect()

    run_test(main())


def test_a_power_cycle_ends_the_links_and_the_radio(bus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bluez_adapter, "POWER_OFF_S", 0.1)

    async def main() -> None:
        async with open_cuff(bus, tmp_path, NOTHING) as testbed, open_bus(bus) as other:
            losses: list[BleakClient] = []
            client = await testbed.connect(losses=losses)
            cycling = asyncio.create_task(testbed.radio.power_cycle())
            await wait_until(lambda: losses == [client])
            assert not testbed.radio.lost.is_set()
            await cycling
            assert testbed.radio.lost.is_set()
            assert not testbed.cuff.device.connections
            reply = await call(other, ADAPTER_PATH, PROPERTIES, "Get", "ss", ADAPTER, "Powered")
            assert reply.body == [Variant("b", True)]
            async with open_radio("bluetooth") as testbed.radio:
                assert (await testbed.connect()).is_connected
                await testbed.disconnect()

    run_test(main())


def test_the_adapter_is_chosen_by_its_name_and_switched_on(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        link = VirtualLink()
        async with run_cuff(link, tmp_path, NOTHING, Answers()) as cuff, run_bluez(link, bus, tmp_path) as bluez:
            async with open_bus(bus) as other:
                await call(other, ADAPTER_PATH, PROPERTIES, "Set", "ssv", ADAPTER, "Powered", Variant("b", False))
            async with open_radio("bluetooth:hci0") as radio:
                assert radio.name == "bluetooth:hci0"
                testbed = CuffTestbed(link, cuff, bluez, radio, Answers())
                assert (await testbed.find()).address == CUFF
            with pytest.raises(RadioError, match="no Bluetooth adapter hci1, but hci0"):
                async with open_radio("bluetooth:hci1"):
                    pass

    run_test(main())
