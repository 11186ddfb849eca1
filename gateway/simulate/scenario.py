"""Scenarios of faults: what goes wrong with which emulated sensor, and when.

A scenario is TOML, one `[[fault]]` table a fault, in any order:

    [[fault]]
    at_s = 60.0          # seconds after the scenario's start
    kind = "away"        # one of `KINDS`
    sensor = "cuff"      # the sensor's name; "" for adapter_gone
    amount = 20.0        # what it means is said in `KINDS`; may be left out
"""

import asyncio
import random
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.radio.virtual import VirtualLink
from gateway.simulate.peripherals.armband import Armband
from gateway.simulate.peripherals.cuff import Cuff
from gateway.simulate.peripherals.frame_faults import FrameFaults
from gateway.simulate.peripherals.movesense import Movesense
from gateway.simulate.peripherals.peripheral import Peripheral, now_s, sleep_until
from gateway.simulate.peripherals.services import DeviceClock
from gateway.simulate.playback import ClockError
from gateway.simulate.strap import Strap


class ScenarioError(ValueError):
    """The scenario cannot be played. The message names the fault and what is allowed."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. `amount` is its default; `applies_to` says which sensors can have it."""

    meaning: str
    amount: float
    applies_to: Callable[[Peripheral], bool] = lambda _sensor: True


def _has_clock(sensor: Peripheral) -> bool:
    return _clock_of(sensor) is not None


def _has_frames(sensor: Peripheral) -> bool:
    return bool(_frame_faults_of(sensor))


KINDS: Final[Mapping[str, Kind]] = {
    "loss": Kind("the link breaks once", 0.0),
    "away": Kind("the sensor is out of range for so many seconds", 30.0),
    "zombie": Kind("the link stays up, and nothing comes through it, for so many seconds", 60.0),
    "forget_bond": Kind("the sensor loses its bonds", 0.0),
    "indicate_then_drop": Kind("the sensor drops the link at its next so many indications, without a confirmation", 1.0),
    "clock_wrong": Kind("the sensor's clock restarts at the factory's date", 0.0, _has_clock),
    "clock_jump": Kind("the sensor's clock jumps by so many seconds", 3600.0, _has_clock),
    "skip_frame": Kind("so many frames of each stream are lost before the radio", 1.0, _has_frames),
    "late_burst": Kind("frames are held back for so many seconds, then come together", 5.0, _has_frames),
    "nan_bp": Kind("a measurement of the cuff fails", 0.0, lambda sensor: isinstance(sensor, Cuff)),
    "flood": Kind("the sensor notifies so many values without a meaning, as fast as it can", 1000.0),
    "adapter_gone": Kind("the hub's adapter is unplugged", 0.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a scenario; see the module's docstring."""

    at_s: float
    kind: str
    sensor: str = ""
    amount: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ScenarioError(f"kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if not 0 <= self.at_s < float("inf"):
            raise ScenarioError(f"at_s {self.at_s} is not a number of seconds from 0 on")

    @property
    def value(self) -> float:
        """The amount, or the default of the kind."""
        return KINDS[self.kind].amount if self.amount is None else self.amount


@dataclass(frozen=True, slots=True)
class Stage:
    """What a scenario acts on: the link, the sensors by name, and what unplugs the hub's adapter."""

    link: VirtualLink
    sensors: Mapping[str, Peripheral]
    unplug_adapter: Callable[[], None]


def parse_scenario(name: str, text: str) -> tuple[Fault, ...]:
    """Parse a scenario from its TOML text, and sort its faults by time.

    Raises:
        ScenarioError: it is not TOML, or a key is missing, unknown or out of range.
    """
    faults: list[Fault] = []
    try:
        tables = tomllib.loads(text)["fault"]
        for number, table in enumerate(tables, 1):
            try:
                faults.append(Fault(**table))
            except (TypeError, ScenarioError) as error:
                raise ScenarioError(f"fault {number}: {error}") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ScenarioError) as error:
        raise ScenarioError(f"scenario {name}: {error}") from error
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def draw_faults(
    sensors: Mapping[str, Peripheral], *, seconds: float, count: int, seed: int, without: Sequence[str] = ()
) -> tuple[Fault, ...]:
    """Draw faults at random times, each of a kind that its sensor can have. The same seed draws the same."""
    rng = random.Random(seed)  # noqa: S311  a simulation
    faults: list[Fault] = []
    while len(faults) < count:
        sensor = rng.choice(sorted(sensors))
        kind = rng.choice([name for name, kind in KINDS.items() if name not in without and kind.applies_to(sensors[sensor])])
        faults.append(Fault(round(rng.uniform(0, seconds), 3), kind, "" if kind == "adapter_gone" else sensor))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def check_scenario(faults: Sequence[Fault], sensors: Mapping[str, Peripheral]) -> None:
    """Check that every fault names a sensor that can have it.

    Raises:
        ScenarioError: names the fault.
    """
    for fault in faults:
        if fault.kind == "adapter_gone":
            continue
        if fault.sensor not in sensors:
            raise ScenarioError(f"{fault.kind} at {fault.at_s} s: no sensor {fault.sensor!r}: use {', '.join(sorted(sensors))}")
        if not KINDS[fault.kind].applies_to(sensors[fault.sensor]):
            raise ScenarioError(f"{fault.kind} at {fault.at_s} s: {fault.sensor} cannot have this fault")


async def play_scenario(faults: Sequence[Fault], stage: Stage) -> None:
    """Let the faults happen at their times, counted from now. Returns when the last has ended.

    Raises:
        ScenarioError: a fault names no sensor, or one that cannot have it. Nothing has happened then.
    """
    check_scenario(faults, stage.sensors)
    start_s = now_s()
    async with asyncio.TaskGroup() as tasks:
        for fault in sorted(faults, key=lambda fault: fault.at_s):
            await sleep_until(start_s + fault.at_s)
            tasks.create_task(apply_fault(fault, stage), name=f"{fault.kind} {fault.sensor}")


async def apply_fault(fault: Fault, stage: Stage) -> None:
    """Let one fault happen now. Returns when it has ended."""
    if fault.kind == "adapter_gone":
        stage.unplug_adapter()
        return
    sensor = stage.sensors[fault.sensor]
    match fault.kind:
        case "loss" | "away" | "zombie":
            await _disturb_link(fault, stage.link, sensor.address)
        case "clock_wrong" | "clock_jump":
            _disturb_clock(fault, sensor)
        case "skip_frame" | "late_burst":
            for faults in _frame_faults_of(sensor):
                faults.skip(round(fault.value)) if fault.kind == "skip_frame" else faults.hold(fault.value)
        case _:
            await _disturb_sensor(fault, sensor)


async def _disturb_link(fault: Fault, link: VirtualLink, address: str) -> None:
    match fault.kind:
        case "loss":
            link.simulate_link_loss(address)
        case "away":
            link.out_of_range.add(address)
            link.simulate_link_loss(address)
            await asyncio.sleep(fault.value)
            link.out_of_range.discard(address)
        case _:
            link.zombies.add(address)
            await asyncio.sleep(fault.value)
            link.zombies.discard(address)


def _disturb_clock(fault: Fault, sensor: Peripheral) -> None:
    clock = _clock_of(sensor)
    assert clock is not None  # `check_scenario`
    if fault.kind == "clock_jump":
        clock.jump(fault.value)
    else:
        clock.reset()


async def _disturb_sensor(fault: Fault, sensor: Peripheral) -> None:
    match fault.kind:
        case "forget_bond":
            await sensor.forget_bond()
        case "indicate_then_drop":
            sensor.indicate_then_drop(round(fault.value))
        case "flood":
            await sensor.flood(round(fault.value))
        case _:
            assert isinstance(sensor, Cuff)  # `check_scenario`
            await sensor.measure()


def _clock_of(sensor: Peripheral) -> DeviceClock | ClockError | None:
    match sensor:
        case Strap() | Armband():
            return sensor.clock_error
        case _:
            clock = getattr(sensor, "clock", None)
            return clock if isinstance(clock, DeviceClock) else None


def _frame_faults_of(sensor: Peripheral) -> list[FrameFaults[tuple[int, int]] | FrameFaults[bytes]]:
    match sensor:
        case Strap() | Movesense():
            return [sensor.faults]
        case Armband():
            return list(sensor.faults.values())
        case _:
            return []
