"""`pulsegate pair`: pairs one sensor with a person's help, proves it by a second connection, and pins its address.

A pairing is proven only by a later connection: some sensors delete a bond at once, others store it only after a restart.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError

from config.files import locked
from config.settings import ADDRESS, SensorSettings, Settings
from config.terminal import escape_controls
from drivers.registry import load_drivers
from gateway.audit_log import open_audit_log
from gateway.clock import SystemClock
from gateway.commands.console_answers import ConsoleAnswers
from gateway.commands.sensor_families import OTHER, Family, find_drivers, find_family
from gateway.paired_sensors import PairedSensor, load_paired, store_paired
from gateway.radio import CONNECT_TIMEOUT_S, PairingError, Radio, StaleBondError, open_radio
from gateway.startup import LOCK_FILE
from sync.audit import Action, AuditEvent, Category, object_id
from sync.errors import PermanentError

FIND_TIMEOUT_S: Final = 120.0
"""How long a sensor is searched: a person needs a minute to read the steps and to hold the right button."""
COLLECT_S: Final = 3.0
"""How long others are waited for once a sensor of this name was seen: most advertise at least once a second."""
LIST_S: Final = 10.0
"""How long sensors are collected for a list to choose from."""
PROVE_TIMEOUT_S: Final = 180.0
"""How long a second connection is waited for: a cuff connects only after a measurement, which takes up to two minutes."""
PROVE_PAUSE_S: Final = 2.0
"""A sensor needs a moment after the pairing before it advertises again."""


class PairError(Exception):
    """The sensor was not paired. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """A sensor that advertises."""

    device: BLEDevice
    advertisement: AdvertisementData

    @property
    def name(self) -> str:
        return self.advertisement.local_name or self.device.name or ""

    @property
    def title(self) -> str:
        return escape_controls(f"{self.name or '(no name)'} {self.device.address}")

    @property
    def family(self) -> Family:
        return find_family(self.name, self.advertisement)


Match = Callable[[Found], bool]


async def collect(radio: Radio, match: Match, seconds: float, settle_s: float | None = None) -> list[Found]:
    """Return the matching sensors that advertise within `seconds`, the strongest first.

    With `settle_s`, the search ends that long after the first one was seen.
    """
    seen: dict[str, Found] = {}
    is_settling = False

    def note(device: BLEDevice, advertisement: AdvertisementData) -> bool:
        found = Found(device, advertisement)
        if match(found):
            seen[device.address] = found
        return settle_s is not None and bool(seen) and not is_settling

    await radio.find(note, seconds)
    if settle_s and seen:
        is_settling = True
        await radio.find(note, settle_s)
    return sorted(seen.values(), key=lambda found: -found.advertisement.rssi)


async def find_address(radio: Radio, address: str, seconds: float) -> Found | None:
    found = await collect(radio, lambda each: each.device.address.upper() == address.upper(), seconds, settle_s=0.0)
    return found[0] if found else None


def make_match(target: str, settings: Settings) -> tuple[Match, str]:
    """Return what finds the sensor that a person names, and the name or address that it looks for.

    `target` is a sensor's name in the settings, an address, or the beginning of an advertised name.
    """
    sensor = next((each for each in settings.sensors if each.name == target), None)
    if sensor is not None:
        target = sensor.address or sensor.advertised_name or ""
    if ADDRESS.fullmatch(target.upper()):
        return lambda found: found.device.address.upper() == target.upper(), target
    return lambda found: found.name.startswith(target), target


async def choose(radio: Radio, answers: ConsoleAnswers) -> Found:
    """Let the person choose one of the sensors in range that this version can serve."""
    registry = load_drivers()

    def is_known(found: Found) -> bool:
        return bool(find_drivers(registry, found.advertisement)) or found.family is not OTHER

    answers.say(f"Looking for sensors for {LIST_S:g} s.")
    found = await collect(radio, is_known, LIST_S)
    if not found:
        raise PairError(
            "no known sensor advertises: bring it into its pairing mode beside the hub, and name it: pulsegate pair NAME"
        )
    for number, each in enumerate(found, 1):
        answers.say(f"{number:>3}  {each.title}  {each.advertisement.rssi} dBm  {each.family.words}")
    answer = await answers.ask("Which one? (number)")
    if not (answer.isascii() and answer.isdecimal() and 1 <= int(answer) <= len(found)):
        raise PairError("no sensor was chosen: start again, or name it: pulsegate pair ADDRESS")
    return found[int(answer) - 1]


async def find_target(radio: Radio, target: str, settings: Settings, answers: ConsoleAnswers) -> Found:
    """Find the one sensor that the person names, and tell the steps that bring it into its pairing mode."""
    match, wanted = make_match(target, settings)
    family = find_family(wanted)
    tell_steps(family, answers)
    answers.say(f"Looking for {escape_controls(wanted)}.")
    found = await collect(radio, match, FIND_TIMEOUT_S, 0.0 if ADDRESS.fullmatch(wanted.upper()) else COLLECT_S)
    if not found:
        raise PairError(
            f"{wanted} was not found within {FIND_TIMEOUT_S:g} s: check that it advertises (pulsegate scan), is beside the hub"
            " and is not connected to a phone"
        )
    if len(found) > 1:
        titles = ", ".join(each.title for each in found)
        raise PairError(f"several sensors have this name ({titles}): switch the others off, or give the address")
    if found[0].family is not family:
        tell_steps(found[0].family, answers)
    return found[0]


def tell_steps(family: Family, answers: ConsoleAnswers) -> None:
    answers.say(f"{family.words[0].upper()}{family.words[1:]}:")
    for number, step in enumerate(family.steps, 1):
        answers.say(f"  {number}. {step}")


async def bond(radio: Radio, found: Found, answers: ConsoleAnswers) -> tuple[str, bool]:
    """Pair with the sensor unless a bond exists that works.

    Return its lasting address, and whether a connection has proved the bond already.
    """
    address = found.device.address
    if not await radio.is_bonded(address):
        return await radio.pair(found.device, answers), False
    try:
        await _connect(radio, found)
    except StaleBondError:
        answers.say(f"{found.title} was paired before and has forgotten it. It is paired again.")
        await radio.unpair(address)
        fresh = await find_address(radio, address, FIND_TIMEOUT_S)
        if fresh is None:
            raise PairError(f"{found.title} went to sleep: bring it into its pairing mode, and start again") from None
        return await radio.pair(fresh.device, answers), False
    answers.say(f"{found.title} is paired already, and the bond works.")
    return address, True


async def prove(radio: Radio, address: str, family: Family, answers: ConsoleAnswers) -> None:
    """Connect once more, which shows that both sides have stored the bond.

    Raises:
        PairError: the sensor did not come back, or it has no bond.
    """
    answers.say(family.wake)
    deadline_s = asyncio.get_running_loop().time() + PROVE_TIMEOUT_S
    await asyncio.sleep(PROVE_PAUSE_S)
    failure = "it was not seen again"
    while (left_s := deadline_s - asyncio.get_running_loop().time()) > 0:
        found = await find_address(radio, address, left_s)
        try:
            if found is not None:
                await _connect(radio, found)
                return
        except StaleBondError as error:
            await radio.unpair(address)
            raise PairError(f"{address} did not keep the bond: bring it into its pairing mode, and start again") from error
        except (BleakError, TimeoutError) as error:
            failure = str(error) or "it did not answer"
    raise PairError(f"{address} is paired, but no second connection proved it ({failure}): wake it, and start again")


async def _connect(radio: Radio, found: Found) -> None:
    client = await radio.connect(found.device, lambda _client: None, CONNECT_TIMEOUT_S, found.advertisement.rssi)
    await client.disconnect()


async def pair_sensor(settings: Settings, target: str | None, answers: ConsoleAnswers) -> None:
    """Pair one sensor, prove it, pin its address and print what belongs into the settings."""
    async with open_radio(settings.radio, settings.data / "bonds.json") as radio:
        if target is None:
            found = await choose(radio, answers)
            tell_steps(found.family, answers)
        else:
            found = await find_target(radio, target, settings, answers)
        address, is_proven = found.device.address, found.family.link == "listen"
        if found.family.link == "bond":
            address, is_proven = await bond(radio, found, answers)
        address = address.upper()
        if not is_proven:
            await prove(radio, address, found.family, answers)
    sensor = next((each for each in settings.sensors if is_meant(each, found, address)), None)
    if sensor is None:
        answers.say(f"{found.title} works. Add these lines to the settings:")
        broadcast = "\nbroadcast = true" if found.family.link == "listen" else ""
        print(f'[[sensor]]\nname = "{make_name(found)}"\naddress = "{address}"{broadcast}')  # noqa: T201  for the settings file
        return
    paired = load_paired(settings.data)
    paired[sensor.name] = PairedSensor(address, sensor.advertised_name)
    _log_pairing(settings, Action.PAIR, address)
    store_paired(settings.data, paired)
    answers.say(f"{found.title} works. It is the sensor {sensor.name} of the settings from now on, and no other is.")


def is_meant(sensor: SensorSettings, found: Found, address: str) -> bool:
    """Return whether the settings mean this sensor, by its address or by its name."""
    if sensor.address is not None:
        return sensor.address == address
    return sensor.advertised_name is not None and found.name.startswith(sensor.advertised_name)


def make_name(found: Found) -> str:
    """Return a name for the settings, made of the advertised one."""
    return re.sub(r"[^A-Za-z0-9]+", "-", found.name).strip("-").lower()[:32] or "sensor"


async def list_bonds(settings: Settings) -> None:
    paired = {sensor.address: name for name, sensor in load_paired(settings.data).items()}
    async with open_radio(settings.radio, settings.data / "bonds.json") as radio:
        for each in await radio.bonds():
            print(f"{each.address}  {escape_controls(each.name)}  {paired.get(each.address, '')}".rstrip())  # noqa: T201


async def remove_bond(settings: Settings, target: str) -> None:
    """Remove the bond and the pin of a sensor, by its address or its name in the settings."""
    paired = load_paired(settings.data)
    address = paired[target].address if target in paired else target.upper()
    kept = {name: sensor for name, sensor in paired.items() if sensor.address != address}
    async with open_radio(settings.radio, settings.data / "bonds.json") as radio:
        was_bonded = await radio.unpair(address)
    if not was_bonded and len(kept) == len(paired):
        raise PairError(f"{target} is not paired: pulsegate pair --list shows what is")
    _log_pairing(settings, Action.UNPAIR, address)
    store_paired(settings.data, kept)
    print(f"{address} is no longer paired: delete this hub in the sensor's own menu too, if it has one")  # noqa: T201


def _log_pairing(settings: Settings, action: Action, address: str) -> None:
    log = open_audit_log(settings, SystemClock().wall_us)
    log.append(AuditEvent(log.operator(), action, Category.SENSORS, settings.subject, (object_id("sensor", address),)))


def pair(settings: Settings, target: str | None, *, is_list: bool, removed: str | None) -> int:
    """Run the command.

    Raises:
        PairError: the sensor was not paired.
        RadioError: the radio cannot be used.
        PermanentError: the agent is running, or the data folder cannot be used.
    """
    try:
        with locked(settings.data / LOCK_FILE):
            if is_list:
                asyncio.run(list_bonds(settings))
            elif removed:
                asyncio.run(remove_bond(settings, removed))
            else:
                asyncio.run(pair_sensor(settings, target, ConsoleAnswers()))
    except PairingError as error:
        raise PairError(str(error)) from error
    except (BleakError, TimeoutError) as error:
        raise PairError(
            f"the sensor was not paired ({error or 'no answer'}): keep it beside the hub, and start again"
        ) from error
    except BlockingIOError as error:
        raise PermanentError("the agent is running and uses the sensors: stop it first (systemctl stop pulsegate)") from error
    except OSError as error:
        raise PermanentError(
            f"cannot use the data folder {settings.data} ({error.strerror}): run pulsegate check-config"
        ) from error
    return 0
