"""The end of bluetoothd or of the adapter, and the choice of one, on the fake BlueZ with bleak unmodified."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from bleak import BleakClient, BleakScanner
from bleak.exc import BleakDBusError
from dbus_fast import Variant

from gateway.errors import RadioError
from gateway.radio import Bond, bluez_adapter, health, open_radio
from gateway.radio.virtual import VirtualLink
from tests.bluez.cuff_testbed import CuffTestbed, call, open_bus, open_cuff, receive_all
from tests.bluez.dbus_objects import ADAPTER, PROPERTIES
from tests.bluez.fake_bluez import ADAPTER_PATH
from tests.bluez.passkey_cuff import CUFF, run_cuff
from tests.bluez.testbed import run_bluez, run_test, wait_until
from tests.radio.pairing_people import DISPLAY, NOTHING, PASSKEY, Answers


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


def test_an_adapter_whose_scan_hangs_is_switched_off_and_on_by_itself(
    bus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every scan fails with InProgress until the adapter was switched off."""
    monkeypatch.setattr(bluez_adapter, "POWER_OFF_S", 0.1)
    monkeypatch.setattr(health, "STUCK_AFTER_S", 0.5)

    async def main() -> None:
        async with open_cuff(bus, tmp_path, NOTHING) as testbed:
            with monkeypatch.context() as patched:

                async def hang(_scanner: object) -> None:
                    raise BleakDBusError("org.bluez.Error.InProgress", ["Operation already in progress"])

                patched.setattr(BleakScanner, "start", hang)
                while not testbed.radio.lost.is_set():
                    with pytest.raises(BleakDBusError, match="InProgress"):
                        await testbed.radio.find(lambda *_: True, 1)
                    await testbed.radio.recover()
                    await asyncio.sleep(0.05)
            assert testbed.radio.hung.is_set()
            async with open_radio("bluetooth") as testbed.radio:
                assert (await testbed.connect()).is_connected
                await testbed.disconnect()

    run_test(main())
    assert [record.getMessage() for record in caplog.records if record.name == "gateway.radio.radio"] == [
        "radio: bluetooth refuses everything (it is busy, or not ready): it is switched off and on"
    ]


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
