"""The registry: finding drivers, refusing conflicts, quarantine, quirks."""

from dataclasses import replace

import pytest

import drivers.battery
import drivers.heart_rate
import drivers.polar_pmd
from drivers.readings import Quarantined, Status, Vital, Waveform
from drivers.registry import DriverConflictError, load_drivers, registry_of
from drivers.spec import DeviceInformation, Quirk, uuid16

STRAP = (uuid16(0x1800), uuid16(0x180A), uuid16(0x180D), uuid16(0x180F), drivers.polar_pmd.SERVICE.upper())
ECG_FRAME = bytes.fromhex("000094357700000000000280FF028000")
H10 = DeviceInformation("Polar Electro Oy", "H10", "3.1.1")


def test_every_driver_of_the_package_is_found_once() -> None:
    assert [driver.name for driver in load_drivers().drivers] == ["battery", "device_information", "heart_rate", "polar_pmd"]


def test_a_sensor_is_served_by_every_driver_whose_service_it_offers() -> None:
    registry = load_drivers()
    assert registry.for_services(STRAP) == registry.drivers
    assert registry.for_services([uuid16(0x180F)]) == (drivers.battery.DRIVER,)
    assert registry.for_services([]) == ()


def test_two_drivers_for_one_characteristic_are_refused_by_name() -> None:
    rival = replace(drivers.battery.DRIVER, name="rival")
    with pytest.raises(DriverConflictError, match=r"'battery' and 'rival' both claim characteristic 00002a19-"):
        registry_of([rival, drivers.battery.DRIVER])


def test_a_conflict_over_a_control_point_is_refused_too() -> None:
    rival = replace(drivers.polar_pmd.DRIVER, name="rival", streams=())
    with pytest.raises(DriverConflictError, match=drivers.polar_pmd.CONTROL_POINT):
        registry_of([drivers.polar_pmd.DRIVER, rival])


def test_something_else_named_driver_is_refused() -> None:
    with pytest.raises(TypeError, match="DRIVER is a str"):
        registry_of(["heart_rate"])  # type: ignore[list-item]  # what a wrong module would bring


def test_what_cannot_be_decoded_is_kept_as_it_came_with_the_reason() -> None:
    registry = load_drivers()
    assert registry.decode(uuid16(0x2A19), b"\xff") == (
        Quarantined(uuid16(0x2A19), b"\xff", "battery level: 255 is reserved, 0 to 100 % are defined"),
    )
    assert registry.decode(uuid16(0x2A6E), b"\x01") == (
        Quarantined(uuid16(0x2A6E), b"\x01", "no driver decodes this characteristic"),
    )
    assert registry.decode(drivers.polar_pmd.CONTROL_POINT, b"\x0f") == (
        Quarantined(drivers.polar_pmd.CONTROL_POINT, b"\x0f", "no driver decodes this characteristic"),
    )


def test_a_uuid_in_capitals_is_the_same_characteristic() -> None:
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
def test_a_quirk_changes_the_declared_rate_of_its_model_alone(device: DeviceInformation | None, rate: float) -> None:
    quirk = Quirk("measured", H10.manufacturer, H10.model, firmware="3.1", rate_hz={"ecg": 130.16})
    registry = registry_of([replace(drivers.polar_pmd.DRIVER, quirks=(quirk,))])
    expected = Waveform("ecg", (-32766, 32770), rate, 0.001, 2_000_000_000)
    assert registry.decode(drivers.polar_pmd.DATA, ECG_FRAME, device) == (expected,)


def test_a_quirk_leaves_out_what_the_model_reports_wrongly() -> None:
    quirk = Quirk("contact is stuck", model="X", ignored=frozenset({"skin_contact"}))
    registry = registry_of([replace(drivers.heart_rate.DRIVER, quirks=(quirk,))])
    frame = bytes.fromhex("0648")
    assert registry.decode(uuid16(0x2A37), frame, DeviceInformation(model="X")) == (Vital("heart_rate", 72),)
    assert registry.decode(uuid16(0x2A37), frame, H10) == (Vital("heart_rate", 72), Status("skin_contact", True))
    assert registry.decode(uuid16(0x2A37), b"", DeviceInformation(model="X"))[0].__class__ is Quarantined


def test_device_information_is_gathered_from_readings() -> None:
    readings = (
        Status("manufacturer", "Polar Electro Oy"),
        Status("model", "H10"),
        Status("battery", 80),
        Vital("heart_rate", 70),
    )
    gathered = DeviceInformation().updated(readings).updated([Status("firmware", "3.1.1"), Status("serial", "1")])
    assert gathered == H10
