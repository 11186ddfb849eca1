"""Which advertisements are a sensor's: its address once it was paired, its name only before."""

from pathlib import Path

import pytest

from config.settings import SensorSettings
from gateway.paired_sensors import (
    PAIRED_FILE,
    PairedSensor,
    is_forgotten,
    is_sensor,
    known_address,
    load_paired,
    may_bond,
    store_paired,
    with_forgotten,
)
from sync.errors import PermanentError

MINE, OTHER = "C0:DE:00:00:00:07", "C0:DE:00:00:00:08"
BY_NAME = SensorSettings("cuff", advertised_name="BLESmart_")
BY_ADDRESS = SensorSettings("cuff", address=MINE)
PINNED = {"cuff": PairedSensor(MINE, "BLESmart_")}


def test_a_name_finds_a_sensor_only_until_it_is_paired() -> None:
    assert is_sensor(BY_NAME, {}, OTHER, "BLESmart_0001")
    assert not is_sensor(BY_NAME, {}, OTHER, "Polar H10")
    assert not is_sensor(BY_NAME, PINNED, OTHER, "BLESmart_0001")
    assert is_sensor(BY_NAME, PINNED, MINE.lower(), "")


def test_an_address_in_the_settings_counts_more_than_a_pairing() -> None:
    assert known_address(SensorSettings("cuff", address=OTHER), PINNED) == OTHER
    assert is_sensor(BY_ADDRESS, {}, MINE, "any name")
    assert not is_sensor(BY_ADDRESS, {}, OTHER, "any name")


def test_a_pairing_ends_when_the_settings_name_another_sensor() -> None:
    assert known_address(SensorSettings("cuff", advertised_name="A&D_"), PINNED) is None
    assert known_address(SensorSettings("scale", advertised_name="BLESmart_"), PINNED) is None


def test_a_sensor_that_is_known_by_its_name_alone_gets_no_bond() -> None:
    assert not may_bond(BY_NAME, {})
    assert may_bond(BY_NAME, PINNED)
    assert may_bond(BY_ADDRESS, {})


@pytest.mark.parametrize("sensor", [BY_NAME, BY_ADDRESS])
def test_a_sensor_that_forgot_its_bond_gets_no_new_one_until_it_is_paired(sensor: SensorSettings, tmp_path: Path) -> None:
    store_paired(tmp_path, with_forgotten(sensor, {"strap": PairedSensor(OTHER)}, MINE.lower()))
    paired = load_paired(tmp_path)
    assert paired["strap"] == PairedSensor(OTHER)
    assert known_address(sensor, paired) == MINE  # the name does not count again
    assert is_forgotten(sensor, paired)
    assert not may_bond(sensor, paired)
    paired["cuff"] = PairedSensor(MINE, sensor.advertised_name)
    assert may_bond(sensor, paired)
    assert not is_forgotten(SensorSettings("cuff", address=OTHER), with_forgotten(sensor, {}, MINE))


def test_pairings_are_stored_for_the_owner_only(tmp_path: Path) -> None:
    assert load_paired(tmp_path) == {}
    store_paired(tmp_path, PINNED)
    assert load_paired(tmp_path) == PINNED
    assert (tmp_path / PAIRED_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 1}', '{"version": 1, "sensors": [1]}', '{"version": 1, "sensors": {"cuff": {"x": 1}}}'],
)
def test_a_damaged_file_never_lets_a_name_count_again(tmp_path: Path, text: str) -> None:
    (tmp_path / PAIRED_FILE).write_text(text)
    with pytest.raises(PermanentError, match=r"sensors\.json: delete it and pair the sensors again"):
        load_paired(tmp_path)


def test_a_file_of_a_newer_version_is_named(tmp_path: Path) -> None:
    (tmp_path / PAIRED_FILE).write_text('{"version": 2, "sensors": {}}')
    with pytest.raises(PermanentError, match="newer pulsegate"):
        load_paired(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"cannot write .*sensors\.json"):
        store_paired(tmp_path / "none", PINNED)
