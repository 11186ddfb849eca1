"""The sensors that were paired with this hub, each pinned to its address, and which advertisements are theirs.

Anybody can give a device the name of a patient's sensor. So a name in the settings only finds a sensor that was never paired;
`pulsegate pair` stores its address in the data folder, and from then on only that address counts. A sensor that is known by its
name alone gets no bond: see `may_bond`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from config.files import replacing
from config.settings import SensorSettings
from sync.errors import PermanentError

PAIRED_FILE: Final = "sensors.json"
"""The file in the data folder. It holds addresses, no readings."""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class PairedSensor:
    """A sensor that was paired.

    `address` is the one that it had then, `advertised_name` the name in the settings that it was found by, if any. If
    `is_forgotten`, it has deleted its half of the bond and must be paired again.
    """

    address: str
    advertised_name: str | None = None
    is_forgotten: bool = False


def load_paired(data: Path) -> dict[str, PairedSensor]:
    """Return the paired sensors by their names in the settings.

    Raises:
        PermanentError: the file is damaged. A name alone must not let a stranger's device in again.
    """
    path = data / PAIRED_FILE
    try:
        table: Any = json.loads(path.read_bytes())
        if table["version"] != _VERSION:
            raise PermanentError(f"{path} was written by a newer pulsegate: update pulsegate")
        return {str(name): PairedSensor(**sensor) for name, sensor in table["sensors"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise PermanentError(f"cannot read the paired sensors {path}: delete it and pair the sensors again") from error


def store_paired(data: Path, paired: Mapping[str, PairedSensor]) -> None:
    """Replace the file durably.

    Raises:
        PermanentError: it cannot be written.
    """
    path = data / PAIRED_FILE
    table = {"version": _VERSION, "sensors": {name: asdict(sensor) for name, sensor in paired.items()}}
    try:
        with replacing(path, durable=True) as draft:
            draft.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise PermanentError(
            f"cannot write {path} ({error.strerror}): check that its folder is writable and has room"
        ) from error


def known_address(sensor: SensorSettings, paired: Mapping[str, PairedSensor]) -> str | None:
    """Return the one address that this sensor has: from the settings, else from its pairing; None if only its name is known.

    A pairing counts as long as the settings still name the same sensor.
    """
    pinned = paired.get(sensor.name)
    if sensor.address is None and pinned is not None and pinned.advertised_name == sensor.advertised_name:
        return pinned.address
    return sensor.address


def is_sensor(sensor: SensorSettings, paired: Mapping[str, PairedSensor], address: str, advertised_name: str) -> bool:
    """Return whether an advertisement is this sensor's."""
    known = known_address(sensor, paired)
    if known is not None:
        return address.upper() == known
    return sensor.advertised_name is not None and advertised_name.startswith(sensor.advertised_name)


def may_bond(sensor: SensorSettings, paired: Mapping[str, PairedSensor]) -> bool:
    """Return whether the hub may create or use a bond with this sensor.

    Its address must be known, and it must not have forgotten a bond: somebody else may answer under its address, so a person
    must pair it again.
    """
    return known_address(sensor, paired) is not None and not is_forgotten(sensor, paired)


def is_forgotten(sensor: SensorSettings, paired: Mapping[str, PairedSensor]) -> bool:
    """Return whether the sensor has forgotten its bond and was not paired again."""
    pinned = paired.get(sensor.name)
    return pinned is not None and pinned.is_forgotten and pinned.address == known_address(sensor, paired)


def with_forgotten(sensor: SensorSettings, paired: Mapping[str, PairedSensor], address: str) -> dict[str, PairedSensor]:
    """Return the paired sensors after this one has forgotten its bond, for `store_paired`."""
    return {**paired, sensor.name: PairedSensor(address.upper(), sensor.advertised_name, is_forgotten=True)}
