"""Every vector of `devices.json` whose characteristic has a driver, decoded as `pulsegate decode` does it.

A field without a check in `device_fields` fails the test. A new driver is tested as soon as it exists; its service must then be
removed from `WITHOUT_DRIVER`.
"""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from drivers.readings import Quarantined, Waveform
from drivers.registry import load_drivers
from gateway.decode import UsageError, decode_payload
from tests.drivers.device_fields import FIELDS
from tests.drivers.field_checks import Found, is_framing

REGISTRY: Final = load_drivers()
Vector = dict[str, Any]

WITHOUT_DRIVER: Final = {
    # Vendors' protocols without a driver.
    *("14839AC4-7D7E-415C-9A42-167340CF2339", "46A970E0-0D5F-11E2-8B5E-0002A5D5C51B", "49535343-FE7D-4AE5-8FA9-9FAFD205E455"),
    *("636F6D2E-6A69-7561-6E2E-646576000000", "78B2", "CDEACD80-5235-4C07-8846-93A37EE6B86D", "FF00", "FFE0", "FFF0"),
    *("E8FB0001-A14B-98F9-831B-4E2941D01248", "omron-memory"),
    *("advertisement: manufacturer data 020E", "advertisement: manufacturer data FF04"),
}
"""Services, advertisements, or services with a characteristic, as the vectors write them."""

WITHOUT_QUIRK: Final = "read without the quirk"
"""In the name of a device: its model is not known."""


def key(vector: Vector) -> str:
    """What a driver is chosen by."""
    characteristic: str = vector["characteristic"]
    return (
        characteristic
        if characteristic.startswith("advertisement")
        else f"{vector['service']} {characteristic.split(maxsplit=1)[0]}"
    )


def is_without_driver(vector: Vector) -> bool:
    return bool({key(vector), vector["service"]} & WITHOUT_DRIVER)


def decode(vector: Vector) -> Found | None:
    """The readings, or None where no driver decodes the characteristic."""
    model = "" if WITHOUT_QUIRK in vector["device"] else vector["device"]
    payload = bytes.fromhex(vector["hex"])
    try:
        readings = decode_payload(REGISTRY, vector["service"], vector["characteristic"], payload, model)
    except UsageError:
        return None
    if any(isinstance(reading, Quarantined) and reading.reason.startswith("no driver") for reading in readings):
        return None
    return Found(readings)


def is_no_result(vector: Vector) -> bool:
    """Whether the payload has a value that is not a result: a weight that still changes, or an object's."""
    expect = vector["expect"]
    return expect.get("stable") is False or expect.get("object") is True or vector["device"].endswith(", object")


def find_problems(vector: Vector, found: Found) -> list[str]:
    """What is wrong with the readings of a vector."""
    expect, quarantined = vector["expect"], [r for r in found.readings if isinstance(r, Quarantined)]
    if "error" in expect:
        return [] if quarantined else [f"must be refused: {expect['error']}"]
    if quarantined:
        return [f"refused: {quarantined[0].reason}"]
    if is_no_result(vector):
        return ["must not be a result"] if found.readings else []
    unknown = [f"device_fields has no check for {name}" for name in expect if name not in FIELDS]
    known = {name: value for name, value in expect.items() if name in FIELDS}
    return unknown + [f"{name} is not {value!r}" for name, value in known.items() if not FIELDS[name](found, value, vector)]


@pytest.fixture(scope="module")
def vectors(data: Path) -> list[Vector]:
    return list(json.loads((data / "vectors" / "devices.json").read_text())["vectors"])


def test_every_vector_is_decoded_to_its_fields(vectors: list[Vector]) -> None:
    decoded = [(vector, found) for vector in vectors if (found := decode(vector)) is not None]
    assert len(decoded) > 50
    problems = [
        f"{vector['device']}, {key(vector)}, {vector['hex'][:60]}: {problem}: {found.readings}"
        for vector, found in decoded
        for problem in find_problems(vector, found)
    ]
    assert not problems, "\n".join(problems)


def test_only_listed_services_have_no_driver(vectors: list[Vector]) -> None:
    missing = {key(vector) for vector in vectors if decode(vector) is None and not is_without_driver(vector)}
    assert not missing, "no driver decodes these characteristics: write it, or list them in WITHOUT_DRIVER"


def test_the_list_of_services_without_a_driver_has_no_others(vectors: list[Vector]) -> None:
    decoded = [vector for vector in vectors if decode(vector) is not None]
    stale = {name for vector in decoded for name in (key(vector), vector["service"])} & WITHOUT_DRIVER
    assert not stale, "these have a driver now: remove them from WITHOUT_DRIVER"
    assert {name for vector in vectors for name in (key(vector), vector["service"])} >= WITHOUT_DRIVER


def wrong(value: Any) -> Any:
    """A value that is not the expected one."""
    match value:
        case bool():
            return not value
        case int() | float():
            return -value - 7
        case [*items]:
            return [*(wrong(item) for item in items), 7] if items else [7]
        case dict():
            return {name: wrong(item) for name, item in value.items()}
        case _:
            return "wrong" if value else 7


def is_noticed(vector: Vector, name: str, found: Found) -> bool:
    """Whether a wrong value of a field is noticed; a check may not even be able to read it."""
    try:
        return not FIELDS[name](found, wrong(vector["expect"][name]), vector)
    except (TypeError, ValueError, LookupError):
        return True


def test_a_wrong_value_of_any_field_is_noticed(vectors: list[Vector]) -> None:
    """Fields of the frame alone are no readings. The sensor's time is that of waveforms only."""
    unnoticed: set[tuple[str, bool]] = set()
    for vector in vectors:
        found = decode(vector)
        expect = vector["expect"]
        if found is None or "error" in expect or is_no_result(vector):
            continue
        names = [name for name in expect if name != "judgement" and FIELDS[name] is not is_framing]
        has_time = any(isinstance(reading, Waveform) for reading in found.readings)
        unnoticed |= {(name, has_time) for name in names if not is_noticed(vector, name, found)}
    assert unnoticed <= {("timestamp_ns", False), ("last_sample_time", False)}


def test_a_field_without_a_check_fails() -> None:
    vector = {
        "device": "",
        "service": "180F",
        "characteristic": "2A19",
        "hex": "33",
        "expect": {"battery_percent": 52, "new": 1},
    }
    found = decode(vector)
    assert found is not None
    assert find_problems(vector, found) == ["device_fields has no check for new", "battery_percent is not 52"]
    assert find_problems(vector | {"expect": {"error": "out of range"}}, found) == ["must be refused: out of range"]
    assert find_problems(vector | {"expect": {"battery_percent": 51}}, found) == []
