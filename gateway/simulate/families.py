"""Every emulated sensor by the name of its family, and what each does when it runs by itself: it measures now and then."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn

from bumble.device import Device

from gateway.simulate.peripherals import (
    armband,
    broadcast_scale,
    heart_rate_strap,
    movesense,
    oximeter,
    scale,
    thermometer,
    watch,
)
from gateway.simulate.peripherals.armband import Armband
from gateway.simulate.peripherals.broadcast_scale import BroadcastScale
from gateway.simulate.peripherals.cuff import AND_CUFF, MEDISANA_CUFF, STANDARD_CUFF, Cuff, CuffModel
from gateway.simulate.peripherals.heart_rate_strap import HeartRateStrap
from gateway.simulate.peripherals.movesense import Movesense
from gateway.simulate.peripherals.oximeter import Oximeter
from gateway.simulate.peripherals.peripheral import BondedSubscriptions, OnEvent, Peripheral, PeripheralOptions, now_s
from gateway.simulate.peripherals.scale import Scale
from gateway.simulate.peripherals.thermometer import Thermometer
from gateway.simulate.peripherals.watch import Watch
from gateway.simulate.playback import SensorClock

CONSENT_CODE: Final = 3752
"""The code of the scale's user 1."""
SPOT_CHECK_S: Final = 20.0
"""How long the oximeter stays on a finger."""


@dataclass(frozen=True, slots=True)
class World:
    """What a sensor needs to be made and to live.

    `true_time` is the local time, `unix_ns` the time that a Polar clock is set to; `every_s` is the time between measurements.
    """

    true_time: Callable[[], datetime]
    unix_ns: int
    every_s: float
    rng: random.Random
    on_event: OnEvent
    subscriptions: BondedSubscriptions

    @property
    def options(self) -> PeripheralOptions:
        return {"on_event": self.on_event, "subscriptions": self.subscriptions}


@dataclass(frozen=True, slots=True)
class Family:
    """A family of sensors: the address and name it advertises, how one is made, and how it lives.

    `hint` is what a user of the hub must know, such as a consent code.
    """

    address: str
    name: str
    make: Callable[[Device, World], Peripheral]
    live: Callable[[Any, World], Awaitable[None]]
    hint: str = ""


def _make_cuff(model: CuffModel) -> Callable[[Device, World], Cuff]:
    return lambda device, world: Cuff(device, world.true_time, model, **world.options)


def _make_armband(device: Device, world: World) -> Armband:
    return Armband(device, SensorClock.set_to(world.unix_ns, now_s()), **world.options)


def _make_scale(device: Device, world: World) -> Scale:
    return Scale(device, world.true_time, {1: CONSENT_CODE}, **world.options)


def _make_with_clock(kind: Callable[..., Peripheral]) -> Callable[[Device, World], Peripheral]:
    return lambda device, world: kind(device, world.true_time, **world.options)


def _make_without_clock(kind: Callable[..., Peripheral]) -> Callable[[Device, World], Peripheral]:
    return lambda device, world: kind(device, **world.options)


async def _live_with_cuff(cuff: Cuff, world: World) -> None:
    rng = world.rng
    if cuff.model.pairs_when_asked:
        await cuff.enter_pairing_mode()
    await cuff.measure(rng.randint(118, 138), rng.randint(74, 88), rng.randint(60, 80))


async def _live_with_oximeter(sensor: Oximeter, world: World) -> None:
    await sensor.measure(world.rng.randint(94, 98), world.rng.randint(58, 76), seconds=SPOT_CHECK_S)


async def _live_with_scale(sensor: Scale, world: World) -> None:
    await sensor.weigh(round(world.rng.uniform(79.5, 80.5) * 20) / 20)


async def _live_with_broadcast_scale(sensor: BroadcastScale, world: World) -> None:
    await sensor.weigh(round(world.rng.uniform(79.5, 80.5) * 20) / 20, impedance_ohm=world.rng.randint(480, 520))


async def _live_with_thermometer(sensor: Thermometer, world: World) -> None:
    await sensor.measure(round(world.rng.uniform(36.2, 37.2), 1))


async def _live_with_watch(sensor: Watch, world: World) -> None:
    sensor.find_pulse(world.rng.randint(62, 84))
    sensor.is_walking = not sensor.is_walking


async def _live_with_heart_rate_strap(sensor: HeartRateStrap, world: World) -> None:
    sensor.rate_bpm = world.rng.randint(58, 84)


async def _live_with_movesense(_sensor: Movesense, _world: World) -> None:
    """Measure the same all the time."""


async def _live_with_armband(sensor: Armband, world: World) -> None:
    sensor.rate_bpm = world.rng.randint(62, 84)


FAMILIES: Final[Mapping[str, Family]] = {
    "cuff": Family("C0:DE:0A:00:00:01", STANDARD_CUFF.name, _make_cuff(STANDARD_CUFF), _live_with_cuff),
    "cuff-and": Family("C0:DE:0A:00:00:02", AND_CUFF.name, _make_cuff(AND_CUFF), _live_with_cuff),
    "cuff-medisana": Family("C0:DE:0A:00:00:03", MEDISANA_CUFF.name, _make_cuff(MEDISANA_CUFF), _live_with_cuff),
    "oximeter": Family("C0:DE:0A:00:00:04", oximeter.NAME, _make_with_clock(Oximeter), _live_with_oximeter),
    "scale": Family("C0:DE:0A:00:00:05", scale.NAME, _make_scale, _live_with_scale, f"user 1, consent code {CONSENT_CODE}"),
    "scale-broadcast": Family(
        "C0:DE:0A:00:00:06", broadcast_scale.NAME, _make_with_clock(BroadcastScale), _live_with_broadcast_scale
    ),
    "thermometer": Family("C0:DE:0A:00:00:07", thermometer.NAME, _make_with_clock(Thermometer), _live_with_thermometer),
    "watch": Family("C0:DE:0A:00:00:08", watch.NAME, _make_with_clock(Watch), _live_with_watch),
    "armband": Family("C0:DE:0A:00:00:09", armband.NAME, _make_armband, _live_with_armband),
    "heart-rate": Family(
        "C0:DE:0A:00:00:0B", heart_rate_strap.NAME, _make_without_clock(HeartRateStrap), _live_with_heart_rate_strap
    ),
    "movesense": Family("C0:DE:0A:00:00:0A", movesense.NAME, _make_without_clock(Movesense), _live_with_movesense),
}
"""All families but the strap, which plays a script or a recording (`gateway.simulate.strap`)."""


async def run_family(
    family: Family, device: Device, world: World, live: Callable[[Any, World], Awaitable[None]] | None = None
) -> NoReturn:
    """Run a sensor until cancelled. It lives by `live`, or else measures every `world.every_s`, the first time at once.

    Raises:
        ExceptionGroup: with a RadioError, because the radio was lost.
    """
    sensor = family.make(device, world)

    async def be_used() -> None:
        if live is not None:
            await live(sensor, world)
        while True:
            await family.live(sensor, world)
            await asyncio.sleep(world.every_s)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(be_used())
        await sensor.run()
    raise AssertionError("the sensor runs until it is cancelled")
