"""The emulated cuff as a hub sees it, by a plain central that parses payloads itself."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest
from bumble.core import UUID, AdvertisingData, ProtocolError
from bumble.hci import HCI_Error
from bumble.pairing import PairingConfig, PairingDelegate

from gateway import virtual_time
from gateway.radio.virtual import VirtualLink
from gateway.simulate.peripherals.cuff import (
    AND_CONTROL,
    AND_CUFF,
    AND_SEND_ALL,
    IRREGULAR_PULSE,
    MEDISANA_CUFF,
    STANDARD_CUFF,
    Cuff,
    CuffModel,
)
from gateway.simulate.peripherals.sent_values import audit_values
from gateway.simulate.peripherals.services import follow_loop
from tests.simulate.plain_hub import START, PlainHub, att_error_of, make_sensor_device, now_s, run_sensor

PRESSURE, CUFF_PRESSURE, FEATURE, TIME, DATE_TIME = "2A35", "2A36", "2A49", "2A2B", "2A08"


def run_with_cuff(scenario: Callable[[Cuff, PlainHub], Awaitable[None]], model: CuffModel = STANDARD_CUFF) -> None:
    async def run() -> None:
        link = VirtualLink()
        cuff = Cuff(make_sensor_device(link), follow_loop(START), model)
        async with run_sensor(link, cuff) as hub:
            await scenario(cuff, hub)

    virtual_time.run(run())


def systolic(payload: bytes) -> int:
    return int(struct.unpack_from("<H", payload, 1)[0])


async def bond(cuff: Cuff, hub: PlainHub) -> None:
    """Pair and subscribe, as at the first transfer, and wait until the cuff leaves."""
    cuff.press_button()
    connection = await hub.connect()
    await connection.pair()
    await hub.subscribe(PRESSURE)
    await hub.wait_disconnected()


def test_the_cuff_advertises_only_for_a_while_after_a_measurement() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        assert await hub.wait_advertisement() is None
        await cuff.measure(120, 80, 70)
        advertisement = await hub.wait_advertisement()
        assert advertisement.data.get(AdvertisingData.Type.COMPLETE_LOCAL_NAME) == STANDARD_CUFF.name
        services = advertisement.data.get(AdvertisingData.Type.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS)
        assert services == [UUID.from_16_bits(0x1810)]
        await asyncio.sleep(31)
        assert await hub.wait_advertisement() is None

    run_with_cuff(scenario)


def test_a_result_is_indicated_once_and_the_cuff_leaves_within_3_s() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await cuff.measure(128, 82, 71, status=IRREGULAR_PULSE, user=2)
        connection = await hub.connect()
        await connection.pair()
        await hub.subscribe(PRESSURE)
        await hub.wait_disconnected()
        ((received_s, _, payload),) = hub.received
        assert payload.hex(" ") == "1e 80 00 52 00 61 00 ea 07 0b 1e 08 00 00 47 00 02 04 00"
        assert now_s() - received_s <= 3
        assert cuff.sent.confirmed(PRESSURE) == [payload]
        assert await hub.wait_advertisement() is None
        cuff.press_button()
        await hub.connect()
        await hub.connection.encrypt()  # type: ignore[union-attr]
        await hub.wait_disconnected()
        assert len(hub.received) == 1

    run_with_cuff(scenario)


def test_a_bonded_hub_gets_the_result_before_it_subscribes() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await bond(cuff, hub)
        await cuff.measure(131, 84, 66)
        connection = await hub.connect(discover=False)
        hub.listen(PRESSURE)
        await connection.encrypt()
        await hub.wait_disconnected()
        assert list(map(systolic, hub.values(PRESSURE))) == [131]
        assert len(cuff.sent.confirmed(PRESSURE)) == 1

    run_with_cuff(scenario)


def test_a_new_pairing_begins_without_subscriptions() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await bond(cuff, hub)
        await cuff.measure(131, 84, 66)
        connection = await hub.connect(discover=False)
        hub.listen(PRESSURE)
        await connection.pair()
        await hub.wait_disconnected()
        assert hub.received == []
        assert now_s() < 20

    run_with_cuff(scenario)


def test_the_cuff_refuses_a_subscription_without_encryption_and_leaves() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await cuff.measure(120, 80, 70)
        await hub.connect()
        connected_s = now_s()
        assert await att_error_of(hub.subscribe(PRESSURE)) in (0x05, 0x0F)
        await hub.wait_disconnected()
        assert 1 <= now_s() - connected_s <= 10
        assert hub.received == []
        assert await hub.wait_advertisement() is not None  # it tries again while it is awake

    run_with_cuff(scenario)


def test_the_cuff_asks_for_security_as_soon_as_it_is_connected() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        asked: list[float] = []
        await cuff.measure(120, 80, 70)
        connection = await hub.connect(discover=False)
        connection.on("security_request", lambda _requirements: asked.append(now_s()))
        connected_s = now_s()
        await asyncio.sleep(0.1)
        assert len(asked) == 1
        assert asked[0] - connected_s < 0.05

    run_with_cuff(scenario)


def test_a_forgotten_bond_is_reported_as_a_missing_key() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await bond(cuff, hub)
        await cuff.forget_bond()
        await cuff.measure(120, 80, 70)
        connection = await hub.connect(discover=False)
        with pytest.raises(HCI_Error) as refused:
            await connection.encrypt()
        assert refused.value.error_code == 0x06

    run_with_cuff(scenario)


def test_a_result_without_confirmation_comes_again_and_once_is_enough() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await bond(cuff, hub)
        cuff.indicate_then_drop()
        await cuff.measure(140, 90, 80)
        for _ in range(2):
            connection = await hub.connect(discover=False)
            hub.listen(PRESSURE)
            await connection.encrypt()
            await hub.wait_disconnected()
        first, second = hub.values(PRESSURE)
        assert first == second
        assert [value.confirmed_s is None for value in cuff.sent.values] == [True, False]
        assert audit_values(cuff.sent, PRESSURE, {first}).passed
        assert audit_values(cuff.sent, PRESSURE, ()).missing == {first}
        assert audit_values(cuff.sent, PRESSURE, [first, first]).stored_twice == {first}
        assert audit_values(cuff.sent, PRESSURE, [first, b"other"]).invented == {b"other"}

    run_with_cuff(scenario)


def test_stored_results_of_several_users_come_together_oldest_first() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        for number, user in enumerate((1, 2, None)):
            await cuff.measure(120 + number, 80, 70, user=user)
            await asyncio.sleep(3600)
        await bond(cuff, hub)
        values = hub.values(PRESSURE)
        assert [(systolic(value), value[16]) for value in values] == [(120, 1), (121, 2), (122, 255)]
        assert [value[11] for value in values] == [8, 9, 10]

    run_with_cuff(scenario)


def test_a_failed_measurement_has_no_number() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await cuff.measure()
        await bond(cuff, hub)
        (value,) = hub.values(PRESSURE)
        assert value[1:7] == bytes.fromhex("ff07ff07ff07")
        assert value[14:16] == bytes.fromhex("ff07")
        assert value[17:] == bytes(2)

    run_with_cuff(scenario)


def test_the_clock_is_set_by_the_hub_and_runs_on() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        cuff.clock.reset()
        await cuff.measure(120, 80, 70)
        connection = await hub.connect()
        await connection.pair()
        assert (await hub.read(TIME))[:4] == bytes.fromhex("e3070101")
        assert await att_error_of(hub.write(TIME, bytes(9))) == 0x0D
        assert await att_error_of(hub.write(TIME, bytes.fromhex("ea07 0d 01 08 00 00 01 00 01"))) == 0x80
        await hub.write(TIME, bytes.fromhex("ea07 0b 1e 0c 00 00 01 00 01"))
        await asyncio.sleep(2)
        assert (await hub.read(TIME))[:8] == bytes.fromhex("ea07 0b 1e 0c 00 02 01")
        await hub.subscribe(PRESSURE)
        await asyncio.sleep(1)
        await cuff.measure(125, 80, 70)
        await hub.wait_disconnected()
        old, new = hub.values(PRESSURE)
        assert old[7:11] == bytes.fromhex("e3070101")
        assert new[7:12] == bytes.fromhex("ea070b1e0c")
        assert (TIME, bytes.fromhex("ea070b1e0c000001 0001")) in cuff.sent.writes
        cuff.clock.jump(86400)
        assert cuff.clock.now() == datetime(2026, 12, 1, 12, 0, round(now_s() - 0.4))  # noqa: DTZ001
        cuff.clock.reset(None)
        await cuff.measure(126, 80, 70)
        await bond(cuff, hub)
        assert hub.values(PRESSURE)[-1][7:14] == bytes(7)

    run_with_cuff(scenario)


def test_intermediate_pressures_are_notified_during_a_measurement() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await cuff.measure(120, 80, 70)
        connection = await hub.connect()
        await connection.pair()
        await hub.subscribe(PRESSURE, CUFF_PRESSURE)
        await asyncio.sleep(1)
        await cuff.measure(121, 80, 70)
        await hub.wait_disconnected()
        assert [systolic(value) for value in hub.values(CUFF_PRESSURE)] == [40, 90, 150]
        assert all(value[3:7] == bytes.fromhex("ff07ff07") for value in hub.values(CUFF_PRESSURE))
        assert [systolic(value) for value in hub.values(PRESSURE)] == [120, 121]

    run_with_cuff(scenario)


def test_a_medisana_dumps_its_history_each_time_without_a_bond() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        for number in range(9):
            await cuff.measure(120 + number, 80, 70)
        for _ in range(2):
            await hub.connect()
            await hub.subscribe(PRESSURE)
            await hub.wait_disconnected()
            cuff.press_button()
        assert [systolic(value) for value in hub.values(PRESSURE)] == [*range(128, 119, -1)] * 2

    run_with_cuff(scenario, MEDISANA_CUFF)


def test_an_and_cuff_has_its_own_clock_and_control_point_and_no_current_time() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await cuff.measure(120, 80, 70)
        await cuff.enter_pairing_mode()
        connection = await hub.connect(discover=False)
        await connection.pair()
        await hub.discover()
        assert TIME not in hub.characteristics
        await hub.write(AND_CONTROL, AND_SEND_ALL)
        assert await att_error_of(hub.write(AND_CONTROL, b"\x02\x03\x00")) == 0x0E
        await hub.write(DATE_TIME, bytes.fromhex("dd07 08 1a 09 0a 14"))
        assert await hub.read(DATE_TIME) == bytes.fromhex("dd07 08 1a 09 0a 14")
        assert await att_error_of(hub.write(DATE_TIME, bytes(10))) == 0x0D
        await hub.subscribe(PRESSURE)
        await hub.wait_disconnected()
        (value,) = hub.values(PRESSURE)
        assert value[0] == 0x16  # no user
        assert len(value) == 18

    run_with_cuff(scenario, AND_CUFF)


def test_an_and_cuff_switches_off_when_an_unbonded_hub_discovers_it() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await cuff.measure(120, 80, 70)
        discovery = asyncio.create_task(hub.connect())
        await asyncio.sleep(1)
        assert hub.disconnected.is_set()
        discovery.cancel()
        assert await hub.wait_advertisement() is None

    run_with_cuff(scenario, AND_CUFF)


def test_an_and_cuff_pairs_only_in_its_pairing_mode() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await cuff.measure(120, 80, 70)
        assert (await hub.wait_advertisement()).data.get(AdvertisingData.Type.FLAGS) == 0x06
        connection = await hub.connect(discover=False)
        with pytest.raises(ProtocolError, match="PAIRING_NOT_SUPPORTED"):
            await connection.pair()
        await hub.wait_disconnected()
        await cuff.enter_pairing_mode()
        assert (await hub.wait_advertisement()).data.get(AdvertisingData.Type.FLAGS) == 0x05
        connection = await hub.connect(discover=False)
        await connection.pair()
        await cuff.leave_pairing_mode()
        await hub.wait_disconnected()
        assert (await hub.wait_advertisement()).data.get(AdvertisingData.Type.FLAGS) == 0x06
        connection = await hub.connect(discover=False)
        await connection.encrypt()
        await hub.discover()

    run_with_cuff(scenario, AND_CUFF)


def test_a_cuff_with_a_display_pairs_by_the_number_that_it_shows() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        cuff.pairing.passkey = 305_217
        typed = 111_111

        class Keyboard(PairingDelegate):  # type: ignore[misc]
            async def get_number(self) -> int:
                return typed

        keyboard = Keyboard(PairingDelegate.IoCapability.KEYBOARD_INPUT_ONLY)
        hub.device.pairing_config_factory = lambda _connection: PairingConfig(sc=True, mitm=True, delegate=keyboard)
        await cuff.measure(120, 80, 70)
        connection = await hub.connect()
        with pytest.raises(ProtocolError):
            await connection.pair()
        await hub.wait_disconnected()
        assert cuff.pairing.shown is not None
        typed = cuff.pairing.shown
        connection = await hub.connect()
        await connection.pair()
        await hub.subscribe(PRESSURE)
        await hub.wait_disconnected()
        assert len(hub.values(PRESSURE)) == 1

    run_with_cuff(scenario)


def test_kilopascals_have_one_decimal() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await cuff.measure(120, 80, 70)
        await bond(cuff, hub)
        (value,) = hub.values(PRESSURE)
        assert value[0] & 1
        assert struct.unpack_from("<3H", value, 1) == (0xF000 | 160, 0xF000 | 107, 0xF000 | 124)

    run_with_cuff(scenario, CuffModel("pulsegate", "Virtual BP", "kPa", in_kpa=True))


def test_a_hub_that_never_confirms_is_dropped_and_the_result_kept() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub) -> None:
        await bond(cuff, hub)
        await cuff.measure(120, 80, 70)
        connection = await hub.connect(discover=False)
        connection.gatt_client.on_att_handle_value_indication = lambda _indication: None
        await connection.encrypt()
        await hub.wait_disconnected()
        assert cuff.sent.confirmed(PRESSURE) == []
        assert not cuff.memory[-1].is_confirmed

    run_with_cuff(scenario)
