"""`pulsegate scan`: the Bluetooth LE devices in range, as a table that is drawn again while the scan runs."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from config.terminal import escape_controls
from drivers.registry import Registry, load_drivers
from gateway.commands.sensor_families import describe_services, find_drivers
from gateway.radio import Radio, open_radio

REFRESHES_PER_S: Final = 2
"""How often the table is drawn again: signals change with every advertisement, faster than anybody reads."""
WIDTH_WITHOUT_TERMINAL: Final = 160
"""Columns of the table in a file or a pipe, so that no name is cut."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A device as it was seen last."""

    address: str
    name: str
    rssi_dbm: int
    services: list[str]
    drivers: list[str]
    is_paired: bool


def make_sighting(device: BLEDevice, advertisement: AdvertisementData, registry: Registry, paired: set[str]) -> Sighting:
    return Sighting(
        device.address,
        advertisement.local_name or device.name or "",
        advertisement.rssi,
        describe_services(dict.fromkeys((*advertisement.service_uuids, *advertisement.service_data))),
        find_drivers(registry, advertisement),
        device.address.upper() in paired,
    )


def make_table(sightings: Mapping[str, Sighting]) -> Table:
    """A table of the devices: those that this hub can serve first, then by signal."""
    table = Table(box=None, pad_edge=False)
    for title in ("address", "signal", "name", "services", "driver", "paired"):
        table.add_column(title, justify="right" if title == "signal" else "left", no_wrap=title in ("address", "signal"))
    for each in sorted(sightings.values(), key=lambda each: (not each.drivers, -each.rssi_dbm, each.address)):
        texts = (
            each.address,
            f"{each.rssi_dbm} dBm",
            each.name or "(no name)",
            ", ".join(each.services),
            ", ".join(each.drivers) or "none",
            "yes" if each.is_paired else "no",
        )
        style = "bold" if each.drivers else "dim"
        table.add_row(*(Text(escape_controls(text), style) for text in texts))
    return table


async def _collect(radio: Radio, seconds: float, sightings: dict[str, Sighting]) -> None:
    registry = load_drivers()
    paired = {bond.address for bond in await radio.bonds()}

    def note(device: BLEDevice, advertisement: AdvertisementData) -> bool:
        sightings[device.address] = make_sighting(device, advertisement, registry, paired)
        return False

    await radio.find(note, seconds)


async def _show_live(radio: Radio, seconds: float, sightings: dict[str, Sighting], console: Console) -> None:
    with Live(console=console, refresh_per_second=REFRESHES_PER_S, get_renderable=lambda: make_table(sightings)):
        await _collect(radio, seconds, sightings)


async def _scan(radio_name: str, seconds: float, *, as_json: bool) -> None:
    sightings: dict[str, Sighting] = {}
    is_terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if is_terminal else WIDTH_WITHOUT_TERMINAL)
    async with open_radio(radio_name) as radio:
        if is_terminal and not as_json:
            await _show_live(radio, seconds, sightings, console)
            return
        await _collect(radio, seconds, sightings)
    if as_json:
        sys.stdout.write(json.dumps([asdict(each) for each in sightings.values()], indent=1) + "\n")
    else:
        console.print(make_table(sightings))


def scan(radio_name: str, seconds: float, *, as_json: bool) -> int:
    """Scan for some seconds and show what was seen.

    Raises:
        RadioError: the radio cannot be used.
    """
    asyncio.run(_scan(radio_name, seconds, as_json=as_json))
    return 0
