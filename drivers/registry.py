"""The registry of all drivers: every module of this package that defines `DRIVER`."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import drivers
from drivers.readings import DecodeError, Quarantined, Reading, check_reading
from drivers.spec import Decoder, DeviceInformation, DriverSpec


class DriverConflictError(Exception):
    """Two drivers claim the same characteristic, and nothing decides which one decodes it."""


@dataclass(frozen=True, slots=True)
class Registry:
    """All drivers, ordered by name, and the decoder of each characteristic. See `load_drivers` and `build_registry`."""

    drivers: tuple[DriverSpec, ...]
    _owners: Mapping[str, DriverSpec]
    _decoders: Mapping[str, Decoder]

    def for_services(self, uuids: Iterable[str]) -> tuple[DriverSpec, ...]:
        """The drivers for the services that a sensor offers (128-bit UUIDs)."""
        offered = {uuid.lower() for uuid in uuids}
        return tuple(driver for driver in self.drivers if driver.service in offered)

    def decode(self, characteristic: str, payload: bytes, device: DeviceInformation | None = None) -> tuple[Reading, ...]:
        """Decode `payload` and apply the quirks declared for `device`.

        Yields `Quarantined` where decoding fails or gives a value that the stages after it cannot represent.
        """
        characteristic = characteristic.lower()
        decoder = self._decoders.get(characteristic)
        if decoder is None:
            return (Quarantined(characteristic, payload, "no driver decodes this characteristic"),)
        try:
            readings = decoder(payload)
            for quirk in self._owners[characteristic].quirks:
                if device is not None and quirk.applies_to(device):
                    readings = quirk.correct(readings)
            for reading in readings:
                check_reading(reading)
        except DecodeError as error:
            return (Quarantined(characteristic, payload, str(error)),)
        return readings


def load_drivers() -> Registry:
    """A registry of every driver in the package.

    Raises:
        DriverConflictError: two drivers claim the same characteristic.
        TypeError: a module's `DRIVER` is not a `DriverSpec`.
    """
    modules = (
        importlib.import_module(f"{drivers.__name__}.{module.name}") for module in pkgutil.iter_modules(drivers.__path__)
    )
    return build_registry(module.DRIVER for module in modules if hasattr(module, "DRIVER"))


def build_registry(specs: Iterable[DriverSpec]) -> Registry:
    """A registry of the given drivers. Raises the same errors as `load_drivers`."""
    ordered = tuple(sorted(specs, key=_checked_name))
    owners: dict[str, DriverSpec] = {}
    for driver in ordered:
        for characteristic in driver.characteristics:
            other = owners.setdefault(characteristic, driver)
            if other is not driver:
                raise DriverConflictError(
                    f"drivers {other.name!r} and {driver.name!r} both claim characteristic {characteristic}: remove it from one"
                )
    decoders = {s.uuid: s.decode for driver in ordered for s in driver.streams + driver.reads}
    return Registry(ordered, owners, decoders)


def _checked_name(driver: object) -> str:
    if not isinstance(driver, DriverSpec):
        raise TypeError(f"DRIVER is a {type(driver).__name__}: it must be a drivers.spec.DriverSpec")
    return driver.name
