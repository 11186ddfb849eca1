"""Scenarios of faults: their text, random ones, and what each fault does to a sensor that a plain hub is connected to."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import virtual_time
from gateway.radio.virtual import VirtualLink
from gateway.simulate import pmd
from gateway.simulate.peripherals.armband import Armband
from gateway.simulate.peripherals.cuff import Cuff
from gateway.simulate.peripherals.peripheral import Peripheral
from gateway.simulate.peripherals.services import follow_loop
from gateway.simulate.peripherals.watch import Watch
from gateway.simulate.playback import SensorClock
from gateway.simulate.scenario import (
    KINDS,
    Fault,
    ScenarioError,
    Stage,
    check_scenario,
    draw_faults,
    parse_scenario,
    play_scenario,
)
from tests.simulate.plain_hub import START, PlainHub, make_sensor_device, now_s, run_sensor

TEXT = """
[[fault]]
at_s = 20
kind = "away"
sensor = "watch"
amount = 5

[[fault]]
at_s = 10.5
kind = "adapter_gone"
"""


def test_a_scenario_is_parsed_and_sorted_by_time() -> None:
    assert parse_scenario("test", TEXT) == (Fault(10.5, "adapter_gone"), Fault(20, "away", "watch", 5))
    assert Fault(0, "away", "watch").value == 30.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[fault]]\nkind = 'loss'", r"scenario test: fault 1: .*at_s"),
        ("[[fault]]\nat_s = 1\nkind = 'wrong'", r"fault 1: kind 'wrong' is not one of loss, away, zombie"),
        ("[[fault]]\nat_s = 1\nkind = 'loss'\n[[fault]]\nat_s = -1\nkind = 'loss'", r"fault 2: at_s -1"),
        ("[[fault]]\nat_s = 1\nkind = 'loss'\ncolour = 1", r"fault 1: .*colour"),
        ("[[fault]]\nat_s = '1'\nkind = 'loss'", r"fault 1"),
        ("not toml", r"scenario test"),
        ("", r"scenario test: 'fault'"),
    ],
)
def test_a_wrong_scenario_is_refused_with_the_fault_and_the_reason(text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse_scenario("test", text)


async def run_stage(
    make: Callable[[VirtualLink], Peripheral], scenario: Callable[[Any, PlainHub, Stage], Awaitable[None]]
) -> None:
    link, unplugged = VirtualLink(), list[float]()
    sensor = make(link)
    async with run_sensor(link, sensor) as hub:
        stage = Stage(link, {"sensor": sensor}, lambda: unplugged.append(now_s()))
        await scenario(sensor, hub, stage)
        assert len(unplugged) <= 1


def make_watch(link: VirtualLink) -> Watch:
    return Watch(make_sensor_device(link), follow_loop(START))


def make_cuff(link: VirtualLink) -> Cuff:
    return Cuff(make_sensor_device(link), follow_loop(START))


def make_armband(link: VirtualLink) -> Armband:
    return Armband(make_sensor_device(link), SensorClock.set_to(1_764_000_000 * 10**9, 0.0))


def run(make: Callable[[VirtualLink], Peripheral], scenario: Callable[[Any, PlainHub, Stage], Awaitable[None]]) -> None:
    virtual_time.run(run_stage(make, scenario))


def test_a_loss_breaks_the_link_at_its_time() -> None:
    async def scenario(_watch: Watch, hub: PlainHub, stage: Stage) -> None:
        await hub.connect()
        start_s = now_s()
        playing = asyncio.create_task(play_scenario([Fault(7.0, "loss", "sensor")], stage))
        await hub.wait_disconnected()
        assert now_s() - start_s == pytest.approx(7.0, abs=0.1)
        await playing
        assert await hub.wait_advertisement() is not None

    run(make_watch, scenario)


def test_a_sensor_that_is_away_comes_back_by_itself() -> None:
    async def scenario(_watch: Watch, hub: PlainHub, stage: Stage) -> None:
        await hub.connect()
        start_s = now_s()
        playing = asyncio.create_task(play_scenario([Fault(1.0, "away", "sensor", 20.0)], stage))
        await hub.wait_disconnected()
        assert await hub.wait_advertisement(10) is None
        assert await hub.wait_advertisement(20) is not None
        assert now_s() - start_s == pytest.approx(21, abs=0.5)
        await playing

    run(make_watch, scenario)


def test_a_zombie_keeps_its_link_and_is_silent() -> None:
    async def scenario(_watch: Watch, hub: PlainHub, stage: Stage) -> None:
        await hub.connect()
        await hub.subscribe("2A37", indications=False)
        await play_scenario([Fault(2.0, "zombie", "sensor", 30.0)], stage)
        assert not hub.disconnected.is_set()
        before = len(hub.received)
        assert before <= 3
        await asyncio.sleep(5)
        assert len(hub.received) - before == pytest.approx(5, abs=1)

    run(make_watch, scenario)


def test_bonds_clocks_and_failed_measurements() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub, stage: Stage) -> None:
        await cuff.measure(120, 80, 70)
        connection = await hub.connect()
        await connection.pair()
        await hub.subscribe("2A35")
        await hub.wait_disconnected()
        await play_scenario([Fault(0.0, "clock_jump", "sensor", -600.0)], stage)
        shown = cuff.clock.now()
        assert shown is not None
        assert abs(shown - (START + timedelta(seconds=now_s() - 600))) <= timedelta(seconds=1)
        faults = [Fault(0.0, "forget_bond", "sensor"), Fault(0.1, "clock_wrong", "sensor"), Fault(0.2, "nan_bp", "sensor")]
        await play_scenario(faults, stage)
        connection = await hub.connect(discover=False)
        with pytest.raises(Exception, match="PIN_OR_KEY_MISSING"):
            await connection.encrypt()
        await connection.pair()
        await hub.discover()
        await hub.subscribe("2A35")
        await hub.wait_disconnected()
        failed = hub.values("2A35")[-1]
        assert failed[1:7].hex() == "ff07ff07ff07"
        assert failed[7:11].hex() == "e3070101"

    run(make_cuff, scenario)


def test_an_indication_may_be_the_last_word() -> None:
    async def scenario(cuff: Cuff, hub: PlainHub, stage: Stage) -> None:
        await play_scenario([Fault(0.0, "indicate_then_drop", "sensor", 2.0)], stage)
        await cuff.measure(120, 80, 70)
        for _ in range(3):
            connection = await hub.connect()
            await connection.pair()
            await hub.subscribe("2A35")
            await hub.wait_disconnected()
        assert len(set(hub.values("2A35"))) == 1
        assert [value.confirmed_s is None for value in cuff.sent.values] == [True, True, False]

    run(make_cuff, scenario)


async def start_acceleration(hub: PlainHub) -> None:
    connection = await hub.connect()
    await connection.pair()
    await hub.subscribe(pmd.CONTROL_POINT)
    await hub.subscribe(pmd.DATA, indications=False)
    await hub.write(pmd.CONTROL_POINT, bytes.fromhex("02020001340001011000020108000401 03"))


def test_frames_are_skipped_and_come_late() -> None:
    async def scenario(_armband: Armband, hub: PlainHub, stage: Stage) -> None:
        await start_acceleration(hub)
        await play_scenario([Fault(2.0, "skip_frame", "sensor", 3.0), Fault(6.0, "late_burst", "sensor", 4.0)], stage)
        await asyncio.sleep(10)
        frames = [(at_s, int.from_bytes(value[1:9], "little") / 1e9) for at_s, uuid, value in hub.received if uuid == pmd.DATA]
        steps = [round((after[1] - before[1]) * 52 / 20) for before, after in pairwise(frames)]
        assert sorted(steps)[-2:] == [1, 4]
        delays = [at_s - measured_s for at_s, measured_s in frames]
        assert max(delays) - min(delays) == pytest.approx(4.0, abs=0.5)

    run(make_armband, scenario)


def test_the_clock_of_frames_jumps_and_restarts_in_2019() -> None:
    async def scenario(_armband: Armband, hub: PlainHub, stage: Stage) -> None:
        await start_acceleration(hub)
        await play_scenario([Fault(3.0, "clock_jump", "sensor", -60.0), Fault(6.0, "clock_wrong", "sensor")], stage)
        await asyncio.sleep(3)
        times_s = [int.from_bytes(value[1:9], "little") / 1e9 for value in hub.values(pmd.DATA)]
        jumps = [after - before for before, after in pairwise(times_s) if abs(after - before) > 1]
        assert jumps[0] == pytest.approx(20 / 52 - 60)
        assert len(jumps) == 2
        assert 599_616_000 < times_s[-1] < 599_616_004

    run(make_armband, scenario)


def test_a_flood_reaches_the_hub_and_the_sensor_lives_on() -> None:
    async def scenario(watch: Watch, hub: PlainHub, stage: Stage) -> None:
        await hub.connect()
        await hub.subscribe("2A37", indications=False)
        await play_scenario([Fault(0.5, "flood", "sensor", 500.0)], stage)
        await asyncio.sleep(2.4)
        values = hub.values("2A37")
        assert values.count(bytes(20)) == 500
        assert values[-1] == b"\x00\x00"
        assert len(watch.sent.values) == len(values)

    run(make_watch, scenario)


def test_the_adapter_is_unplugged_once() -> None:
    unplugged: list[float] = []

    async def scenario() -> None:
        stage = Stage(VirtualLink(), {}, lambda: unplugged.append(now_s()))
        await play_scenario([Fault(3.0, "adapter_gone")], stage)

    virtual_time.run(scenario())
    assert unplugged == [3.0]


def test_a_fault_needs_a_sensor_that_can_have_it() -> None:
    async def scenario(_watch: Watch, hub: PlainHub, stage: Stage) -> None:
        await hub.connect()
        faults = [Fault(0.0, "loss", "sensor")]
        with pytest.raises(ScenarioError, match=r"loss at 1 s: no sensor 'cuff': use sensor"):
            await play_scenario([*faults, Fault(1, "loss", "cuff")], stage)
        for kind in ("nan_bp", "skip_frame", "late_burst"):
            with pytest.raises(ScenarioError, match=rf"{kind} at 1 s: sensor cannot have this fault"):
                await play_scenario([*faults, Fault(1, kind, "sensor")], stage)
        assert not hub.disconnected.is_set()

    run(make_watch, scenario)


@given(st.integers(0, 2**32), st.integers(0, 60))
def test_drawn_faults_can_be_played_and_are_the_same_for_the_same_seed(seed: int, count: int) -> None:
    sensors: Any = {"cuff": object.__new__(Cuff), "watch": SimpleNamespace(clock=None)}
    faults = draw_faults(sensors, seconds=100.0, count=count, seed=seed, without=["zombie"])
    check_scenario(faults, sensors)
    assert faults == draw_faults(sensors, seconds=100.0, count=count, seed=seed, without=["zombie"])
    assert len(faults) == count
    assert all(0 <= fault.at_s <= 100 and fault.kind != "zombie" for fault in faults)
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)


def test_every_kind_of_fault_is_drawn_sooner_or_later() -> None:
    async def scenario(armband: Armband, _hub: PlainHub, _stage: Stage) -> None:
        sensors: Any = {"armband": armband, "cuff": object.__new__(Cuff), "watch": make_watch(VirtualLink())}
        drawn = {fault.kind for fault in draw_faults(sensors, seconds=1.0, count=500, seed=1)}
        assert drawn == KINDS.keys()

    run(make_armband, scenario)
