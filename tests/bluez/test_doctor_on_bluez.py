"""`pulsegate doctor` and its check of the adapter, on the fake BlueZ."""

from pathlib import Path

from dbus_fast import Variant

from gateway.commands.doctor import check_radio, check_radios
from gateway.radio import open_radio
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink
from tests.bluez.cuff_testbed import call, open_bus
from tests.bluez.dbus_objects import ADAPTER, PROPERTIES
from tests.bluez.fake_bluez import ADAPTER_PATH
from tests.bluez.testbed import run_bluez, run_test


def test_the_adapter_is_checked_without_disturbing_the_agent(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with run_bluez(VirtualLink(), bus, tmp_path), open_bus(bus) as other:
            async with open_radio("bluetooth") as radio:
                adapter = await check_radio("bluetooth")
                assert (adapter.state, adapter.detail) == ("ok", f"hci0 {VIRTUAL_HUB_ADDRESS} is on, and this user may use it")
                absent = await check_radio("bluetooth:hci1")
                assert (absent.state, absent.remedy) == ("failed", "plug it in, or set `radio`")
                checks = await check_radios(("bluetooth:hci0", "bluetooth:hci1"))
                assert [(check.name, check.state) for check in checks[:2]] == [("adapter", "ok"), ("adapter 2", "failed")]
                assert not radio.lost.is_set()
            await call(other, ADAPTER_PATH, PROPERTIES, "Set", "ssv", ADAPTER, "Powered", Variant("b", False))
            off = await check_radio("bluetooth:hci0")
            assert off.state == "failed"
            assert "bluetoothctl power on" in off.remedy
        gone = await check_radio("bluetooth")
        assert (gone.state, gone.detail) == ("failed", "no Bluetooth service answers")

    run_test(main())
