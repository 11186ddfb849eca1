"""The example in docs/how-to-add-a-driver.md is a working driver."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from drivers.readings import DecodeError, Vital
from drivers.registry import build_registry, load_drivers
from drivers.spec import DriverSpec, uuid16

PAGE = Path(__file__).parents[2] / "docs" / "how-to-add-a-driver.md"


def code_block(title: str) -> str:
    found = re.search(rf"^```{title}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE.name} has no code block {title!r}"
    return found[1]


@pytest.fixture
def driver(tmp_path: Path) -> DriverSpec:
    file = tmp_path / "pulse_oximeter.py"
    file.write_text(code_block("python driver"))
    spec = importlib.util.spec_from_file_location("pulse_oximeter", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert isinstance(module.DRIVER, DriverSpec)
    return module.DRIVER


def test_the_example_decodes_its_vectors_and_rejects_malformed_payloads(driver: DriverSpec) -> None:
    (stream,) = driver.streams
    page = json.loads(code_block("json vectors"))
    for case in page["vectors"]:
        expected = tuple(Vital(item["kind"], item["value"]) for item in case["readings"])
        assert stream.decode(bytes.fromhex(case["hex"])) == expected
    for case in page["malformed"]:
        with pytest.raises(DecodeError, match=case["error"]):
            stream.decode(bytes.fromhex(case["hex"]))


def test_the_example_can_be_registered_with_the_existing_drivers(driver: DriverSpec) -> None:
    others = [other for other in load_drivers().drivers if other.service != driver.service]
    registry = build_registry([*others, driver])
    assert registry.for_services([uuid16(0x1822)]) == (driver,)
