"""Pairing through an agent of our own, on the fake BlueZ with bleak unmodified.

Not covered: bluetoothd, the kernel and real radio. The docstring of `fake_bluez` says what it leaves out.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from bleak import BleakClient
from bleak.exc import BleakError
from bumble.keys import MemoryKeyStore
from bumble.pairing import PairingDelegate
from dbus_fast import Message, MessageType

from gateway.radio import PairingError, StaleBondError
from gateway.radio.bluez_agent import AGENT_PATH, BlueZAgent
from tests.bluez.cuff_testbed import CUFF_PATH, STRONG, WEAK, call, open_bus, open_cuff, receive_all
from tests.bluez.dbus_objects import AGENT_MANAGER, DEVICE
from tests.bluez.fake_agents import AGENT
from tests.bluez.passkey_cuff import CUFF
from tests.bluez.testbed import run_test, wait_until
from tests.radio.pairing_people import DISPLAY, KEYBOARD, NOTHING, PASSKEY, YES_NO, AbsentPerson, Answers


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
