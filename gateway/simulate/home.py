"""The home of `pulsegate demo --home`: the sensors beside the strap, what is measured with each, and the hub's settings.

Every measurement is printed as an event `measured` with its values by kind, for the audit (`gateway.simulate.home_audit`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from gateway.simulate.families import CONSENT_CODE, FAMILIES, World
from gateway.simulate.peripherals.cuff import BODY_MOVEMENT, Cuff
from gateway.simulate.peripherals.oximeter import Oximeter
from gateway.simulate.peripherals.scale import Scale
from gateway.simulate.peripherals.watch import Watch

PATIENT: Final = 1
"""The patient's number on the cuff and on the scale."""
CUFF_INTERVAL_S: Final = 20.0
"""Time between two blood pressures: the transfer of one takes some 5 s."""
FINGER_OUT_S: Final = 15.0
"""Time between two spot checks with the oximeter."""
SPOT_CHECK_S: Final = 12.0
WEIGHING_AFTER_S: Final = 8.0
WEIGHING_INTERVAL_S: Final = 60.0
WALK_S: Final = 15.0
"""How long the wearer of the watch walks, and then rests."""

_FAILED: Final = None
PRESSURES: Final[tuple[tuple[int, int, int] | None, ...]] = (
    (128, 82, 71),
    (186, 118, 88),  # severely raised: raises an alert
    (131, 84, 72),
    _FAILED,
    (127, 79, 69),
)
"""Systolic and diastolic pressure and pulse of each measurement; the wearer moves during the failed one. Then again."""


@dataclass(frozen=True, slots=True)
class HomeSensor:
    """A sensor in the home, one of `families`.

    `live` is what is done with it; `result` is the characteristic that transfers its results, None if it has none.
    `settings` are lines of its table in the hub's settings.
    """

    live: Callable[[Any, World], Awaitable[None]]
    result: str | None = None
    settings: str = ""


async def _use_cuff(cuff: Cuff, world: World) -> None:
    for pressure in cycle(PRESSURES):
        if pressure is None:
            _report(world, {"failed_measurement": "blood_pressure"})
            await cuff.measure(status=BODY_MOVEMENT)
        else:
            systolic, diastolic, pulse = pressure
            _report(world, {"systolic": systolic, "diastolic": diastolic, "pulse_rate_cuff": pulse})
            await cuff.measure(systolic, diastolic, pulse)
        await asyncio.sleep(CUFF_INTERVAL_S)


async def _use_oximeter(oximeter: Oximeter, world: World) -> None:
    """Two spot checks of the day before are in the memory. Later ones begin with continuous values."""
    for hours_ago, spo2, pulse in ((26, 95, 66), (14, 96, 63)):
        await _check_spo2(oximeter, world, spo2, pulse, 0.0, at=_ago(world, hours_ago))
    for spo2, pulse in cycle(((97, 68), (94, 74), (96, 70))):
        await asyncio.sleep(FINGER_OUT_S)
        await _check_spo2(oximeter, world, spo2, pulse, SPOT_CHECK_S)


async def _check_spo2(
    oximeter: Oximeter, world: World, spo2: int, pulse: int, seconds: float, at: datetime | None = None
) -> None:
    oximeter.insert_finger(spo2, pulse)
    await asyncio.sleep(seconds)
    _report(world, {"spo2": spo2, "pulse_rate": pulse})
    await oximeter.remove_finger(at=at)


async def _use_scale(scale: Scale, world: World) -> None:
    """The weighing of the day before is in the memory. Its body values are no longer."""
    await _weigh(scale, world, 79.95, at=_ago(world, 25))
    await asyncio.sleep(WEIGHING_AFTER_S)
    for kg in cycle((80.4, 80.25, 80.35)):
        await _weigh(scale, world, kg)
        await asyncio.sleep(WEIGHING_INTERVAL_S)


async def _weigh(scale: Scale, world: World, kg: float, at: datetime | None = None) -> None:
    _report(world, {"weight": kg})
    await scale.weigh(kg, user=PATIENT, at=at)


async def _wear_watch(watch: Watch, _world: World) -> None:
    for rate_bpm, is_walking in cycle(((72, False), (96, True), (78, False), (102, True))):
        watch.find_pulse(rate_bpm)
        watch.is_walking = is_walking
        await asyncio.sleep(WALK_S)


HOME: Final[Mapping[str, HomeSensor]] = {
    "cuff": HomeSensor(_use_cuff, "2A35", f"user = {PATIENT}\n"),
    "oximeter": HomeSensor(_use_oximeter, "2A5E"),
    "scale": HomeSensor(_use_scale, "2A9D", f'user = {PATIENT}\nconsent_code_file = "scale.code"\n'),
    "watch": HomeSensor(_wear_watch),
}
"""By the name of the family, which is also the sensor's name in the hub's settings."""


def write_home_settings(folder: Path) -> str:
    """Return the tables of the sensors for the hub's settings in this folder, and write the scale's consent code beside them.

    The sensors are named by their addresses, because the hub bonds only with a sensor whose address it knows.
    """
    (folder / "scale.code").write_text(f"{CONSENT_CODE}\n", encoding="utf-8")
    return "".join(
        f'[[sensor]]\nname = "{name}"\naddress = "{FAMILIES[name].address}"\n{sensor.settings}' for name, sensor in HOME.items()
    )


def _report(world: World, values: Mapping[str, float | str]) -> None:
    world.on_event({"event": "measured", "values": dict(values)})


def _ago(world: World, hours: float) -> datetime:
    return world.true_time() - timedelta(hours=hours)
