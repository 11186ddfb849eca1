"""`pulsegate scan`: what it shows of each device, live on a terminal and as JSON."""

import io
import json
from pathlib import Path

import pytest
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from rich.console import Console

from drivers.readings import Vital
from drivers.registry import Registry, build_registry, load_drivers
from drivers.spec import Broadcast, DriverSpec, uuid16
from gateway import virtual_time
from gateway.commands import scan as command
from gateway.commands.scan import Sighting, make_sighting, make_table
from gateway.commands.sensor_families import FAMILIES, OTHER, find_drivers, find_family
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device, open_in_process_radio
from tests.gateway.test_pair_command import CUFF, OMRON, Home, advertise
from tests.radio.pairing_people import Answers

VENDOR = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"


def make_advertisement(
    name: str | None = None,
    services: tuple[str, ...] = (),
    companies: tuple[int, ...] = (),
    service_data: tuple[str, ...] = (),
) -> AdvertisementData:
    data = dict.fromkeys(companies, b"")
    return AdvertisementData(name, data, dict.fromkeys(service_data, b""), list(services), None, -60, ())


def test_a_device_is_described_in_words() -> None:
    advertisement = make_advertisement("Strap", (uuid16(0x180D), uuid16(0x1234), VENDOR))
    sighting = make_sighting(BLEDevice("c0:de", "Strap", None), advertisement, load_drivers(), {"C0:DE"})
    assert sighting == Sighting(
        "c0:de", "Strap", -60, ["heart rate", "1234", VENDOR], ["heart_rate", "polar_pmd"], is_paired=True
    )


def broadcast_registry() -> Registry:
    def decode(_payload: bytes) -> tuple[Vital, ...]:
        return ()

    broadcasts = (Broadcast("manufacturer_data", 0x0157, decode), Broadcast("service_data", uuid16(0x181D), decode))
    return build_registry([DriverSpec("scale", broadcasts=broadcasts)])


@pytest.mark.parametrize(
    "advertisement", [make_advertisement(companies=(0x0157,)), make_advertisement(service_data=(uuid16(0x181D),))]
)
def test_drivers_of_advertisements_are_found(advertisement: AdvertisementData) -> None:
    assert find_drivers(broadcast_registry(), advertisement) == ["scale"]
    assert find_drivers(broadcast_registry(), make_advertisement(companies=(0x0611,))) == []


def test_the_table_has_sensors_first_and_no_escapes() -> None:
    sightings = {
        "b": Sighting("b", "TV", -40, [], [], is_paired=False),
        "a": Sighting("a", "\x1b[2J Strap", -80, ["heart rate"], ["heart_rate"], is_paired=True),
    }
    console = Console(file=io.StringIO(), width=120)
    console.print(make_table(sightings))
    assert isinstance(console.file, io.StringIO)
    title, first, second = console.file.getvalue().splitlines()
    assert title.split() == ["address", "signal", "name", "services", "driver", "paired"]
    assert first.split() == ["a", "-80", "dBm", r"\x1b[2J", "Strap", "heart", "rate", "heart_rate", "yes"]
    assert second.split() == ["b", "-40", "dBm", "TV", "none", "no"]


def test_the_live_table_grows_while_the_scan_runs(tmp_path: Path) -> None:
    sightings: dict[str, Sighting] = {}

    async def main() -> None:
        link = VirtualLink()
        device = make_device(link, CUFF, OMRON)
        advertise(device, 0x180D)
        await device.power_on()
        await device.start_advertising(auto_restart=True)
        console = Console(file=io.StringIO(), force_terminal=True, width=120)
        async with open_in_process_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
            await command._show_live(radio, 5, sightings, console)
        assert isinstance(console.file, io.StringIO)
        assert OMRON in console.file.getvalue()

    virtual_time.run(main())
    assert [(each.address, each.drivers, each.is_paired) for each in sightings.values()] == [(CUFF, ["heart_rate"], False)]


def test_json_says_what_is_paired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path)

    async def main() -> None:
        await home.add(OMRON, 0x1810)
        async with open_in_process_radio(home.link, VIRTUAL_HUB_ADDRESS, home.keys) as radio:
            device = await radio.find(lambda *_: True, 5)
            assert device is not None
            await radio.pair(device, Answers())
        monkeypatch.setattr(command, "open_radio", lambda name: home.open_radio(name, home.keys))
        await command._scan("virtual:x", 3, as_json=True)

    virtual_time.run(main())
    (seen,) = json.loads(capsys.readouterr().out)
    assert (seen["address"], seen["name"], seen["services"], seen["is_paired"]) == (CUFF, OMRON, ["blood pressure"], True)


@pytest.mark.parametrize(
    ("name", "advertisement", "words"),
    [
        ("BLESmart_0000", None, "Omron blood pressure monitor"),
        ("A&D_UA-651BLE_123456", None, "A&D blood pressure monitor, scale or thermometer"),
        ("BF720", None, "Beurer scale"),
        ("BM85", None, "Beurer or Sanitas blood pressure monitor"),
        ("BM1000", None, "sensor"),  # an oximeter of another vendor
        ("Polar H10 1234", None, "Polar sensor"),
        ("InfiniTime", None, "InfiniTime watch"),
        ("", make_advertisement(companies=(0x020E,)), "Omron blood pressure monitor"),
        ("x", make_advertisement(services=(uuid16(0x1810),)), "blood pressure monitor"),
        ("x", make_advertisement(services=(uuid16(0x180D),)), "heart rate strap"),
        ("x", make_advertisement(), "sensor"),
    ],
)
def test_families_are_told_by_name_company_or_service(name: str, advertisement: AdvertisementData | None, words: str) -> None:
    assert find_family(name, advertisement).words == words


def test_every_step_is_a_short_sentence() -> None:
    for family in (*FAMILIES, OTHER):
        for sentence in (*family.steps, family.wake):
            assert sentence.endswith(".")
            assert len(sentence.split()) <= 25
