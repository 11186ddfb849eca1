"""`pulsegate decode`: what it prints, how it finds the driver, and its exit status."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime

import pytest

from drivers.heart_rate import DRIVER as HEART_RATE
from drivers.readings import Intervals, Origin, Quarantined, Reading, Status, Vital, Waveform
from drivers.registry import Registry, build_registry, load_drivers
from drivers.spec import Broadcast, Characteristic, DriverSpec, uuid16
from gateway.cli import main
from gateway.decode import UsageError, decode_payload, make_table, parse_uuid, reading_as_json

VENDOR = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"
RACP = uuid16(0x2A52)


def first_byte(kind: str) -> Callable[[bytes], tuple[Reading, ...]]:
    return lambda payload: (Status(kind, payload[0]),)


def driver(name: str, service: str, *characteristics: str) -> DriverSpec:
    return DriverSpec(name, service, tuple(Characteristic(uuid, "notify", first_byte(name)) for uuid in characteristics))


@pytest.fixture(scope="module")
def registry() -> Registry:
    scale = (
        Broadcast("service_data", uuid16(0x181B), first_byte("scale")),
        Broadcast("manufacturer_data", 0x006B, first_byte("strap")),
    )
    return build_registry(
        [
            HEART_RATE,
            driver("oximeter", uuid16(0x1822), RACP, uuid16(0x2A5E)),
            driver("glucose", uuid16(0x1808), RACP),
            driver("vendor", VENDOR, VENDOR.replace("5c80", "5c81")),
            DriverSpec("advertised", broadcasts=scale),
        ]
    )


def run(*arguments: str) -> int:
    return main(["decode", *arguments])


def test_prints_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--service", "180D", "--characteristic", "2A37", "164820030000", "--json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"type": "vital", "kind": "heart_rate", "value": 72, "unit": "/min", "flags": ["zero_interval"]},
        {"type": "status", "kind": "skin_contact", "value": True},
        {"type": "intervals", "kind": "rr", "ticks": [800], "ms": [781.25]},
        {"type": "intervals", "kind": "rr_padding", "ticks": [0], "ms": [0.0]},
    ]


def test_prints_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--characteristic", "2a37", "16 48 2003 0000") == 0
    assert capsys.readouterr().out.splitlines() == [
        "heart_rate    72 /min   zero_interval",
        "skin_contact  True",
        "rr            781.2 ms",
        "rr_padding    0.0 ms",
    ]


def test_a_payload_that_is_not_decoded_gives_1_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--characteristic", "2A37", "103EB103DE", "--json") == 1
    printed = capsys.readouterr()
    reason = "R-R intervals: 3 bytes are not a whole number of 2-byte intervals"
    assert json.loads(printed.out) == {"type": "quarantined", "reason": reason, "payload": "103EB103DE"}
    assert printed.err == f"pulsegate: cannot decode the payload: {reason}\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--characteristic", "2A37", "0x48"), "two hexadecimal digits"),
        (("--characteristic", "2A37", "004"), "two hexadecimal digits"),
        (("--characteristic", "2A3", "0048"), "not a UUID"),
        (("--characteristic", "2A37", "--service", "heart rate", "0048"), "not a UUID"),
        (("--characteristic", "advertisement: manufacturer data Polar", "6B00"), "not the number of a company"),
        (("0048",), "--characteristic"),
    ],
)
def test_bad_usage_gives_2_and_says_what_is_allowed(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = run(*arguments)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    assert status == 2
    printed = capsys.readouterr()
    assert problem in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("service", ["1822", "1822 (and 1808, Omron extension)", uuid16(0x1822), uuid16(0x1822).upper()])
def test_the_service_decides_between_drivers_of_one_characteristic(service: str, registry: Registry) -> None:
    assert decode_payload(registry, service, "2A52", b"\x06") == (Status("oximeter", 6),)


@pytest.mark.parametrize("service", ["none", "", "1810"])
def test_without_its_service_a_characteristic_of_two_drivers_is_not_decoded(service: str, registry: Registry) -> None:
    assert isinstance(decode_payload(registry, service, "2A52", b"\x06")[0], Quarantined)


@pytest.mark.parametrize("characteristic", ["FB005C81", "fb005c81", "FB005C81 (read)", VENDOR.replace("5c80", "5c81")])
@pytest.mark.parametrize("service", ["FB005C80", VENDOR, "none"])
def test_the_first_group_of_a_vendor_uuid_stands_for_it(service: str, characteristic: str, registry: Registry) -> None:
    assert decode_payload(registry, service, characteristic, b"\x0f") == (Status("vendor", 15),)


def test_an_unknown_first_group_is_a_32_bit_uuid(registry: Registry) -> None:
    assert parse_uuid("0000180D", ()) == uuid16(0x180D)
    with pytest.raises(UsageError, match="not a UUID"):
        parse_uuid("0734594A-…", ())


def test_the_model_applies_its_quirks(registry: Registry) -> None:
    frame = bytes.fromhex("10665A02")
    assert decode_payload(registry, "180D", "2A37", frame)[1] == Intervals("rr", (602,))
    assert decode_payload(registry, "180D", "2A37", frame, "WHOOP 5.0")[1] == Intervals("rr", (616,))


def test_advertisements_are_found_by_their_field(registry: Registry) -> None:
    assert decode_payload(registry, "181B", "advertisement: service data 181B", b"\x07") == (Status("scale", 7),)
    assert decode_payload(registry, "none", "advertisement: manufacturer data 006B", b"\x6b\x00\x3b") == (
        Status("strap", 0x3B),
    )
    assert decode_payload(registry, "none", "Advertisement: Manufacturer data 006b", b"\x6b\x00\x3b") == (
        Status("strap", 0x3B),
    )


@pytest.mark.parametrize(
    ("characteristic", "payload", "reason"),
    [
        ("advertisement: manufacturer data 006B", "006B3B", "company, 006B, low byte first"),
        ("advertisement: manufacturer data 006B", "6B", "company, 006B, low byte first"),
        ("advertisement: manufacturer data 0157", "57013B", "no driver"),
        ("advertisement: service data 181D", "07", "no driver"),
    ],
)
def test_another_advertisement_is_not_decoded(characteristic: str, payload: str, reason: str, registry: Registry) -> None:
    (found,) = decode_payload(registry, "none", characteristic, bytes.fromhex(payload))
    assert isinstance(found, Quarantined)
    assert reason in found.reason
    assert bytes.fromhex(payload).endswith(found.payload)


def test_an_advertisement_without_a_reading_is_decoded() -> None:
    silent = build_registry([DriverSpec("silent", broadcasts=(Broadcast("manufacturer_data", 0x0157, lambda _payload: ()),))])
    assert decode_payload(silent, "none", "advertisement: manufacturer data 0157", b"\x57\x01\xff") == ()
    assert make_table(()) == ""


def test_the_origin_of_a_spot_reading_is_printed() -> None:
    origin = Origin(7, datetime(2026, 8, 11, 18, 31), "set", record=3, user=1, is_stored=True)  # noqa: DTZ001 - the sensor's
    reading = Vital("systolic", 120.5, ("body_movement",), origin)
    assert reading_as_json(reading) == {
        **{"type": "vital", "kind": "systolic", "value": 120.5, "unit": "mm[Hg]", "flags": ["body_movement"]},
        **{"measured": "2026-08-11T18:31:00", "clock": "set", "user": 1, "record": 3, "group": 7, "stored": True},
    }
    assert make_table([reading]) == (
        "systolic  120.5 mm[Hg]  body_movement measured=2026-08-11 18:31:00 clock=set user=1 record=3 stored"
    )
    undated = reading_as_json(Status("failed_measurement", "weight", Origin(7, clock="unknown")))
    assert (undated["measured"], undated["clock"], undated["user"]) == (None, "unknown", None)


def test_a_waveform_is_printed_with_its_scale() -> None:
    wave = Waveform("ecg", (0, 76, -208), 130.0, 0.001, 2_000_000_000)
    assert reading_as_json(wave) == {
        **{"type": "waveform", "kind": "ecg", "samples": [0, 76, -208], "rate_hz": 130.0, "scale": 0.001},
        **{"values": [0.0, 0.076, -0.208], "unit": "mV", "last_ns": 2_000_000_000},
    }
    assert make_table([wave]) == "ecg  0 0.076 -0.208 mV  3 samples at 130 Hz, the last at 2.000 s"


def test_a_status_has_its_unit_and_the_fields_that_its_text_lists() -> None:
    assert reading_as_json(Status("battery", 51)) == {"type": "status", "kind": "battery", "value": 51, "unit": "%"}
    answer = reading_as_json(Status("record_access", "op=number operator=null number=1234"))
    assert answer["fields"] == {"op": "number", "operator": "null", "number": 1234}
    assert "fields" not in reading_as_json(Status("manufacturer", "Wahoo Fitness"))
    assert "fields" not in reading_as_json(Status("model", ""))


@pytest.mark.parametrize(
    ("form", "payload", "value"),
    [("SFLOAT", "6CF1", 36.4), ("SFLOAT", "0008", "NRes"), ("FLOAT", "E80E00FE", 38.16), ("FLOAT", "FFFF7F00", "NaN")],
)
def test_decodes_a_number_by_itself(form: str, payload: str, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--service", "none", "--characteristic", form, payload, "--json") == 0
    assert json.loads(capsys.readouterr().out)["value"] == value


def test_a_truncated_number_is_not_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--characteristic", "SFLOAT", "6C") == 1
    assert run("--characteristic", "SFLOAT", "6CF100") == 1
    assert "needs 2 bytes" in capsys.readouterr().err


def test_a_characteristic_of_a_service_without_a_driver_is_decoded_as_elsewhere() -> None:
    drivers = load_drivers()
    answer = Status("record_access", "op=response operator=null request=report_stored result=success")
    assert decode_payload(drivers, "1808", "2A52", bytes.fromhex("06000101"), "Accu-Chek Guide") == (answer,)
    assert isinstance(decode_payload(drivers, "180D", "2A52", bytes.fromhex("06000101"))[0], Quarantined)


def test_text_of_a_sensor_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--characteristic", "2A24", "1B5B324A") == 0
    assert capsys.readouterr().out == "model  \\x1b[2J\n"


def test_needs_no_large_package() -> None:
    program = "import sys; from gateway.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", program, "decode", "--characteristic", "2A37", "0048"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert not {"numpy", "scipy", "onnxruntime", "bumble", "bleak", "rich", "asyncio"} & set(found)
