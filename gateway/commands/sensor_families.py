"""What a person does to pair each family of sensors, in short sentences. Facts: vendors' manuals and users' reports."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from bleak.backends.scanner import AdvertisementData

from drivers.registry import Registry
from drivers.spec import uuid16

Link = Literal["bond", "connect", "listen"]
"""How the hub hears a sensor: over a bond, over a connection that needs none, or from its advertisements alone."""

SERVICE_WORDS: Final[Mapping[str, str]] = {
    uuid16(number): words
    for number, words in {
        0x180D: "heart rate",
        0x1810: "blood pressure",
        0x1822: "oximeter",
        0x181D: "weight",
        0x181B: "body composition",
        0x1809: "thermometer",
        0x1808: "glucose",
        0x180F: "battery",
        0x180A: "device information",
        0x1805: "clock",
        0x181C: "user data",
        0xFEEE: "Polar",
        0xFDF3: "Movesense",
        0xFE95: "Xiaomi",
    }.items()
}

_OMRON, _BEURER, _POLAR, _XIAOMI_BAND = 0x020E, 0x0611, 0x006B, 0x0157
"""Numbers of companies: Bluetooth Assigned Numbers, 7.1."""


@dataclass(frozen=True, slots=True)
class Family:
    """Sensors that are paired in the same way. An empty condition says nothing; the first family with a match counts.

    `steps` bring the sensor into its pairing mode, `wake` lets it connect once more afterwards.
    """

    words: str
    steps: tuple[str, ...]
    wake: str
    link: Link = "bond"
    names: tuple[str, ...] = ()
    companies: tuple[int, ...] = ()
    services: tuple[int, ...] = ()


_MEASURE: Final = "Now take a measurement: the cuff connects when it is finished."
_WEAR: Final = "Keep it on: it connects by itself."
_ALONE: Final = "Close every app that is connected to it, or switch Bluetooth off on the phone."

FAMILIES: Final = (
    Family(
        "Omron blood pressure monitor",
        (
            "Switch Bluetooth off on every phone that knows the monitor: it serves one partner only.",
            "Hold its Bluetooth button for 3 to 5 seconds, until -P- flashes.",
        ),
        _MEASURE,
        names=("BLESmart_", "BLEsmart_"),
        companies=(_OMRON,),
    ),
    Family(
        "A&D blood pressure monitor, scale or thermometer",
        ("Hold START (a scale: the button on its back) until Pr is shown.", "If E10 is shown, start again."),
        "Now take a measurement: it connects when it is finished.",
        names=("A&D_",),
    ),
    Family(
        "Beurer or Sanitas blood pressure monitor",
        (
            "Switch Bluetooth on in its menu, and take a measurement or open the memory.",
            "If it shows six digits, type them when you are asked.",
        ),
        _MEASURE,
        names=("BM27", "BM48", "BM54", "BM59", "BM77", "BM81", "BM85", "BM95", "BM96", "SBM69"),
    ),
    Family(
        "Beurer scale",
        (
            "Do not change its batteries now: that erases its users.",
            "Step on it shortly, so that its display is on.",
            "Type the six digits that it shows when you are asked.",
        ),
        "Step on it shortly once more.",
        names=("BF1", "BF4", "BF5", "BF6", "BF7", "BF8", "BF9", "SBF7"),
        companies=(_BEURER,),
    ),
    Family(
        "boso blood pressure monitor",
        ("Hold its Bluetooth or memory button until the Bluetooth sign flashes.",),
        _MEASURE,
        names=("boso",),
    ),
    Family(
        "Medisana blood pressure monitor",
        ("Take a measurement, or hold the power button until the Bluetooth sign flashes.",),
        _MEASURE,
        names=("1872B", "LS BPM"),
    ),
    Family(
        "Polar sensor",
        (_ALONE, "Moisten the electrodes of a strap and put it on. Switch an armband on with its button."),
        _WEAR,
        "connect",
        names=("Polar ",),
        companies=(_POLAR,),
    ),
    Family(
        "Movesense sensor",
        (_ALONE, "Moisten the electrodes and put the strap on; the sensor wakes by touch."),
        _WEAR,
        "connect",
        names=("Movesense",),
    ),
    Family(
        "InfiniTime watch",
        (
            "Switch the heart rate on in the watch, and light its screen.",
            "Type the six digits that it shows when you are asked.",
        ),
        "Light the screen of the watch.",
        names=("InfiniTime", "Pinetime"),
    ),
    Family(
        "watch that broadcasts the heart rate",
        ("Start its heart rate broadcast (connected fitness) in the watch.", "Accept this hub if the watch asks."),
        "Let the broadcast run.",
        "connect",
        names=("Bangle.js", "Forerunner", "fenix", "Venu", "vivo", "Instinct", "Pixel Watch", "Galaxy Watch"),
    ),
    Family(
        "Nonin oximeter",
        ("Put it on a finger. It switches on by itself.",),
        "Keep the finger in it.",
        names=("Nonin",),
    ),
    Family(
        "Xiaomi scale or band",
        ("It needs no pairing. Step on the scale, or share the heart rate in the band's settings.",),
        "It only sends to everybody around.",
        "listen",
        names=("MIBFS", "MI SCALE", "MIBCS", "Mi Band", "Mi Smart Band", "Amazfit"),
        companies=(_XIAOMI_BAND,),
    ),
    Family(
        "heart rate strap",
        (_ALONE, "Moisten its electrodes and put it on."),
        _WEAR,
        "connect",
        services=(0x180D,),
    ),
    Family(
        "blood pressure monitor",
        ("Bring it into its pairing mode as its manual says, or take a measurement.",),
        _MEASURE,
        services=(0x1810,),
    ),
    Family(
        "oximeter",
        ("Put it on a finger.",),
        "Keep the finger in it.",
        services=(0x1822,),
    ),
    Family(
        "scale",
        ("Step on it shortly, so that its display is on.", "Type the six digits if it shows some."),
        "Step on it shortly once more.",
        services=(0x181D, 0x181B),
    ),
    Family(
        "thermometer",
        ("Bring it into its pairing mode as its manual says, or take a measurement.",),
        "Now take a measurement.",
        services=(0x1809,),
    ),
)
OTHER: Final = Family(
    "sensor",
    ("Bring it into its pairing mode as its manual says, beside the hub.", _ALONE),
    "Let it connect once more: switch it on, wear it, or take a measurement.",
)


def find_family(name: str, advertisement: AdvertisementData | None = None) -> Family:
    """Return the family of a sensor by its advertised name and, if it was seen, by what it advertises."""
    for family in FAMILIES:
        if name.startswith(family.names):
            return family
    if advertisement is not None:
        companies, services = set(advertisement.manufacturer_data), set(advertisement.service_uuids)
        for family in FAMILIES:
            if companies & set(family.companies) or services & set(map(uuid16, family.services)):
                return family
    return OTHER


def describe_services(uuids: Iterable[str]) -> list[str]:
    """Return the advertised services in words; a vendor's own service is its UUID."""
    return [SERVICE_WORDS.get(uuid, uuid[4:8].upper() if uuid == uuid16(int(uuid[:8], 16)) else uuid) for uuid in uuids]


def find_drivers(registry: Registry, advertisement: AdvertisementData) -> list[str]:
    """Return the names of the drivers that would serve a sensor, as far as its advertisement says."""
    names = {driver.name for driver in registry.for_services(advertisement.service_uuids)}
    fields: set[tuple[str, str | int]] = {("service_data", uuid) for uuid in advertisement.service_data}
    fields |= {("manufacturer_data", company) for company in advertisement.manufacturer_data}
    names |= {driver.name for driver in registry.drivers if any((each.field, each.key) in fields for each in driver.broadcasts)}
    return sorted(names)
