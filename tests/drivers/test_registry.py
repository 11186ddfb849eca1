"""The registry: finding drivers, rejecting conflicts, quarantine, quirks."""

from dataclasses import replace

import pytest

import drivers.battery
import drivers.heart_rate
import drivers.polar_pmd
from drivers.device import DeviceInformation, Quirk
from drivers.readings import Quarantined, Status, Vital, Waveform
from drivers.registry import DriverConflictError, build_registry, load_drivers
from drivers.spec import uuid16

STRAP = (uuid16(0x1800), uuid16(0x180A), uuid16(0x180D), uuid16(0x180F), drivers.polar_pmd.SERVICE.upper())
ECG_FRAME = bytes.fromhex("000094357700000000000280FF028000")
H10 = DeviceInformation("Polar Electro Oy", "H10", "3.1.1")


def test_finds_every_driver_of_the_package_once() -> None:
    assert [driver.name for driver in load_drivers().drivers] == ["battery", "device_information", "heart_rate", "polar_pmd"]


def test_selects_every_driver_whose_service_the_sensor_offers() -> None:
    registry = load_drivers()
    assert registry.for_services(STRAP) == registry.drivers
    assert registry.for_services([uuid16(0x180F)]) == (drivers.battery.DRIVER,)
    assert registry.for_services([]) == ()


def test_error_names_two_drivers_that_claim_one_characteristic() -> None:
    rival = replace(drivers.battery.DRIVER, name="rival")
    with pytest.raises(DriverConflictError, match=r"'battery' and 'rival' both claim characteristic 00002a19-"):
        build_registry([rival, drivers.battery.DRIVER])


def test_rejects_two_drivers_that_claim_one_control_point() -> None:
    rival = replace(drivers.polar_pmd.DRIVER, name="rival", streams=())
    with pytest.raises(DriverConflictError, match=drivers.polar_pmd.CONTROL_POINT):
        build_registry([drivers.polar_pmd.DRIVER, rival])


def test_rejects_a_driver_of_the_wrong_type() -> None:
    with pytest.raises(TypeError, match="DRIVER is a str"):
        build_registry(["heart_rate"])  # type: ignore[list-item]  # as from a module with a wrong DRIVER


def test_undecodable_payloads_are_quarantined_unchanged_with_the_reason() -> None:
    registry = load_drivers()
    assert registry.decode(uuid16(0x2A19), b"\xff") == (
        Quarantined(uuid16(0x2A19), b"\xff", "battery level: 255 is reserved; the service defines 0 to 100 %"),
    )
    assert registry.decode(uuid16(0x2A6E), b"\x01") == (
        Quarantined(uuid16(0x2A6E), b"\x01", "no driver decodes this characteristic"),
    )
    assert registry.decode(drivers.polar_pmd.CONTROL_POINT, b"\x0f") == (
        Quarantined(drivers.polar_pmd.CONTROL_POINT, b"\x0f", "no driver decodes this characteristic"),
    )


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
