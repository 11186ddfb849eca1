"""docs/devices.md agrees with the code: its drivers, its evidence, the emulated sensors and the steps of a pairing."""

import json
import random
import re
from pathlib import Path
from typing import Final

import pytest

from drivers.registry import load_drivers
from drivers.spec import DriverSpec
from gateway import virtual_time
from gateway.commands.sensor_families import FAMILIES as PAIRING_FAMILIES
from gateway.commands.sensor_families import Family
from gateway.radio.virtual import VirtualLink, make_device
from gateway.simulate.families import FAMILIES, World
from gateway.simulate.peripherals.peripheral import BondedSubscriptions
from gateway.simulate.peripherals.services import follow_loop
from gateway.simulate.standalone import STRAP
from tests.simulate.plain_hub import START

PAGE: Final = (Path(__file__).parents[2] / "docs" / "devices.md").read_text()
VECTORS: Final = Path(__file__).parent / "vectors"
DRIVERS: Final = {driver.name: driver for driver in load_drivers().drivers}

EVIDENCE: Final = ("capture", "test suite", "document", "source", "report")
SAID_BY_SOURCES: Final = ("capture", "test suite")
"""The evidence for which a vector must exist whose source names the device."""
STRAP_DRIVERS: Final = {"heart_rate", "polar_pmd", "battery", "device_information"}
ALL: Final = "all that connect"
BROADCASTS: Final = {"scale-broadcast": {"mi_body_scale"}}


def table(heading: str) -> list[list[str]]:
    """The cells of each row of the table below a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def drivers_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def sources_of(driver: str) -> str:
    vectors = json.loads((VECTORS / f"{driver}.json").read_text())["vectors"]
    return "\n".join(vector["source"] for vector in vectors)


DEVICES: Final = {row[0]: row for row in table("What is known of which device")}


def test_every_driver_has_one_row_and_every_row_names_a_driver() -> None:
    listed = [name for row in table("Drivers") for name in drivers_in(row[0])]
    missing = [
        f"| `{name}` | NAME, {', '.join(short_keys(DRIVERS[name]))} | WHAT IT READS | |"
        for name in DRIVERS
        if name not in listed
    ]
    unknown = [name for name in listed if name not in DRIVERS]
    if listed != sorted(DRIVERS):
        faults = f"missing rows: {missing}; rows without a driver: {unknown}"
        pytest.fail(
            f"docs/devices.md, first table: the rows must be the drivers in alphabetical order; {faults}", pytrace=False
        )


def short_keys(driver: DriverSpec) -> list[str]:
    """How the page calls a driver's service, or its broadcasts where it has none."""
    if driver.service:
        return [driver.service[:8].removeprefix("0000").upper()]
    return [f"{b.key:04X}" if isinstance(b.key, int) else b.key[4:8].upper() for b in driver.broadcasts]


def test_the_row_of_a_driver_names_its_service_or_its_broadcasts() -> None:
    for name, service, *_ in table("Drivers"):
        for key in short_keys(DRIVERS[name.strip("`")]):
            assert key in service.upper(), f"docs/devices.md: the second cell of {name} must name {key}"


@pytest.mark.parametrize("device", DEVICES)
def test_the_evidence_for_a_device_is_of_a_known_kind_and_in_the_vectors_of_its_drivers(device: str) -> None:
    _, drivers, evidence, _ = DEVICES[device]
    assert evidence in EVIDENCE
    for driver in drivers_in(drivers):
        assert driver in DRIVERS
        if evidence in SAID_BY_SOURCES:
            assert device.split(" (", maxsplit=1)[0] in sources_of(driver), f"no vector of {driver} is from a {device}"


def test_the_page_says_as_which_sensors_a_service_is_emulated() -> None:
    said = {row[0].strip("`"): set(row[3].split(", ")) - {""} for row in table("Drivers")}
    emulated = {STRAP: STRAP_DRIVERS, **BROADCASTS, **virtual_time.run(find_emulated())}
    connecting = emulated.keys() - BROADCASTS.keys()
    for driver, families in said.items():
        emulating = {family for family, offered in emulated.items() if driver in offered}
        assert emulating == (connecting if families == {ALL} else families), f"docs/devices.md: the last cell of {driver}"


async def find_emulated() -> dict[str, set[str]]:
    """The drivers that serve each emulated sensor that offers services."""
    link, subscriptions = VirtualLink(), BondedSubscriptions()
    world = World(follow_loop(START), 10**18, 60.0, random.Random(1), lambda _event: None, subscriptions)
    found = dict[str, set[str]]()
    for name in FAMILIES.keys() - BROADCASTS.keys():
        device = make_device(link, FAMILIES[name].address, name)
        FAMILIES[name].make(device, world)
        offered = {service.uuid.to_hex_str("-").lower() for service in device.gatt_server.services}
        found[name] = {each.name for each in DRIVERS.values() if each.service[4:8] in offered or each.service in offered}
    return found


@pytest.mark.parametrize("family", PAIRING_FAMILIES, ids=lambda family: family.words)
def test_the_page_has_the_steps_that_pulsegate_pair_tells(family: Family) -> None:
    assert f"- **{family.words}**: {' '.join(family.steps)} {family.wake}\n" in PAGE
