"""The registry: finding drivers, rejecting conflicts, quarantine, quirks."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import drivers.battery
import drivers.heart_rate
import drivers.mi_band
import drivers.polar_pmd
from drivers.device import DeviceInformation, Quirk
from drivers.readings import Quarantined, Reading, Status, Vital, Waveform
from drivers.registry import DriverConflictError, build_registry, load_drivers
from drivers.spec import Characteristic, DriverSpec, uuid16

STRAP = (uuid16(0x1800), uuid16(0x180A), uuid16(0x180D), uuid16(0x180F), drivers.polar_pmd.SERVICE.upper())
ECG_FRAME = bytes.fromhex("000094357700000000000280FF028000")
MADE_UP = "5f6a1f0e-93c4-4d1b-8b52-3f0c2e7a9d11"
"""A characteristic that no sensor has, so no driver decodes it."""
H10 = DeviceInformation("Polar Electro Oy", "H10", "3.1.1")


def test_finds_every_driver_of_the_package_once() -> None:
    found = [driver.name for driver in load_drivers().drivers]
    folder = Path(drivers.__path__[0])
    defining = [path.stem for path in folder.glob("*.py") if re.search(r"^DRIVER: Final", path.read_text(), re.MULTILINE)]
    assert len(found) == len(set(found)) == len(defining) > 15
    assert found == sorted(found)


def test_selects_every_driver_whose_service_the_sensor_offers() -> None:
    registry = load_drivers()
    offered = [driver.name for driver in registry.for_services(STRAP)]
    assert offered == ["battery", "device_information", "heart_rate", "polar_pmd"]
    assert registry.for_services([uuid16(0x180F)]) == (drivers.battery.DRIVER,)
    assert registry.for_services([]) == ()


def test_error_names_two_drivers_that_claim_one_service() -> None:
    rival = replace(drivers.battery.DRIVER, name="rival")
    with pytest.raises(DriverConflictError, match=r"'battery' and 'rival' both claim service 0000180f-"):
        build_registry([rival, drivers.battery.DRIVER])


def test_error_names_two_drivers_that_claim_one_field_of_advertisements() -> None:
    rival = replace(drivers.mi_band.DRIVER, name="rival")
    with pytest.raises(DriverConflictError, match=r"'mi_band' and 'rival' both claim manufacturer_data 343:"):
        build_registry([rival, drivers.mi_band.DRIVER])


def test_a_characteristic_of_two_services_is_decoded_by_the_driver_of_its_service() -> None:
    one, other = (
        DriverSpec(name, uuid16(service), (Characteristic(uuid16(0x2A52), "indicate", partial(decode_as, name)),))
        for name, service in (("oximeter", 0x1822), ("glucose", 0x1808))
    )
    registry = build_registry([one, other])
    assert registry.decode(uuid16(0x2A52), b"", service=uuid16(0x1808)) == (Status("model", "glucose"),)
    assert registry.decode(uuid16(0x2A52), b"", service=uuid16(0x1822)) == (Status("model", "oximeter"),)
    (unknown,) = registry.decode(uuid16(0x2A52), b"")
    assert isinstance(unknown, Quarantined)


def decode_as(name: str, _payload: bytes) -> tuple[Reading, ...]:
    return (Status("model", name),)


def test_rejects_a_driver_of_the_wrong_type() -> None:
    with pytest.raises(TypeError, match="DRIVER is a str"):
        build_registry(["heart_rate"])  # type: ignore[list-item]  # as from a module with a wrong DRIVER


def test_undecodable_payloads_are_quarantined_unchanged_with_the_reason() -> None:
    registry = load_drivers()
    assert registry.decode(uuid16(0x2A19), b"\xff") == (
        Quarantined(uuid16(0x2A19), b"\xff", "battery level: 255 is reserved; the service defines 0 to 100 %"),
    )
    assert registry.decode(MADE_UP, b"\x01") == (Quarantined(MADE_UP, b"\x01", "no driver decodes this characteristic"),)


def test_upper_case_uuid_names_the_same_characteristic() -> None:
    assert load_drivers().decode(uuid16(0x2A19).upper(), b"\x64") == (Status("battery", 100),)


@pytest.mark.parametrize(
    ("device", "rate"),
    [
        (H10, 130.16),
        (replace(H10, firmware="3.2.0"), 130.0),
        (replace(H10, model="H9"), 130.0),
        (replace(H10, manufacturer="Other"), 130.0),
        (DeviceInformation(), 130.0),
        (None, 130.0),
    ],
)
def test_a_quirk_changes_the_declared_rate_of_its_model_only(device: DeviceInformation | None, rate: float) -> None:
    quirk = Quirk("measured", H10.manufacturer, (H10.model,), firmware="3.1", rate_hz={"ecg": 130.16})
    registry = build_registry([replace(drivers.polar_pmd.DRIVER, quirks=(quirk,))])
    expected = Waveform("ecg", (-32766, 32770), rate, 0.001, 2_000_000_000)
    assert registry.decode(drivers.polar_pmd.DATA, ECG_FRAME, device) == (expected,)


def test_a_quirk_drops_the_kinds_that_its_model_reports_wrongly() -> None:
    quirk = Quirk("contact is stuck", models=("X",), ignored=frozenset({"skin_contact"}))
    registry = build_registry([replace(drivers.heart_rate.DRIVER, quirks=(quirk,))])
    frame = bytes.fromhex("0648")
    assert registry.decode(uuid16(0x2A37), frame, DeviceInformation(model="X")) == (Vital("heart_rate", 72),)
    assert registry.decode(uuid16(0x2A37), frame, H10) == (Vital("heart_rate", 72), Status("skin_contact", True))
    assert registry.decode(uuid16(0x2A37), b"", DeviceInformation(model="X"))[0].__class__ is Quarantined


def test_device_information_is_collected_from_readings() -> None:
    readings = (
        Status("manufacturer", "Polar Electro Oy"),
        Status("model", "H10"),
        Status("battery", 80),
        Vital("heart_rate", 70),
    )
    gathered = DeviceInformation().updated(readings).updated([Status("firmware", "3.1.1"), Status("serial", "1")])
    assert gathered == H10
